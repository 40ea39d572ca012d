"""Supervised fine-tuning on Action Genome: in each frame a person, and how it looks at, stands to and touches things.

    sgrl convert --layout action_genome --root DIR --output data/ag
    accelerate launch --config_file recipes/accelerate/zero2.yaml recipes/sft_ag.py \
        --config recipes/configs/qwen3_5_0_8b/sft_ag.yaml

The texts are in the layout toon-pairs, one row for each pair of person and object with three cells of labels:

    rel_pairs[1]{subj,attention,spatial,contacting,obj}:
      1,unsure,"",holding|touching,2

Published work trains without the graph of the frame before. With it: `--context gt` of the conversion, and
`context: gt`. All else is as in recipes/sft_psg.py.
"""

from sgrl.command import command
from sgrl.training.dataset import DataKind
from sgrl.training.launch import SFTArguments, parse
from sgrl.training.model import init_arguments, load_model, log_parameters, lora_config, save_model

DATA = DataKind("action_genome", codec="toon-pairs", video=True)


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
