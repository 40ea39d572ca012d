"""Supervised fine-tuning on PVSG: graphs of the frames of videos, each with the graph of the frame before it.

    python data_prep/to_toon.py --dataset pvsg --root DIR --output data/pvsg --previous gt --thin base-annot
    accelerate launch --config_file recipes/accelerate/zero2.yaml recipes/sft_pvsg.py \
        --config recipes/configs/qwen3_5_0_8b/sft_pvsg.yaml

Neighbouring frames are much alike, so they are thinned when the data is converted: `--thin base-annot` keeps those
whose annotation changes, `psfr` and `maxinfo` choose by what is seen.

`--previous gt` puts the reference of the frame before into each prompt. What becomes of it is one line, and the
data set serves all three: `context: gt` as it stands, `context: none` without, `context: corrupted` with faults (for
GRPO: see recipes/grpo_pvsg.py). At inference that graph is the model's own: `recipes/evaluate.py --context generated`.

PSG4D's frames (`--dataset psg4d_gta`) train here too. All else is as in recipes/sft_psg.py.
"""

from sgrl.command import command
from sgrl.training.launch import SFTArguments, parse
from sgrl.training.recipe import train_sft
from sgrl.training.rows import DataKind

DATA = DataKind("pvsg", codecs=("toon", "toon-lean", "json"), video=True)


@command
def main() -> None:
    from trl import ModelConfig, SFTConfig

    script_args, training_args, model_args = parse((SFTArguments, SFTConfig, ModelConfig))
    train_sft(script_args, training_args, model_args, DATA)


if __name__ == "__main__":
    main()
