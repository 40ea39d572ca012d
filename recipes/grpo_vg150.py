"""GRPO on VG150 as R1-SGG does it: JSON, and one of three recalls as the reward.

    accelerate launch --config_file recipes/accelerate/zero3.yaml recipes/grpo_vg150.py \
        --config recipes/configs/qwen2_5_vl_7b/grpo_vg150.yaml

One line switches the recall: `reward: r1-sgg-hard-recall` (equal labels, both boxes with IoU 0.5),
`r1-sgg-hard-recall-relax` (alike labels) or `r1-sgg-soft-recall` (alike labels, no IoU). How alike two labels are is
another: `similarity:` exact, a JSON table, or the folder of a sentence-transformers model; the paper takes word
vectors. The reward's format term is R1-SGG's own and asks for <think>...</think> before the answer, so it stays at 0
for a model whose SFT taught answers alone: that costs nothing, as all answers of a group lose it.

All else is as in recipes/grpo_psg.py.
"""

from rewards.trl import rewards_named
from sgrl.command import command
from sgrl.training.dataset import DataKind
from sgrl.training.launch import GRPOArguments, parse
from sgrl.training.model import init_arguments, load_model, log_parameters, lora_config, save_model

DATA = DataKind("vg150", codec="json")
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
