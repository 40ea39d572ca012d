"""GRPO on PSG: the model writes several graphs of each image, and those that match the reference best become likelier.

    accelerate launch --config_file recipes/accelerate/zero2.yaml --num_processes 1 recipes/grpo_psg.py \
        --config recipes/configs/qwen3_5_0_8b/grpo_psg.yaml

On a CPU, after the supervised fine-tuning of the toy world:

    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/grpo_psg.py \
        --config recipes/configs/toy/grpo.yaml

Start from a model that recipes/sft_psg.py trained: a model that cannot write the format yet is rewarded for nothing.
Rollouts come from vLLM in the same process (`use_vllm: true`), or from transformers where vLLM is not installed. An
interrupted run goes on from its last checkpoint when it is started again. At its end `output_dir` is an ordinary model
folder.

Which reward is one line. A preset, with the weights of its paper:

    reward: full

or terms, with the weights of their preset or your own:

    reward: [format, relation_recall, relation_f1]
    reward_weights: [0.5, 3.0, 2.0]

or functions of your own as TRL takes them, beside terms or alone: `reward: [format, package.module:function]`.

Every key of the YAML files is an option too: `--reward recall-only`. What happens with them is in
sgrl/training/recipe.py, for all recipes.
"""

from rewards.trl import rewards_named
from sgrl.command import command
from sgrl.training.launch import GRPOArguments, parse
from sgrl.training.recipe import train_grpo
from sgrl.training.rows import DataKind

DATA = DataKind("psg", codecs=("toon", "toon-lean", "json"))


@command
def main() -> None:
    from trl import GRPOConfig, ModelConfig

    script_args, training_args, model_args = parse((GRPOArguments, GRPOConfig, ModelConfig))
    rewards, weights = rewards_named(
        script_args.reward, script_args.similarity, training_args.reward_weights, script_args.reward_protocol
    )
    train_grpo(script_args, training_args, model_args, DATA, rewards, weights)


if __name__ == "__main__":
    main()
