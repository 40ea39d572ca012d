"""GRPO on VG150 as R1-SGG does it: JSON, and one of three recalls as the reward.

    accelerate launch --config_file recipes/accelerate/zero3.yaml recipes/grpo_vg150.py \
        --config recipes/configs/qwen2_5_vl_7b/grpo_vg150.yaml

One line switches the recall: `reward: r1-sgg-hard-recall` (equal labels, both boxes with IoU 0.5),
`r1-sgg-hard-recall-relax` (alike labels) or `r1-sgg-soft-recall` (alike labels, no IoU). How alike two labels are is
another: `similarity:` exact, a JSON table, or the folder of a sentence-transformers model; the paper takes word
vectors. The reward's format term is R1-SGG's own and asks for <think>...</think> before the answer, so it stays at 0
for a model whose SFT taught answers alone: that costs nothing, as all answers of a group lose it.

All else is as in recipes/grpo_psg.py.
"""

from rewards.trl import rewards_named
from sgrl.command import command
from sgrl.training.launch import GRPOArguments, parse
from sgrl.training.recipe import train_grpo
from sgrl.training.rows import DataKind

DATA = DataKind("vg150", codecs=("json", "toon", "toon-lean"))


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
