#!/bin/bash
# Several nodes with SLURM: one launcher per node, all GPUs of each.
#
#   sbatch --nodes 2 --gres gpu:8 recipes/accelerate/slurm.sh zero3 recipes/grpo_psg.py --config FILE.yaml
#
#SBATCH --ntasks-per-node 1
#SBATCH --exclusive
#SBATCH --output slurm-%j.log
set -euo pipefail
config=$1
shift
export MAIN_ADDRESS CONFIG=$config
MAIN_ADDRESS=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
MAIN_ADDRESS=${MAIN_ADDRESS%%$'\n'*} # not by `head`: what it does not read would end scontrol, and this script with it
# The single quotes keep the variables for each node's own shell.
# shellcheck disable=SC2016
srun bash -c '
    gpus=${SLURM_GPUS_ON_NODE:-$(nvidia-smi --list-gpus | wc -l)}
    exec accelerate launch --config_file "recipes/accelerate/$CONFIG.yaml" --num_machines "$SLURM_NNODES" \
        --machine_rank "$SLURM_NODEID" --num_processes "$((SLURM_NNODES * gpus))" \
        --main_process_ip "$MAIN_ADDRESS" --main_process_port "$((20000 + SLURM_JOB_ID % 10000))" "$@"
' launch "$@"
