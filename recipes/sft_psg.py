"""Supervised fine-tuning on PSG: the model learns to write the scene graph of an image as text.

    sgrl convert --layout psg --root DIR --output data/psg
    accelerate launch --config_file recipes/accelerate/zero2.yaml recipes/sft_psg.py \
        --config recipes/configs/qwen3_5_0_8b/sft_psg.yaml

On a CPU, with the toy world and the tiny model of `make demo`:

    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/sft_psg.py \
        --config recipes/configs/toy/sft.yaml

The texts are TOON as in SceneGraphVLM, or JSON as in R1-SGG (`--codec json` of the conversion). The loss is on
answers alone, and rows that are too long are left out, never cut. An interrupted run goes on from its last checkpoint
when it is started again. At its end `output_dir` is an ordinary model folder: weights and processor, ready for
recipes/grpo_psg.py, transformers and vLLM.

Every key of the YAML files is an option too: `--learning_rate 2e-5`. What happens is below, in order.
"""

from sgrl.command import command
from sgrl.training.dataset import DataKind
from sgrl.training.launch import SFTArguments, parse
from sgrl.training.model import init_arguments, load_model, log_parameters, lora_config, save_model

DATA = DataKind("psg", codec="toon")


@command
def main() -> None:
    from trl import ModelConfig, SFTConfig

    script_args, training_args, model_args = parse((SFTArguments, SFTConfig, ModelConfig))

    from sgrl.training.muon import muon
    from sgrl.training.previous import add_context
    from sgrl.training.sft import COLUMNS, build_sft_trainer, check_config
    from sgrl.training.vlm import open_vlm_run, prepare_processor, prepare_rows

    check_config(training_args)
    with open_vlm_run("sft", script_args, training_args, model_args, DATA) as run:
        if run.finished:
            return

        # Data: the rows that the processor takes and that are not too long. All checks come before the model.
        prepared = prepare_processor(script_args, training_args, model_args, run.checkpoint)
        train, evaluation = prepare_rows(script_args, training_args, prepared, COLUMNS, answers=True)
        train, evaluation, of_context = add_context(train, evaluation, script_args, training_args)

        # Model: loaded, and frozen but for what `trainable` says.
        path = model_args.model_name_or_path
        model = load_model(path, script_args.trainable, **init_arguments(model_args, training_args))

        # Trainer: TRL's, whose loss is on the answers alone.
        trainer = build_sft_trainer(
            model,
            prepared.processor,
            training_args,
            train,
            evaluation,
            template_kwargs=prepared.template_kwargs,
            peft_config=lora_config(model, script_args.trainable, model_args),
            callbacks=of_context,
            optimizers=(muon(model, training_args) if script_args.muon else None, None),
        )

        # Train, from the last checkpoint if there is one.
        log_parameters(trainer.model)
        run.train(trainer)

        # Save: an ordinary model folder, its card, and the Hub if that is asked for.
        save_model(trainer, prepared.processor)
        run.finish(trainer)


if __name__ == "__main__":
    main()
