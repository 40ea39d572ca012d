"""Supervised fine-tuning on Action Genome: in each frame a person, and how it looks at, stands to and touches things.

    python data_prep/to_toon.py --dataset action_genome --root DIR --output data/ag
    accelerate launch --config_file recipes/accelerate/zero2.yaml recipes/sft_ag.py \
        --config recipes/configs/qwen3_5_0_8b/sft_ag.yaml

The texts are in the layout toon-pairs, one row for each pair of person and object with three cells of labels:

    rel_pairs[1]{subj,attention,spatial,contacting,obj}:
      1,unsure,"",holding|touching,2

Published work trains without the graph of the frame before. With it: `--previous gt` of the conversion, and
`context: gt`. All else is as in recipes/sft_psg.py.
"""

from sgrl.command import command
from sgrl.training.launch import SFTArguments, parse
from sgrl.training.recipe import train_sft
from sgrl.training.rows import DataKind

DATA = DataKind("action_genome", codecs=("toon-pairs",), video=True)


@command
def main() -> None:
    from trl import ModelConfig, SFTConfig

    script_args, training_args, model_args = parse((SFTArguments, SFTConfig, ModelConfig))
    train_sft(script_args, training_args, model_args, DATA)


if __name__ == "__main__":
    main()
