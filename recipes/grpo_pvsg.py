"""GRPO on PVSG: frames of videos, with a faulty graph of the frame before in the prompt.

    accelerate launch --config_file recipes/accelerate/zero2.yaml --num_processes 1 recipes/grpo_pvsg.py \
        --config recipes/configs/qwen3_5_0_8b/grpo_pvsg.yaml

SFT shows the reference of the frame before, but at inference that graph is the model's own and has faults. A policy
that trusts it blindly repeats them, so GRPO can practise on faulty ones:

    context: corrupted
    context_noise: {drop: 0.1, relabel: 0.1}

names the kinds of noise (sgrl/context.py) and their rates; `context: gt` and `context: none` are the other two. All
answers of a group share one prompt, a resumed run meets the noise that it would have met, and the data set stays as
`sgrl convert --context gt` wrote it. All else is as in recipes/grpo_psg.py.
"""

from rewards.trl import rewards_named
from sgrl.command import command
from sgrl.training.dataset import DataKind
from sgrl.training.launch import GRPOArguments, parse
from sgrl.training.model import init_arguments, load_model, log_parameters, lora_config, save_model

DATA = DataKind("pvsg", codec="toon", video=True)
COLUMNS = ("image", "prompt", "solution", "width", "height", "image_id")  # the rewards see all but the prompt


@command
def main() -> None:
    from trl import GRPOConfig, ModelConfig

    script_args, training_args, model_args = parse((GRPOArguments, GRPOConfig, ModelConfig))

    # Rewards: functions as TRL takes them, and how much each counts. They get the columns of the data set.
    rewards, weights = rewards_named(
        script_args.reward, script_args.similarity, training_args.reward_weights, script_args.reward_protocol
    )
    named = dict(zip((function.__name__ for function in rewards), weights, strict=True))
    training_args.reward_weights = weights

    from sgrl.training.callbacks import ParityAlarm
    from sgrl.training.previous import add_context
    from sgrl.training.vlm import open_vlm_run, prepare_processor, prepare_rollouts, prepare_rows
    from sgrl.training.watch import TrainingWatch, best_total

    with open_vlm_run("grpo", script_args, training_args, model_args, DATA) as run:
        if run.finished:
            return

        # Data: the rows that the processor takes and that are not too long. All checks come before the model.
        prepared = prepare_processor(script_args, training_args, model_args, run.checkpoint)
        train, evaluation = prepare_rows(script_args, training_args, prepared, COLUMNS, answers=False)
        path = prepare_rollouts(script_args, training_args, model_args, prepared, train, evaluation)
        train, evaluation, of_context = add_context(train, evaluation, script_args, training_args)

        # Model: loaded, and frozen but for what `trainable` says.
        model = load_model(path, script_args.trainable, **init_arguments(model_args, training_args))

        # Trainer: TRL's, with repairs for images under vLLM. Its import takes vLLM along.
        from sgrl.training.grpo import SceneGraphGRPOTrainer

        trainer = SceneGraphGRPOTrainer(
            model,
            rewards,
            training_args,
            prepared.processor,
            vllm_engine_kwargs=script_args.vllm_engine_kwargs,
            train_dataset=train,
            eval_dataset=evaluation,
            peft_config=lora_config(model, script_args.trainable, model_args),
            callbacks=[
                ParityAlarm(script_args.parity_threshold, script_args.parity_action),
                TrainingWatch(best=best_total(rewards, weights)),
                *of_context,
            ],
        )

        # Train, from the last checkpoint if there is one.
        log_parameters(trainer.model)
        run.train(trainer)

        # Save: an ordinary model folder, its card, and the Hub if that is asked for.
        save_model(trainer, prepared.processor)
        run.finish(trainer, named)


if __name__ == "__main__":
    main()
