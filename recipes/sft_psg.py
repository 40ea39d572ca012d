"""Supervised fine-tuning on PSG: the model learns to write the scene graph of an image as text.

    python data_prep/to_toon.py --dataset psg --root DIR --output data/psg
    accelerate launch --config_file recipes/accelerate/zero2.yaml recipes/sft_psg.py \
        --config recipes/configs/qwen3_5_0_8b/sft_psg.yaml

On a CPU, with the toy world and the tiny model of `make demo`:

    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/sft_psg.py \
        --config recipes/configs/toy/sft.yaml

The texts are TOON as in SceneGraphVLM, or JSON as in R1-SGG (`--format json` of the conversion). The loss is on
answers alone, and rows that are too long are left out, never cut. An interrupted run goes on from its last checkpoint
when it is started again. At its end `output_dir` is an ordinary model folder: weights and processor, ready for
recipes/grpo_psg.py, transformers and vLLM.

Every key of the YAML files is an option too: `--learning_rate 2e-5`. What happens with them is in
sgrl/training/recipe.py, for all recipes.
"""

from sgrl.command import command
from sgrl.training.launch import SFTArguments, parse
from sgrl.training.recipe import train_sft
from sgrl.training.rows import DataKind

DATA = DataKind("psg", codecs=("toon", "toon-lean", "json"))


@command
def main() -> None:
    from trl import ModelConfig, SFTConfig

    script_args, training_args, model_args = parse((SFTArguments, SFTConfig, ModelConfig))
    train_sft(script_args, training_args, model_args, DATA)


if __name__ == "__main__":
    main()
