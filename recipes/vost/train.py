"""Training of VOST-SGG, a detector of scene graphs in video, on Action Genome: one run is one stage.

    sgrl convert --layout action_genome --root DIR --output data/ag
    sgrl priors --dataset data/ag --models MODEL0 MODEL1 --output data/ag-priors
    accelerate launch recipes/vost/train.py --config recipes/configs/vost_r50/sgdet.yaml
    accelerate launch recipes/vost/train.py --config recipes/configs/vost_r50/sgdet_temporal.yaml

The spatial stage starts from a DETR and trains everything but the layers over time; the temporal stage starts from its
folder and trains these alone. Switches of the paper's comparison are settings: `content` (queries begin with priors),
`bank` (what predicate queries look at), `stage`. On a CPU, with the toy world:

    accelerate launch recipes/vost/train.py --config recipes/configs/toy/vost_ag.yaml

An interrupted run goes on from its last checkpoint when it is started again. docs/vost.md has the rest.
"""

from contextlib import nullcontext

from sgrl.command import command
from sgrl.training.launch import parse
from sgrl.training.model import log_parameters
from sgrl.training.vost import (
    DetectorArguments,
    load_detector,
    load_evaluation,
    load_frames,
    open_priors,
    save_detector,
)


@command
def main() -> None:
    from sgrl.models.vost.trainer import VostArguments

    script_args, training_args = parse((DetectorArguments, VostArguments))

    from transformers import set_seed

    from sgrl.files import folder_lock
    from sgrl.models.detection.images import image_processor
    from sgrl.models.vost.trainer import VostTrainer
    from sgrl.training.checks import check_best
    from sgrl.training.resume import Run, accept_numbered_cpus
    from sgrl.training.watch import check_report_to

    check_report_to(training_args.report_to)
    check_best(training_args)
    with folder_lock(training_args.output_dir) if training_args.process_index == 0 else nullcontext():
        run = Run(training_args, script_args.identity())
        if run.finished:
            return

        # Model: a DETR's weights, or those of the stage before; the same in every process.
        set_seed(training_args.seed)
        priors = open_priors(script_args)
        model = load_detector(script_args, priors)

        # Data: frames or clips with what a language model said of them. All checks come here.
        processor = image_processor(script_args.short_side, script_args.long_side)
        train = load_frames(script_args, model, processor, priors, training_args.seed)
        evaluated = training_args.eval_strategy != "no"
        evaluation = load_evaluation(script_args, model, processor, priors) if evaluated else None

        # Train, from the last checkpoint if there is one.
        trainer = VostTrainer(model, training_args, train, evaluation)
        log_parameters(trainer.model)
        if training_args.device.type == "cpu":
            accept_numbered_cpus()
        trainer.train(resume_from_checkpoint=run.checkpoint)

        # Save: a model folder that `SceneGraphModel.from_pretrained` knows.
        save_detector(trainer, processor, script_args)
        run.note_end(trainer.state.global_step)


if __name__ == "__main__":
    main()
