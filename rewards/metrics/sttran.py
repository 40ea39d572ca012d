"""What STTran and its successors hand to their evaluator, as the metrics take it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rewards.metrics.action_genome_counts import TASKS
from rewards.metrics.protocol import check_choice
from rewards.metrics.ranking import PairScores
from sgrl.text.parsed import GROUPS
from sgrl.vocabulary import Vocabulary, get_vocabulary

BACKGROUND = "__background__"


def sttran_frames(
    entry: Mapping[str, Any], task: str, frames: int, vocabulary: Vocabulary | None = None
) -> Iterator[PairScores]:
    """The frames of a video as STTran and its successors hand it to their evaluator.

    Args:
        entry: arrays (or tensors on the CPU) boxes (N, 5) with the frame's number first; labels and scores (N,) for
            PredCLS, pred_labels and pred_scores otherwise (1 is the person, 0 the background); pair_idx (P, 2) of
            person and object; im_idx (P,) the pair's frame; attention_distribution (P, 3) before the softmax,
            spatial_distribution (P, 6) and contacting_distribution (P, 17).
        task: one of TASKS.
        frames: how many the video has; one without pairs proposes nothing.
        vocabulary: Action Genome's unless given.
    """
    check_choice("task", task, TASKS)
    names = [BACKGROUND, *(get_vocabulary("action_genome") if vocabulary is None else vocabulary).objects]
    prefix = "" if task == "predcls" else "pred_"
    boxes = np.asarray(entry["boxes"], dtype=np.float64).reshape(-1, 5)[:, 1:]
    labels = np.asarray(entry[f"{prefix}labels"]).astype(np.int64)
    scores = np.asarray(entry[f"{prefix}scores"], dtype=np.float64)
    pairs = np.asarray(entry["pair_idx"]).astype(np.int64).reshape(-1, 2)
    attention, *others = (np.asarray(entry[f"{group}_distribution"], dtype=np.float64) for group in GROUPS)
    if len(pairs):
        attention = np.exp(attention - attention.max(axis=1, keepdims=True))
        attention /= attention.sum(axis=1, keepdims=True)
        probabilities = np.concatenate([attention, *others], axis=1)
    else:
        probabilities = np.zeros((0, 0))
    frame_of = np.asarray(entry["im_idx"]).astype(np.int64)
    for frame in range(frames):
        rows = np.flatnonzero(frame_of == frame)
        used, ends = np.unique(pairs[rows], return_inverse=True)
        yield PairScores(
            [names[label] for label in labels[used].tolist()],
            boxes[used],
            scores[used],
            ends.reshape(-1, 2),
            probabilities[rows],
        )
