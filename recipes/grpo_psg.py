"""GRPO on PSG: the model writes several graphs of each image, and those that match the reference best become likelier.

    accelerate launch --config_file recipes/accelerate/zero2.yaml recipes/grpo_psg.py \
        --config recipes/configs/qwen3_5_0_8b/grpo_psg.yaml

On a CPU, after the supervised fine-tuning of the toy world:

    accelerate launch --config_file recipes/accelerate/cpu.yaml recipes/grpo_psg.py \
        --config recipes/configs/toy/grpo.yaml

Start from a model that recipes/sft_psg.py trained: a model that cannot write the format yet is rewarded for nothing.
Rollouts come from vLLM in the same process (`use_vllm: true`), or from transformers where vLLM is not installed. Which
reward is one line: `reward: full`, or a list of terms. An interrupted run goes on from its last checkpoint when it is
started again. At its end `output_dir` is an ordinary model folder.

Every key of the YAML files is an option too: `--reward recall-only`.
"""

from rewards.trl import rewards_named
from sgrl.training.launch import GRPOArguments, command, parse, without_missing_vllm
from sgrl.training.model import (
    check_model_folder,
    init_arguments,
    load_model,
    load_processor,
    log_parameters,
    lora_config,
    model_folder,
    save_model,
    set_pixel_budget,
    template_arguments,
)
from sgrl.training.publish import model_card, publish, take_push_settings, write_card
from sgrl.training.resume import Run
from sgrl.training.rows import check_prompts, drop_long_rows, load_rows


@command
def main() -> None:
    from trl import GRPOConfig, ModelConfig

    script_args, training_args, model_args = parse((GRPOArguments, GRPOConfig, ModelConfig))

    ################
    # Checks, rewards and data, before the model is loaded
    ################
    from sgrl.training.callbacks import ParityAlarm
    from sgrl.training.context import add_context
    from sgrl.training.watch import TrainingWatch, check_report_to

    path = model_args.model_name_or_path
    check_model_folder(path)
    check_report_to(training_args.report_to)
    target = take_push_settings(training_args)
    reward_funcs, weights = rewards_named(script_args.reward, script_args.similarity)
    training_args.reward_weights = weights
    alarm = ParityAlarm(script_args.parity_threshold, script_args.parity_action)
    watch = TrainingWatch(
        best=sum(w for f, w in zip(reward_funcs, weights, strict=True) if "hallucination" not in f.__name__)
    )
    identity = {"recipe": "grpo", "model_name_or_path": path}
    identity |= {name: getattr(script_args, name) for name in ("reward", "similarity", "context", "context_noise")}
    run = Run(training_args, identity | {"dataset": script_args.dataset, "trainable": script_args.trainable})
    if run.finished:
        publish(training_args.output_dir, target, training_args.process_index == 0)
        return
    columns = ("image", "prompt", "solution", "width", "height", "image_id")  # the rewards see all but the prompt
    train_rows, eval_rows = load_rows(script_args, training_args, columns)
    processor = load_processor(path, model_args, training_args.trust_remote_code)
    if set_pixel_budget(processor, script_args.min_pixels, script_args.max_pixels):
        with training_args.main_process_first():
            path = model_folder(path, processor, f"{training_args.output_dir}/start", model_args.model_revision)
    training_args.chat_template_kwargs = template_arguments(processor, script_args.thinking)
    train_rows, eval_rows = (
        drop_long_rows(rows, processor, script_args.max_tokens, training_args.chat_template_kwargs, answers=False)
        for rows in (train_rows, eval_rows)
    )
    check_prompts(train_rows, training_args)
    train_rows, eval_rows, of_context = add_context(train_rows, eval_rows, script_args, training_args)
    without_missing_vllm(training_args)

    ################
    # Model
    ################
    model = load_model(path, script_args.trainable, **init_arguments(model_args, training_args))

    ################
    # Training
    ################
    from sgrl.training.grpo import SceneGraphGRPOTrainer

    trainer = SceneGraphGRPOTrainer(
        model,
        reward_funcs,
        training_args,
        processor,
        vllm_engine_kwargs=script_args.vllm_engine_kwargs,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        peft_config=lora_config(model, model_args) if script_args.trainable == "lora" else None,
        callbacks=[alarm, watch, *of_context],
    )
    log_parameters(trainer.model)
    trainer.train(resume_from_checkpoint=run.checkpoint)
    save_model(trainer, processor)
    if training_args.process_index == 0:
        rewards = dict(zip((function.__name__ for function in reward_funcs), weights, strict=True))
        card = model_card(
            "grpo", script_args, training_args, model_args.model_name_or_path, trainer.state.log_history, rewards
        )
        write_card(training_args.output_dir, card)
    run.finish(trainer.state.global_step)
    publish(training_args.output_dir, target, training_args.process_index == 0)


if __name__ == "__main__":
    main()
