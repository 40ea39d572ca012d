"""Functions of the lmms-eval tasks in this folder: prompts are those of the data set, figures those of `rewards`.

    sgrl convert --layout psg --root DIR --output build/data/psg
    python -m lmms_eval --include_path recipes/lmms_eval --tasks scene_graphs_psg --model qwen2_5_vl --model_args ...

For another folder or a data set on the Hub change `dataset_path` in the YAML file. Boxes are asked for in the frame
that the data set was converted with (--coords), which is the same for every model.
"""

from rewards.metrics import SceneGraphMetrics
from sgrl.prompts import with_context
from sgrl.text import detect_codec

MEANS = (
    *("sgg_score", "object_precision", "object_recall", "object_f1"),
    *("relation_precision", "relation_recall", "relation_f1"),
)
POOLED = ("pooled_relation_precision", "pooled_relation_recall", "pooled_relation_f1")


def doc_to_visual(doc: dict) -> list:
    """The image, or the images."""
    return [image.convert("RGB") for image in doc.get("images") or [doc["image"]]]


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    """The prompt; pre_prompt and post_prompt of a model's settings stand around it."""
    settings = lmms_eval_specific_kwargs or {}
    (*_, message) = with_context(doc["prompt"], doc.get("previous"))
    return f"{settings.get('pre_prompt', '')}{message['content']}{settings.get('post_prompt', '')}"


def process_results(doc: dict, results: list[str]) -> dict:
    """The figures of one answer; the pooled ones as (right, predicted, reference)."""
    metrics = SceneGraphMetrics(detect_codec(doc["solution"]), doc["width"], doc["height"])
    values = metrics.add(results[0], doc["solution"])
    counts = tuple(values[f"relations_{name}"] for name in ("right", "predicted", "reference"))
    return {name: values[name] for name in MEANS} | {"failure_rate": values["failure"]} | dict.fromkeys(POOLED, counts)


def pooled_precision(counts: list[tuple[int, int, int]]) -> float:
    """Right / predicted relations of all images."""
    right, predicted, _ = map(sum, zip(*counts, strict=True))
    return right / max(predicted, 1)


def pooled_recall(counts: list[tuple[int, int, int]]) -> float:
    """Right / reference relations of all images."""
    right, _, reference = map(sum, zip(*counts, strict=True))
    return right / max(reference, 1)


def pooled_f1(counts: list[tuple[int, int, int]]) -> float:
    """2 right / (predicted + reference) relations of all images."""
    right, predicted, reference = map(sum, zip(*counts, strict=True))
    return 2 * right / max(predicted + reference, 1)
