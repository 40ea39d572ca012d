#!/usr/bin/env bash
# The whole job on the toy world, from nothing to a page of results: `make demo` runs it.
#
#   recipes/demo.sh [FOLDER]            default: build/demo
#   QUICK=1 recipes/demo.sh FOLDER      every step on a handful of images: shows that it runs, teaches nothing
#
# Each step is a command that you can use by itself. Interrupted, it goes on where it was when it is started again.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-build/demo}
train=34000 test=1100 sft=() grpo=()
if [ -n "${QUICK:-}" ]; then
    train=96 test=8
    sft=(--max_steps 4 --warmup_steps 0 --save_steps 2 --logging_steps 1)
    grpo=(--max_steps 2 --warmup_steps 0 --save_steps 1 --gradient_accumulation_steps 1)
fi

times=
say() {
    printf '\n\033[1m%s\033[0m\n' "$1"
    shift
    printf '  $'
    printf ' %s' "$@"
    printf '\n'
}
took() { # NAME START: keeps the seconds of a step for the end
    times+=$(printf '%6d s  %s' $((SECONDS - $2)) "$1")$'\n'
}
step() {
    local start=$SECONDS
    say "$@"
    "${@:2}"
    took "$1" "$start"
}
# One process with one thread for each core; more than four have too few rows each.
cores=$(python -c 'import os; print(min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()))')
workers=$cores
launch=(accelerate launch --config_file recipes/accelerate/cpu.yaml --num_processes "$cores")
if [ "$(tools/accelerator.sh)" = gpu ]; then
    launch=(accelerate launch --config_file recipes/accelerate/single_gpu.yaml)
    cores=1
fi

step "1. Draw the toy world in PSG's official layout" \
    python -m sgrl toyworld --output "$out/toyworld" --train $train --test $test --workers "$workers"
step "2. Convert it to chat data" \
    python -m sgrl convert --layout psg --root "$out/toyworld" --output "$out/data" --resize keep --prompt short
step "3. Build a tiny vision-language model with random weights" \
    python -m sgrl.tiny --output "$out/base"
step "4. Supervised fine-tuning" \
    "${launch[@]}" recipes/sft_psg.py --config recipes/configs/toy/sft.yaml \
    --model_name_or_path "$out/base" --dataset "$out/data" --output_dir "$out/sft" "${sft[@]}"
step "5. GRPO with the graph rewards; vLLM writes the rollouts in the trainer's process" \
    "${launch[@]}" recipes/grpo_psg.py --config recipes/configs/toy/grpo.yaml \
    --model_name_or_path "$out/sft" --dataset "$out/data" --output_dir "$out/grpo" "${grpo[@]}"

# Side by side, one for each core; what they print comes in its order.
mkdir -p "$out/eval"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
start=$SECONDS waiting=()
finish() {
    wait "${waiting[0]}" && code=0 || code=$?
    cat "$out/eval/$1.log"
    [ $code = 0 ] || exit $code
    waiting=("${waiting[@]:1}")
}
models=(base sft grpo)
for i in 0 1 2; do
    model=${models[i]}
    [ $i -lt "$cores" ] || finish "${models[i - cores]}"
    evaluate=(python recipes/evaluate.py --model "$out/$model" --dataset "$out/data" --split test
        --output "$out/eval/$model" --max-new-tokens 80 --limit 1000)
    say "6. Evaluate $model on held-out scenes" "${evaluate[@]}"
    if [ "$cores" -gt 1 ]; then export OMP_NUM_THREADS=1; fi
    "${evaluate[@]}" >"$out/eval/$model.log" 2>&1 &
    waiting+=($!)
done
for model in "${models[@]:3-${#waiting[@]}}"; do finish "$model"; done
took "6. Evaluate base, sft and grpo" "$start"
step "7. The page" \
    python -m sgrl report "$out/eval/base" "$out/eval/sft" "$out/eval/grpo" --output "$out/report.html"
printf '\n%s\nDone in %d min %d s. Open %s in a browser.\n' "$times" $((SECONDS / 60)) $((SECONDS % 60)) "$out/report.html"
