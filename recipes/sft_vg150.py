"""Supervised fine-tuning on VG150, the 150 objects and 50 predicates of Visual Genome, as R1-SGG does it: JSON.

    sgrl convert --layout vg150 --root DIR --output data/vg150 --codec json --resize 644x476
    accelerate launch --config_file recipes/accelerate/zero3.yaml recipes/sft_vg150.py \
        --config recipes/configs/qwen2_5_vl_7b/sft_vg150.yaml

`--resize 644x476` makes both sides multiples of the 28 pixels that Qwen2.5-VL sees as one token: it resizes nothing
then, and boxes in pixels of the stored image are boxes in pixels of what the model sees, which is how it writes boxes.

All else is as in recipes/sft_psg.py.
"""

from sgrl.command import command
from sgrl.training.dataset import DataKind
from sgrl.training.launch import SFTArguments, parse
from sgrl.training.model import init_arguments, load_model, log_parameters, lora_config, save_model

DATA = DataKind("vg150", codec="json")


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
