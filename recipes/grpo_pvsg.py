"""GRPO on PVSG: frames of videos, with a faulty graph of the frame before in the prompt.

    accelerate launch --config_file recipes/accelerate/zero2.yaml --num_processes 1 recipes/grpo_pvsg.py \
        --config recipes/configs/qwen3_5_0_8b/grpo_pvsg.yaml

SFT shows the reference of the frame before, but at inference that graph is the model's own and has faults. A policy
that trusts it blindly repeats them, so GRPO can practise on faulty ones:

    context: corrupted
    context_noise: {drop: 0.1, relabel: 0.1}

names the kinds of noise (sgrl/context.py) and their rates; `context: gt` and `context: none` are the other two. All
answers of a group share one prompt, a resumed run meets the noise that it would have met, and the data set stays as
`data_prep/to_toon.py --previous gt` wrote it. All else is as in recipes/grpo_psg.py.
"""

from rewards.trl import rewards_named
from sgrl.command import command
from sgrl.training.launch import GRPOArguments, parse
from sgrl.training.recipe import train_grpo
from sgrl.training.rows import DataKind

DATA = DataKind("pvsg", codecs=("toon", "toon-lean", "json"), video=True)


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
