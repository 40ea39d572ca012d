"""From an image to a graph, in three lines:

    from sgrl import SceneGraphModel

    model = SceneGraphModel.from_pretrained("runs/grpo")
    graph = model("photograph.jpg").graph

What a model is asked stands in its folder (`scene_graph.json`, see `sgrl.task`). `from_pretrained` gives whatever the
file's `kind` says (KINDS): all kinds are `SceneGraphPredictor`s. recipes/predict.py and recipes/evaluate.py stand on
`SceneGraphModel.answer`, as calls and streams do.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, overload

from sgrl.boxes import COORDS
from sgrl.dotted import load
from sgrl.errors import SgrlError, UsageError, suggest
from sgrl.graph import Relation, SceneGraph
from sgrl.inference import zeroshot
from sgrl.inference.confidence import relation_confidences
from sgrl.inference.engine import Engine, EngineSettings, Generation
from sgrl.inference.engines import load_engine
from sgrl.inference.given import WrongImage, as_image, frames_of
from sgrl.inference.prediction import Prediction, SceneGraphPredictor
from sgrl.inference.presentation import Presentation, Question, moved
from sgrl.inference.stream import SceneGraphStream
from sgrl.inference.video import ahead, generate_apart
from sgrl.models.vlm.coordinates import Convention, convention_of
from sgrl.models.vlm.folder import check_model_folder
from sgrl.task import FILE, NAMES, Task
from sgrl.text import ParsedGraph
from sgrl.text.grammar import ebnf
from sgrl.text.parsed import to_graph
from sgrl.text.repair import repair

KINDS = {"vlm": "sgrl.inference.scene_graph_model:load_vlm", "vost": "sgrl.inference.detector:load_vost"}
"""What loads a model of each kind, imported when one is: a function of (model, engine, task, **settings)."""


class SceneGraphModel:
    """A vision-language model that writes scene graphs; see `SceneGraphPredictor`.

    Args:
        engine: see `load_engine`. task: how the model is asked.
        constrain: decode by a grammar of the task's vocabulary, so that no answer fails.
        convention: in place of the task's coordinates, for a model that was never trained to write graphs.

    Attributes:
        codec, presentation: of the task.
    """

    def __init__(self, engine: Engine, task: Task, *, constrain: bool = False, convention: Convention | None = None):
        if constrain and task.opening:
            raise SgrlError("constrain and the task's opening exclude each other: the grammar begins with the answer")
        self.engine, self.task, self.constrain = engine, task, constrain
        self.presentation = Presentation(task, getattr(engine, "model", ""), convention)
        self.codec = self.presentation.codec
        if constrain and self.presentation.convention:
            raise SgrlError(
                f"constrain needs coordinates of pixels or thousandths, x first; those of this task are "
                f"{task.coordinates!r}"
            )
        self._grammar = functools.lru_cache(maxsize=64)(functools.partial(ebnf, self.codec, task.vocabulary))

    @staticmethod
    def from_pretrained(
        model: str | Path, engine: str = "auto", task: Task | str | Path | None = None, **settings: Any
    ) -> SceneGraphPredictor:
        """Load a model that says how it is asked.

        Args:
            model: a model folder or a name on the Hub; the server's name of it with the engine "openai".
            engine: "auto" (vLLM where it runs this model, else transformers), "vllm", "transformers", "openai".
            task: for a model without `scene_graph.json`, or in its place: see `Task.read`.
            **settings: fields of `EngineSettings`, and `constrain` (see `SceneGraphModel`).

        Raises:
            SgrlError: in one line: no task, a damaged one or one of other weights, a model that cannot be loaded, an
                engine that does not run here.
        """
        if task is None:
            found = None if engine == "openai" else Task.find(model)
        else:
            found = task if isinstance(task, Task) else Task.read(task)
        if found is None and engine != "openai":
            check_model_folder(str(model))  # a folder that is not there lacks more than its task
        if found is None:
            raise SgrlError(no_task(str(model)))
        return loader(found)(str(model), engine, found, **settings)

    @overload
    def __call__(self, images: list | tuple, *, bgr: bool = False) -> list[Prediction]: ...
    @overload
    def __call__(self, images: Any, *, bgr: bool = False) -> Prediction: ...
    def __call__(self, images, *, bgr=False):
        """See `SceneGraphPredictor`."""
        if isinstance(images, list | tuple):
            return list(self.each(images, bgr=bgr))
        (found,) = self.answer([self.presentation.question(as_image(images, bgr))])
        if found.error is not None:
            raise SgrlError(f"the image got no graph: {found.error}")
        return found

    def each(self, images: Iterable[Any], *, bgr: bool = False) -> Iterator[Prediction]:
        """The graphs of any number of images, in their order, in memory that does not grow with it."""
        images = iter(images)
        chunks = iter(lambda: list(itertools.islice(images, 2 * self.engine.batch_size)), [])
        for opened in ahead([self._opened(image, bgr) for image in chunk] for chunk in chunks):
            done = iter(self.answer([one for one in opened if isinstance(one, Question)]))
            yield from (next(done) if isinstance(one, Question) else one for one in opened)

    def _opened(self, image: Any, bgr: bool) -> Question | Prediction:
        try:
            return self.presentation.question(as_image(image, bgr))
        except WrongImage:
            raise
        except SgrlError as error:
            return Prediction.of_unreadable(error)

    def stream(self, frames: Any, *, bgr: bool = False, context: str | None = None) -> Iterator[Prediction]:
        """See `SceneGraphPredictor`. context: see `SceneGraphStream`, which takes frames one by one where they come by
        a callback."""
        stream = SceneGraphStream(self, context)
        return (stream.push(frame, bgr) for frame in frames_of(frames))

    def answer(self, questions: Sequence[Question]) -> list[Prediction]:
        """What the model says to each question, in their order; one that gets no answer says why in `error`."""
        if not questions:
            return []
        grammars = [self._grammar(*question.seen) if self.constrain else None for question in questions]
        chats = [question.chat for question in questions]
        done = generate_apart(self.engine, [question.shown for question in questions], chats, grammars)
        return list(map(self._prediction, questions, done))

    def _prediction(self, question: Question, done: Generation) -> Prediction:
        frame, spent = question.frame, (done.tokens, done.prompt_tokens, done.seconds)
        if done.error is not None:
            nothing = SceneGraph((), (), *frame)
            return Prediction(nothing, done.text, "", (), done.finish_reason, done.error, None, *spent)
        done = _with_opening(question, done)
        text = done.text
        faults: dict[str, Any] = {}
        if question.convention:
            shown = question.shown[0] if isinstance(question.shown, Sequence) else question.shown
            text = zeroshot.in_frame_of(text, self.codec, shown.size, frame, question.convention, question.into)
        else:
            if self.constrain:
                text, faults = repair(self.codec, text, *question.seen)
            text = moved(text, self.codec, question.seen, frame, question.into)
        codec = question.into or self.codec
        parsed, _ = codec.recover_parsed(text, *frame)
        confidence = relation_confidences(self.codec, parsed, done.text, done.pieces, done.logprobs)
        graph = _graph(parsed, frame, codec.grouped, confidence)
        return Prediction(graph, done.text, text, confidence, done.finish_reason, None, None, *spent, faults)

    def close(self) -> None:
        """Free the model's memory. It can't be used afterwards."""
        self.engine.close()

    def __enter__(self) -> SceneGraphModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def load_vlm(model: str, engine: str, task: Task, *, constrain: bool = False, **settings: Any) -> SceneGraphModel:
    """The loader of KINDS for vision-language models.

    Raises SgrlError, also for a setting that `EngineSettings` has not.
    """
    names = [field.name for field in fields(EngineSettings)]
    for name in settings:
        if name not in names:
            raise UsageError(f"unknown setting {name!r}{suggest(name, [*names, 'constrain'])}")
    convention = None if task.coordinates in COORDS else convention_of(task.coordinates, model)
    said = {"max_new_tokens": task.max_new_tokens, "thinking": task.thinking}
    return SceneGraphModel(
        load_engine(engine, model, **said | settings), task, constrain=constrain, convention=convention
    )


def loader(task: Task):
    """What loads the model of a task. Raises SgrlError for a kind that this version does not know."""
    if task.kind not in KINDS:
        raise SgrlError(f"{FILE} says kind: {task.kind!r}, which this version cannot load{suggest(task.kind, KINDS)}")
    return load(KINDS[task.kind])


def no_task(model: str) -> str:
    """What to say of a model whose task is not known."""
    return (
        f"{model} does not say how it is asked (it has no {FILE}); give a task: a name ({', '.join(NAMES)}), a file, "
        "or the data set that it was trained with"
    )


def _with_opening(question: Question, done: Generation) -> Generation:
    """With how the question began the answer."""
    last = question.chat[-1]
    if last["role"] != "assistant":
        return done
    opening = last["content"]
    if done.pieces:
        done = replace(done, pieces=(opening, *done.pieces), logprobs=(0.0, *done.logprobs))
    return replace(done, text=opening + done.text)


def _graph(
    parsed: ParsedGraph, frame: tuple[int, int], grouped: bool, confidence: Sequence[float | None]
) -> SceneGraph:
    """The graph, each relation with its confidence."""
    graph = to_graph(parsed, *frame, grouped)
    said = [
        sure
        for (subject, predicate, target), sure in zip(parsed.relations, confidence, strict=True)
        if subject >= 0 and target >= 0 and predicate
    ]
    relations = [
        r if sure is None else Relation(r.subject, r.predicate, r.object, r.group, score=sure)
        for r, sure in zip(graph.relations, said, strict=True)
    ]
    return SceneGraph(graph.objects, relations, *frame)
