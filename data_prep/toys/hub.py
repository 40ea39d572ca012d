"""The toy world's scenes as rows of the Hub: a Parquet file a split."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from data_prep.toys.scene import SPLITS, Scene, jpeg
from data_prep.toys.writing import Drawing
from sgrl.extras import require
from sgrl.files import atomic_path

_ROWS = 500  # of a Parquet file's row group


def write(output: str | Path, train: int, test: int, seed: int = 0, progress: bool = False) -> dict | None:
    """train/ and test/ with a Parquet file each. Arguments and result as of psg.py."""
    pyarrow = require("pyarrow", "data", "writing rows of the Hub")
    parquet = require("pyarrow.parquet", "data", "writing rows of the Hub")

    name = "train-00000-of-00001.parquet"  # of the test rows too, as the Hub's converter calls the files
    output = Path(output)
    drawing = Drawing("hub", train, test, seed)
    if not drawing.begin(output, f"test/{name}", SPLITS):
        return None
    counts: Counter[str] = Counter()
    image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    texts = dict.fromkeys(("image_id", "objects", "relationships"), pyarrow.string())
    schema = pyarrow.schema({"image": image, **texts})
    for split in SPLITS:
        with atomic_path(output / split / name) as temporary, parquet.ParquetWriter(temporary, schema) as file:
            rows = []
            for _, index, drawn in drawing.scenes(counts, progress, (split,)):
                rows.append(_hub_row(f"{split}-{index}", drawn))
                if len(rows) == _ROWS:
                    file.write_table(pyarrow.Table.from_pylist(rows, schema))
                    rows = []
            file.write_table(pyarrow.Table.from_pylist(rows, schema))
    return dict(counts)


def _hub_row(image_id: str, drawn: Scene) -> dict:
    ids: list[str] = []
    numbers: Counter[str] = Counter()
    for label in drawn.labels:
        numbers[label] += 1
        ids.append(f"{label}.{numbers[label]}")
    objects = [{"id": name, "bbox": box} for name, box in zip(ids, drawn.boxes, strict=True)]
    relationships = [
        {"subject": ids[subject], "predicate": predicate, "object": ids[target]}
        for subject, predicate, target in drawn.relations
    ]
    return {
        "image": {"bytes": jpeg(drawn.image), "path": None},
        "image_id": image_id,
        "objects": json.dumps(objects),
        "relationships": json.dumps(relationships),
    }
