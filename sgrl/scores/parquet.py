"""Scored graphs as rows of Parquet, and back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np

from sgrl.scores.graph import ScoredGraph, fault
from sgrl.tubes import BoxTube, MaskTube

NUMBERS = {
    **{"scores": "double", "boxes": "double", "label_scores": "float", "pairs": "int32"},
    **{"predicate_scores": "float", "relation_scores": "double", "frames": "int64", "tube_boxes": "double"},
}


def schema(about: Mapping | None = None):
    """The columns of the files, with their metadata."""
    import pyarrow as pa

    text = pa.list_(pa.string())
    plain = {
        **{"dataset": pa.string(), "image_id": pa.string(), "video_id": pa.string(), "frame": pa.int64()},
        **{"width": pa.int32(), "height": pa.int32(), "written": pa.bool_(), "fps": pa.float64()},
        **{"labels": text, "predicates": text, "masks": pa.list_(text), "spans": pa.list_(pa.list_(pa.float64()))},
    }
    numbers = {name: pa.list_(pa.type_for_alias(kind)) for name, kind in NUMBERS.items()}
    return pa.schema({**plain, **numbers}, about)


def row_of(graph: ScoredGraph) -> dict:
    """A graph as a row of the file; tables as flat lists."""
    row = {name: getattr(graph, name) for name in ("dataset", "image_id", "video_id", "frame", "width", "height")}
    row |= {"written": graph.written, "fps": graph.fps, "labels": list(map(_storable, graph.labels))}
    row["predicates"] = None if graph.predicates is None else list(map(_storable, graph.predicates))
    spans = graph.spans if graph.spans and any(graph.spans) else None
    row["spans"] = spans and [[end for span in given for end in span] for given in spans]
    row |= dict.fromkeys(("masks", "boxes", "tube_boxes"))
    if graph.tubes is None:
        row["boxes"] = graph.boxes.ravel()
    elif graph.masked:
        row["masks"] = [tube.to_rle() for tube in graph.tubes if isinstance(tube, MaskTube)]
    else:
        row["tube_boxes"] = np.array([tube.boxes for tube in graph.tubes]).ravel()
    for name in ("scores", "label_scores", "pairs", "predicate_scores"):
        value = getattr(graph, name)
        row[name] = None if value is None else value.ravel()
    known = graph.relation_scores
    row["relation_scores"] = None if known is None else [None if np.isnan(x) else x for x in known.tolist()]
    row["frames"] = None if graph.frames is None else list(graph.frames)
    return row


def read_group(opened, group: int):
    """One row group with the columns of `schema`, those that the file lacks empty."""
    import pyarrow as pa

    names = [name for name in schema().names if name in opened.schema_arrow.names]
    table = opened.read_row_group(group, columns=names)
    empty = pa.nulls(len(table))
    columns = [table.column(name) if name in names else empty for name in schema().names]
    return pa.table(columns, schema().names).cast(schema())


def maker(table) -> Callable[[int], ScoredGraph]:
    """A function that makes the graph of a row."""
    plain = {name: table.column(name).to_pylist() for name in table.column_names if name not in NUMBERS}
    numbers = {name: _slices(table.column(name)) for name in NUMBERS}

    def make(row: int) -> ScoredGraph:
        values = {name: column[row] for name, column in plain.items()}
        values |= {name: slices(row) for name, slices in numbers.items()}
        masks, tube_boxes, boxes = values.pop("masks"), values.pop("tube_boxes"), values.pop("boxes")
        values["dataset"] = values["dataset"] or ""
        values["labels"] = labels = values["labels"] or ()
        shaped = functools.partial(_shaped, values["image_id"], values["video_id"])
        if masks is not None:
            size = values["height"], values["width"]
            values["tubes"] = [
                MaskTube.from_rle([mask and {"size": size, "counts": mask} for mask in tube], *size) for tube in masks
            ]
        elif tube_boxes is not None:
            tubes = shaped("tube_boxes", tube_boxes, (len(labels), -1, 4))
            values["tubes"] = list(map(BoxTube, tubes))
        else:
            values["boxes"] = shaped("boxes", () if boxes is None else boxes, (len(labels), 4))
        values["pairs"] = pairs = shaped("pairs", values["pairs"], (-1, 2))
        for name, count in (("label_scores", len(labels)), ("predicate_scores", len(pairs))):
            if values[name] is not None:
                values[name] = shaped(name, values[name], (count, -1))
        if values["spans"] is not None:
            values["spans"] = [shaped("spans", ends or (), (-1, 2)).tolist() for ends in values["spans"]]
        if values["frames"] is not None:
            values["frames"] = values["frames"].tolist()
        values["written"] = bool(values["written"])
        return ScoredGraph(**values)

    return make


def _slices(column) -> Callable[[int], np.ndarray | None]:
    """A function that gives the numbers of a row of a column of lists; None for null, NaN for nulls in a list."""
    column = column.combine_chunks()
    if not len(column):
        return lambda row: None
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    offsets, values = column.offsets.to_numpy(), column.values.to_numpy(zero_copy_only=False)
    return lambda row: values[offsets[row] : offsets[row + 1]] if valid[row] else None


def _shaped(image_id, video_id, name: str, values, shape: tuple[int, ...]) -> np.ndarray:
    """A flat list as a table; one side may be free."""
    values = np.asarray(values)
    if not values.size:
        return values.reshape([max(side, 0) for side in shape])
    try:
        return values.reshape(shape)
    except ValueError:
        wanted = " x ".join("any" if side < 0 else str(side) for side in shape)
        raise fault(image_id, video_id, name, f"{values.size} numbers", wanted) from None


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # halves of characters that a model wrote have no UTF-8
