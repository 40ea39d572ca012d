"""Supervised fine-tuning on PSG: the model learns to write the scene graph of an image as text.

    accelerate launch --config_file recipes/accelerate/zero2.yaml recipes/sft_psg.py \
        --config recipes/configs/qwen3_5_0_8b/sft_psg.yaml

On a CPU, with the toy world and the tiny model of `make demo`:

    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/sft_psg.py \
        --config recipes/configs/toy/sft.yaml

Data: `data_prep/to_toon.py --dataset psg`. The loss is on answers alone, and rows that are too long are left out,
never cut. An interrupted run goes on from its last checkpoint when it is started again. At its end `output_dir` is an
ordinary model folder: weights and processor, ready for recipes/grpo_psg.py, transformers and vLLM.

Every key of the YAML files is an option too: `--learning_rate 2e-5`.
"""

from sgrl.training.launch import SFTArguments, command, parse
from sgrl.training.model import (
    check_model_folder,
    init_arguments,
    load_model,
    load_processor,
    log_parameters,
    lora_config,
    save_model,
    set_pixel_budget,
    template_arguments,
)
from sgrl.training.publish import model_card, publish, take_push_settings, write_card
from sgrl.training.resume import Run
from sgrl.training.rows import drop_long_rows, load_rows


@command
def main() -> None:
    from trl import ModelConfig, SFTConfig

    script_args, training_args, model_args = parse((SFTArguments, SFTConfig, ModelConfig))

    ################
    # Checks and data, before the model is loaded
    ################
    from sgrl.training.context import add_context
    from sgrl.training.muon import muon
    from sgrl.training.sft import COLUMNS, build_sft_trainer, check_config
    from sgrl.training.watch import check_report_to

    check_config(training_args)
    check_report_to(training_args.report_to)
    target = take_push_settings(training_args)
    check_model_folder(model_args.model_name_or_path)
    run = Run(
        training_args,
        {
            "recipe": "sft",
            "model_name_or_path": model_args.model_name_or_path,
            "dataset": script_args.dataset,
            "trainable": script_args.trainable,
            "context": script_args.context,
            "context_noise": script_args.context_noise,
        },
    )
    if run.finished:
        publish(training_args.output_dir, target, training_args.process_index == 0)
        return
    train_rows, eval_rows = load_rows(script_args, training_args, COLUMNS)
    path = model_args.model_name_or_path
    processor = load_processor(path, model_args, training_args.trust_remote_code)
    set_pixel_budget(processor, script_args.min_pixels, script_args.max_pixels)
    template_kwargs = template_arguments(processor, script_args.thinking)
    train_rows, eval_rows = (
        drop_long_rows(rows, processor, script_args.max_tokens, template_kwargs, answers=True)
        for rows in (train_rows, eval_rows)
    )
    train_rows, eval_rows, callbacks = add_context(train_rows, eval_rows, script_args, training_args)

    ################
    # Model
    ################
    model = load_model(path, script_args.trainable, **init_arguments(model_args, training_args))

    ################
    # Training
    ################
    trainer = build_sft_trainer(
        model,
        processor,
        training_args,
        train_rows,
        eval_rows,
        template_kwargs=template_kwargs,
        peft_config=lora_config(model, model_args) if script_args.trainable == "lora" else None,
        callbacks=callbacks,
        optimizers=(muon(model, training_args) if script_args.muon else None, None),
    )
    log_parameters(trainer.model)
    trainer.train(resume_from_checkpoint=run.checkpoint)
    save_model(trainer, processor)
    if training_args.process_index == 0:
        card = model_card("sft", script_args, training_args, path, trainer.state.log_history)
        write_card(training_args.output_dir, card)
    run.finish(trainer.state.global_step)
    publish(training_args.output_dir, target, training_args.process_index == 0)


if __name__ == "__main__":
    main()
