"""The data set card, README.md beside the Parquet files, and the way to the Hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from data_prep.report import Report, markdown
from sgrl import data, hub
from sgrl.hub import CARD
from sgrl.vocabulary import VOCABULARIES, get_vocabulary

LOADING = """\
```python
from sgrl.data import load

rows = load({folder}, "{split}")
print(rows[0]["solution"])
```

`datasets.load_dataset` reads it as well."""
_MARK = "<!-- written by data_prep/to_toon.py -->"

# (identifier of the Hub, in words); what the authors of the data sets say, without warranty.
_LICENSES = {
    "action_genome": (
        "other",
        "Annotations: MIT. Frames: from Charades, for non-commercial use under the licence of AI2; they may not be "
        "passed on.",
    ),
    "psg": (
        "other",
        "Annotations: OpenPSG, MIT, on COCO's, CC BY 4.0. Photographs: COCO's, under the terms of Flickr.",
    ),
    "pvsg": (
        "other",
        "S-Lab License 1.0, non-commercial, and the terms of the sources: VidOR (YFCC100M), EPIC-KITCHENS "
        "(CC BY-NC 4.0), Ego4D (its own agreement).",
    ),
    "vg": ("cc-by-4.0", "CC BY 4.0; photographs from YFCC100M and COCO, under the terms of Flickr."),
    "vg150": ("cc-by-4.0", "CC BY 4.0; photographs from YFCC100M and COCO, under the terms of Flickr."),
    "psg4d_gta": ("other", "From SAIL-VOS 3D, which is given on request. The annotations come without a licence."),
    "psg4d_hoi": ("cc-by-nc-4.0", "From HOI4D, CC BY-NC 4.0. The annotations come without a licence."),
}
_UNKNOWN = ("other", "That of the source; this converter does not know it.")
_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))


def card(
    metadata: Mapping,
    report: Report,
    thinned: Mapping[str, Mapping[str, int]] | None = None,
    folder: str | Path = "path/of/this/folder",
) -> str:
    """The text of README.md. Its head says which files are which split, so that `load_dataset(folder)` reads those.

    Args:
        metadata: as in the Parquet files.
        report: of the whole conversion.
        thinned: split -> videos, frames, kept; None without thinning.
        folder: where its files will be.
    """
    from huggingface_hub import DatasetCardData

    name = metadata["dataset"]
    identifier, license_text = _LICENSES[name] if _is_official(metadata) else _UNKNOWN
    splits = [split for split in report.splits() if report.kept(split)]
    rows = sum(map(report.kept, splits))
    about = DatasetCardData(
        pretty_name=f"{name} as scene graphs in text",
        license=identifier,
        task_categories=["image-text-to-text"],
        tags=["scene-graph-generation", "sgrl"],
        size_categories=[next((label for limit, label in _SIZES if rows < limit), "n>10M")],
        configs=[
            {
                "config_name": "default",
                # With such a head `datasets` knows its cached copy by the head and the folder's name alone.
                "description": f"conversion {_fingerprint(metadata, report)}",
                "data_files": [{"split": split, "path": f"{split}-*.parquet"} for split in splits],
            }
        ],
    )
    size = metadata["size"]
    facts = {
        "text layout": metadata["codec"],
        "coordinates": metadata["coords"],
        "images": f"{size[0]} x {size[1]} pixels" if size else "as they are",
        "prompt": metadata["prompt"],
        "previous frame's graph": "in `previous`, for the prompt" if metadata.get("previous") == "gt" else "none",
        "`length` counts": metadata["length"],
        "labels": f"{len(metadata['vocabulary']['objects'])} objects, "
        f"{len(metadata['vocabulary']['predicates'])} predicates",
    }
    parts = [
        f"# {name}, scene graphs as text",
        LOADING.format(folder=hub.quoted(folder), split=splits[0]),
        "\n".join(f"- {fact}: {value}" for fact, value in facts.items()),
        f"Written by\n\n```\n{metadata['command']}\n```",
        f"## Licence\n\n{license_text}",
        "## What was kept\n\n" + markdown(report.rows(), report.splits()),
    ]
    if thinned:
        found = [(key, [thinned[split][key] for split in thinned]) for key in ("videos", "frames", "kept")]
        parts.append(f"Thinned by {metadata['thin']['method']}:\n\n" + markdown(found, thinned))
    if report.damaged:
        parts.append(f"{len(report.damaged):,} damaged records were skipped; damaged.txt names them.")
    if report.notes:
        parts.append(
            "Left out or mended on reading:\n\n"
            + "\n".join(f"- {number:,} {note}" for note, number in report.notes.most_common())
        )
    columns = data.COLUMNS | (data.VIDEO_COLUMNS if any(report.counts[split]["videos"] for split in splits) else {})
    parts.append("## Columns\n\n" + "\n".join(f"- `{column}`: {text}" for column, text in columns.items()))
    return hub.card(about, _MARK, parts)


def _fingerprint(metadata: Mapping, report: Report) -> str:
    content = json.dumps([metadata, report.to_json()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _is_official(metadata: Mapping) -> bool:
    """Whether it is what its name says: a folder may be called "psg" too."""
    name = metadata["dataset"]
    return name in _LICENSES and (
        name not in VOCABULARIES or data.vocabulary_of(metadata).objects == get_vocabulary(name).objects
    )


def is_free(output: Path) -> bool:
    """Whether README.md may be written there: there is none, or it is such a card."""
    path = output / CARD
    return not path.exists() or _MARK in path.read_text(encoding="utf-8", errors="replace")


def push(output: Path, repository: str, private: bool = True) -> str:
    """Upload a data set to the Hub and return its address. An interrupted upload goes on where it was.

    Raises SgrlError: no such rights, no network.
    """
    return hub.push(output, repository, "dataset", private, _MARK, {"allow_patterns": ["*.parquet", CARD]})
