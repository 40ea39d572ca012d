"""What recipes/vost/train.py takes, and the model, frames and folder of a run."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgrl import data
from sgrl.errors import SettingError, SgrlError, suggest
from sgrl.terminal import printable
from sgrl.training.launch import json_mapping

if TYPE_CHECKING:
    from sgrl.models.vost.data import Clips, Frames
    from sgrl.models.vost.modeling import VostForSceneGraphs
    from sgrl.models.vost.priors import Priors

logger = logging.getLogger(__name__)

NONE = "none"


@dataclass
class DetectorArguments:
    """What the recipe takes besides transformers' own arguments."""

    dataset: str = field(  # type: ignore[assignment]  # None is what `__post_init__` refuses; "" would be a folder
        default=None, metadata={"help": "Folder that data_prep/to_toon.py wrote, in toon-pairs."}
    )
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str = field(default="test", metadata={"help": "Split of `eval_strategy`."})
    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "What the run starts from: a DETR (folder or name: facebook/detr-resnet-50), or the folder of "
            "a detector, which the temporal stage needs. Default: random weights."
        },
    )
    revision: str | None = field(default=None, metadata={"help": "Of the DETR on the Hub; facebook's: no_timm."})
    stage: str = field(default="spatial", metadata={"help": "spatial, or temporal: only the layers over time train."})
    task: str = field(default="sgdet", metadata={"help": "sgdet, predcls (boxes and classes given), sgcls (boxes)."})
    content: str = field(default="priors", metadata={"help": "Content of queries: priors, or none as in OED."})
    bank: str = field(
        default="full",
        metadata={
            "help": "What predicate queries look at: full, text, geometry (no language model), none: the image."
        },
    )
    detector: dict | str | None = field(
        default=None,
        metadata={"help": "Further settings of sgrl.models.vost.VostConfig for a new model, e.g. {num_slots: 20}."},
    )
    priors: str = field(
        default=NONE,
        metadata={"help": "Folder that recipes/extract_priors.py wrote, or none. It may hold texts alone."},
    )
    allow_seen_priors: bool = field(
        default=False,
        metadata={"help": "Take priors of videos that their language model was trained on, as the paper."},
    )
    prior_dropout: float = field(default=0.0, metadata={"help": "Rate at which pairs of priors are left out."})
    prior_noise: float = field(default=0.0, metadata={"help": "Rate at which labels of priors become others."})
    flip: float | None = field(
        default=None, metadata={"help": "Rate at which frames are mirrored. Default: 0.5, in the temporal stage 0."}
    )
    short_side: int = field(default=600, metadata={"help": "Pixels of an image's short side."})
    long_side: int = field(default=1000, metadata={"help": "Pixels of its long side, at most."})
    global_batch_size: int | None = field(
        default=None, metadata={"help": "Frames (temporal: clips) of a step over all processes."}
    )

    def __post_init__(self):
        if self.dataset is None:
            raise SgrlError("no data set is given; add `dataset: DIR` to the YAML file or --dataset DIR")
        self.detector = json_mapping(self.detector, "detector")
        for name in ("prior_dropout", "prior_noise", "flip"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise SettingError(name, f"expected a rate in [0, 1], found {value}")
        if self.flip is None:
            self.flip = 0.0 if self.stage == "temporal" else 0.5

    def identity(self) -> dict[str, Any]:
        """Settings that make a run the same run; see `sgrl.training.resume.Run`."""
        names: tuple[str, ...] = (
            "dataset",
            "model_name_or_path",
            "stage",
            "task",
            "content",
            "bank",
            "detector",
            "priors",
        )
        names += ("allow_seen_priors", "prior_dropout", "prior_noise", "flip", "short_side", "long_side")
        return {"recipe": "vost"} | {name: getattr(self, name) for name in names}


def open_priors(args: DetectorArguments) -> Priors | None:
    """The folder of `priors`, if there is one."""
    from sgrl.models.vost.priors import Priors

    return None if args.priors in (None, NONE) else Priors(args.priors)


def load_detector(args: DetectorArguments, priors: Priors | None) -> VostForSceneGraphs:
    """The model that a run starts from, prepared for its stage.

    Raises:
        SgrlError: a start that does not fit the stage or the settings, no priors for what needs texts.
    """
    from sgrl.models.vost.modeling import VostForSceneGraphs
    from sgrl.models.vost.trainer import start_stage

    start = args.model_name_or_path
    if start is not None and _model_type(start) == "vost":
        model = VostForSceneGraphs.from_pretrained(start, trust_remote_code=False)
        for name in ("task", "content", "bank"):
            found, wanted = getattr(model.config, name), getattr(args, name)
            if found != wanted:
                raise SettingError(name, f"{wanted}, but {start} was trained with {found}; set {name}: {found}")
    else:
        if args.stage == "temporal":
            raise SettingError(
                "model_name_or_path", f"{start}: the temporal stage goes on from the folder of the spatial one"
            )
        config = _config(args, priors)
        if start is None:
            model = VostForSceneGraphs(config)
        else:
            model = VostForSceneGraphs.from_detr(start, config, args.revision)
    start_stage(model, args.stage)
    return model


def _config(args: DetectorArguments, priors: Priors | None):
    from sgrl.models.vost.config import VostConfig

    if priors is None and args.bank != NONE:
        raise SettingError(
            "priors", f"{NONE}, but bank: {args.bank} holds texts; give a folder of priors, or set bank: {NONE}"
        )
    sizes: dict[str, Any] = {}
    if priors is not None:
        sizes = {"text_size": priors.text_size, "visual_size": priors.visual_size}
        if args.bank == "full" and priors.visual_size is None:
            logger.warning(
                "%s has no features of regions: the bank has four tokens for a pair, not seven", args.priors
            )
    vocabulary = data.vocabulary_of(data.read_metadata(args.dataset)).to_json()
    settings: dict[str, Any] = {
        "task": args.task,
        "content": args.content,
        "bank": args.bank,
        "vocabulary": vocabulary,
    }
    if args.model_name_or_path is None:
        settings["frozen_norm"] = False  # constants of a network from random weights normalise nothing
    # transformers takes any key and keeps it
    known = VostConfig.__init__.__code__.co_varnames
    given: Any = args.detector  # a dict, once `__post_init__` has read it
    for name in given:
        if name not in known or name in ("self", "kwargs", *settings):
            raise SettingError("detector", f"unknown key {printable(name, 60)!r}{suggest(name, known[1:])}")
    return VostConfig(**{**settings, **sizes, **given})


def _model_type(start: str) -> str | None:
    from transformers import PreTrainedConfig

    try:
        return PreTrainedConfig.get_config_dict(start)[0].get("model_type")
    except (OSError, ValueError):
        return None  # what loads a DETR says so, with the revision


def load_frames(args: DetectorArguments, model: VostForSceneGraphs, processor, priors: Priors | None, seed: int):
    """What is trained on."""
    from sgrl.models.vost.data import Clips, Frames, FrameSettings
    from sgrl.models.vost.inputs import Disturbance

    disturb = Disturbance(args.prior_dropout, args.prior_noise)
    settings = FrameSettings(True, args.flip or 0.0, disturb, args.allow_seen_priors, seed)
    frames: Frames | Clips = Frames(args.dataset, args.train_split, model.config, processor, priors, settings)
    return Clips(frames) if args.stage == "temporal" else frames


def load_evaluation(args: DetectorArguments, model: VostForSceneGraphs, processor, priors: Priors | None):
    """What is evaluated on: the loss of every frame that has pairs."""
    from sgrl.models.vost.data import Clips, Frames

    frames = Frames(args.dataset, args.eval_split, model.config, processor, priors)
    return Clips(frames) if args.stage == "temporal" else frames


def save_detector(trainer, processor, args: DetectorArguments) -> None:
    """Write the model folder: weights, preprocessor, the vectors of its labels, and scene_graph.json, which says what
    loads it."""
    from sgrl.models.vost.priors import write_text
    from sgrl.task import Task

    output = Path(trainer.args.output_dir)
    trainer.save_model(str(output))
    if trainer.args.should_save:
        processor.save_pretrained(output)
        priors = open_priors(args)
        if priors is not None:
            write_text(output, priors.objects, priors.predicates)
        settings = {"task": args.task, "stage": args.stage, "priors": args.priors}
        Task.of_dataset(args.dataset, kind="vost", settings=settings).write(output)
    trainer.save_state()
    trainer.accelerator.wait_for_everyone()
