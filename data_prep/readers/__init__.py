"""One reader per data set, each from the official files to an iterator of records."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

from sgrl.errors import SgrlError, suggest

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

    Raises SgrlError for an unknown name or option, a package that is not installed and, from the reader, for files
    that are missing or damaged.
    """
    if name not in READERS:
        raise SgrlError(f"unknown data set {name!r}{suggest(name, READERS)}")
    module, _, reader = READERS[name].partition(":")
    try:
        reader = getattr(import_module(module), reader)
    except ModuleNotFoundError as error:
        raise SgrlError(f"reading {name} needs {error.name}: pip install 'sgrl[data]'") from None
    known = [option for option in inspect.signature(reader).parameters if option != "root"]
    for option in options:
        if option not in known:
            raise SgrlError(f"{name} has no option {option!r}" + (suggest(option, known) if known else ", nor others"))
    return reader(root, **options)
