"""Supervised fine-tuning on VG150, the 150 objects and 50 predicates of Visual Genome, as R1-SGG does it: JSON.

    python data_prep/to_toon.py --dataset vg150 --root DIR --output data/vg150 --format json --resize 644x476
    accelerate launch --config_file recipes/accelerate/zero3.yaml recipes/sft_vg150.py \
        --config recipes/configs/qwen2_5_vl_7b/sft_vg150.yaml

`--resize 644x476` makes both sides multiples of the 28 pixels that Qwen2.5-VL sees as one token: it resizes nothing
then, and boxes in pixels of the stored image are boxes in pixels of what the model sees, which is how it writes boxes.

All else is as in recipes/sft_psg.py.
"""

from sgrl.command import command
from sgrl.training.launch import SFTArguments, parse
from sgrl.training.recipe import train_sft
from sgrl.training.rows import DataKind

DATA = DataKind("vg150", codecs=("json", "toon", "toon-lean"))


@command
def main() -> None:
    from trl import ModelConfig, SFTConfig

    script_args, training_args, model_args = parse((SFTArguments, SFTConfig, ModelConfig))
    train_sft(script_args, training_args, model_args, DATA)


if __name__ == "__main__":
    main()
