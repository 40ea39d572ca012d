"""GRPO on Action Genome, with the terms of the reward on single relations.

    accelerate launch --config_file recipes/accelerate/zero2.yaml --num_processes 2 recipes/grpo_ag.py \
        --config recipes/configs/qwen3_5_0_8b/grpo_ag.yaml

A row of the text holds up to ten labels of one pair in three groups. The reward takes it apart: every label of every
group is a relation of its own, for recall, precision, F1 and hallucinations alike, so that one right label of four is
a quarter right. What the format term asks for is stricter than in PSG: subjects are persons, at most 1 attention, 5
spatial and 4 contacting labels a row, no relation twice (docs/rewards.md).

All else is as in recipes/grpo_psg.py.
"""

from rewards.trl import rewards_named
from sgrl.command import command
from sgrl.training.launch import GRPOArguments, parse
from sgrl.training.recipe import train_grpo
from sgrl.training.rows import DataKind

DATA = DataKind("action_genome", codecs=("toon-pairs",), video=True)


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
