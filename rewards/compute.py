"""The strict metric in the shapes that others ask for: `evaluate`'s `compute`, and `compute_metrics` of a Trainer.

Neither `evaluate` nor transformers is imported.

    from rewards.compute import compute
    compute(predictions=texts, references=solutions, width=640, height=480)["sgg_score"]

    from rewards.compute import compute_metrics
    trainer = Seq2SeqTrainer(..., compute_metrics=compute_metrics(processor.tokenizer, width=640, height=480))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rewards.metrics import SceneGraphMetrics
from rewards.reading import CompletionError, check_frame, is_graph, text_of
from sgrl.errors import SgrlError
from sgrl.text import detect_codec


def compute(
    *,
    predictions: Sequence[Any],
    references: Sequence[Any],
    width: int | None = None,
    height: int | None = None,
    codec: str | None = None,
    protocol: str = "default",
) -> dict[str, float]:
    """Figures of predictions beside their references, as `SceneGraphMetrics.compute` gives them.

    Args:
        predictions: texts (or chat messages), as models write them, or graphs; see SceneGraphMetrics.
        references: as many texts of graphs, graphs, or rows with solution, width and height.
        width, height: frame of the boxes, where references are texts.
        codec: layout of both; told from the first reference by default.
        protocol: as in SceneGraphMetrics.

    Raises:
        SgrlError: not as many predictions as references, no frame, or a malformed reference (with its number).

    >>> graph = "obj[1]{id,name,x1,y1,x2,y2}:\\n  1,cat,10,10,50,50\\nrel[0]{subj,pred,obj}:"
    >>> compute(predictions=["no graph", graph], references=[graph, graph], width=640, height=480)["object_f1"]
    0.5
    """
    if len(predictions) != len(references):
        raise SgrlError(f"{len(predictions)} predictions, but {len(references)} references; give one for each")
    metrics: SceneGraphMetrics | None = None
    for number, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        row = reference if isinstance(reference, Mapping) and "solution" in reference else {"solution": reference}
        across, down = row.get("width", width), row.get("height", height)
        if across is None or down is None:
            raise SgrlError("width and height, the frame of the boxes, are missing: give both, or rows with them")
        try:
            check_frame(across, down)
            solution = row["solution"]
            if metrics is None:
                if codec is None and is_graph(solution):
                    raise SgrlError("a graph has no layout; give codec=, the layout of the predictions")
                codec = codec or detect_codec(text_of(solution))
                metrics = SceneGraphMetrics(codec, across, down, protocol=protocol)
            metrics.add(prediction, solution, across, down)
        except CompletionError as error:
            raise CompletionError(f"sample {number}: {error}") from None
        except SgrlError as error:
            raise SgrlError(f"reference {number}: {error}") from None
    if metrics is None:
        raise SgrlError("no predictions; the mean of nothing is no figure")
    return metrics.compute()


def compute_metrics(tokenizer: Any, width: int, height: int, **options: Any) -> Callable[[Any], dict[str, float]]:
    """For `compute_metrics=` of transformers' Seq2SeqTrainer with `predict_with_generate=True`.

    The function decodes `predictions` and `label_ids`, (N, length) token ids, of which negative ones are padding, and
    gives the figures of `compute`. Prompts in front of the answers do no harm: the answer is found by its tags.

    Args:
        tokenizer: with `batch_decode` and `pad_token_id`.
        width, height: frame of the boxes of all images.
        options: codec and protocol, as in `compute`.
    """

    def figures(evaluated: Any) -> dict[str, float]:
        predictions, labels = evaluated.predictions, evaluated.label_ids
        if isinstance(predictions, tuple):
            predictions = predictions[0]
        if np.ndim(predictions) != 2:
            shape = np.shape(predictions)
            raise SgrlError(f"expected token ids of shape (N, length), found {shape}; set predict_with_generate=True")
        said, wanted = (_decode(tokenizer, ids) for ids in (predictions, labels))
        return compute(predictions=said, references=wanted, width=width, height=height, **options)

    return figures


def _decode(tokenizer: Any, ids: Any) -> list[str]:
    ids = np.asarray(ids)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return list(tokenizer.batch_decode(np.where(ids < 0, padding, ids), skip_special_tokens=True))
