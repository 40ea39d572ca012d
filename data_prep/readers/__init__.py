"""One reader per data set, each from the official files to an iterator of records.

A new one is a file beside these, with a class as `data_prep.readers.record.Reader` says, and a line in READERS.
"""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from pathlib import Path

from data_prep.readers.own import OPTION, OwnReader
from sgrl import dotted, extras
from sgrl.errors import UsageError, suggest

READERS = {
    "action_genome": "data_prep.readers.action_genome:ActionGenomeReader",
    "coco": "data_prep.readers.coco:CocoReader",
    "hub": "data_prep.readers.hub:HubReader",
    "psg": "data_prep.readers.psg:PSGReader",
    "psg4d_gta": "data_prep.readers.psg4d:PSG4DGTAReader",
    "psg4d_hoi": "data_prep.readers.psg4d:PSG4DHOIReader",
    "pvsg": "data_prep.readers.pvsg:PVSGReader",
    "vg": "data_prep.readers.vg:VisualGenomeReader",
    "vg150": "data_prep.readers.vg150:VG150Reader",
}
"""Name on the command line -> module and class; imported on demand, for some need h5py or OpenCV."""


def open_reader(name: str, root: str | Path, **options):
    """The reader of data set `name` at `root`; `options` are the keyword arguments of its class.

    `package.module:function` names a reader of one's own: the function or class gets the root and the options, and
    returns what `OwnReader` says.

    Raises SgrlError for an unknown name or option, a package that is not installed and, from the reader, for files
    that are missing or damaged.
    """
    own = dotted.is_dotted(name)
    if not own and name not in READERS:
        raise UsageError(f"unknown data set {name!r}{suggest(name, READERS)}")
    try:
        reader = dotted.resolve(name, OPTION) if own else dotted.load(READERS[name])
    except ModuleNotFoundError as error:
        raise (extras.missing(error, f"reading {name}") or error) from None
    with dotted.named(name, OPTION) if own else nullcontext():
        known = [option for option in inspect.signature(reader).parameters if option != "root"]
        for option in options:
            if option not in known:
                hint = suggest(option, known) if known else ", nor others"
                raise UsageError(f"{name} has no option {option!r}{hint}")
        made = reader(root, **options)
    return OwnReader(name, made) if own else made
