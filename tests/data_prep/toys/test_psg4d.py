"""Toy videos in PSG4D's layouts: the readers give back what was drawn, and depth agrees with the masks."""

import json

import numpy as np
import pytest
from PIL import Image

from data_prep import toyworld
from data_prep.readers import open_reader
from data_prep.toys import psg4d
from data_prep.toys.scene import OBJECTS, PREDICATES
from data_prep.toys.video import video
from sgrl.errors import SgrlError

LAYOUTS = {"psg4d_gta": psg4d.write_gta, "psg4d_hoi": psg4d.write_hoi}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reader_gives_back_what_was_drawn(tmp_path, layout):
    counts = LAYOUTS[layout](tmp_path / "toys", train=6, test=2, seed=4, frames=10)
    assert (counts["train"], counts["test"], counts["frames"]) == (6, 2, 80)
    reader = open_reader(layout, tmp_path / "toys")
    records = list(reader.records())
    assert reader.name == "toys" and reader.totals() == {} and not reader.notes
    assert set(reader.vocabulary.objects) - {psg4d.BACKDROP} == set(OBJECTS)
    assert set(reader.vocabulary.predicates) <= set(PREDICATES)
    assert len(records) == 80 and len({record.video_id for record in records}) == 8
    for number, record in enumerate(records):
        split, index = ("train", number // 10) if number < 60 else ("test", number // 10 - 6)
        drawn = video(4, index, split, 10)
        assert (record.split, record.frame) == ("train" if split == "train" else "val", number % 10)
        shapes = [i for i, box in enumerate(drawn.boxes[record.frame]) if box is not None]
        objects = [o for o in record.graph.objects if o.label != psg4d.BACKDROP]
        assert [o.label for o in objects] == [drawn.labels[i] for i in shapes]
        assert [o.box for o in objects] == [drawn.boxes[record.frame][i] for i in shapes]
        assert len(record.graph.objects) - len(objects) == (layout == "psg4d_gta")
        found = {(shapes[r.subject], r.predicate, shapes[r.object]) for r in record.graph.relations}
        assert found == set(drawn.relations[record.frame])
        photo = np.asarray(Image.open(record.image), int)
        assert np.abs(photo - drawn.images[record.frame]).mean() < 3


def test_masks_that_are_merged_by_the_reader(tmp_path):
    """Without masks/, visible/ and background_masks/ give the same."""
    psg4d.write_gta(tmp_path, train=2, test=0, frames=3)
    merged = [record.graph for record in open_reader("psg4d_gta", tmp_path).records()]
    (tmp_path / "psg4d_gta" / "masks").rename(tmp_path / "elsewhere")
    assert [record.graph for record in open_reader("psg4d_gta", tmp_path).records()] == merged


def test_depth_puts_shapes_before_the_backdrop(tmp_path):
    psg4d.write_gta(tmp_path, train=3, test=0, frames=2)
    for path in sorted((tmp_path / "psg4d_gta" / "depth").rglob("*.npy")):
        depth = np.load(path)
        visible = np.load(tmp_path / "psg4d_gta" / "visible" / path.relative_to(tmp_path / "psg4d_gta" / "depth"))
        assert depth.dtype == np.float32 and depth.shape == visible.shape == (96, 96)
        assert (depth[visible == 0] == 20).all() and (depth[visible != 0] <= 5).all() and (depth > 0).all()
        assert all(len(np.unique(depth[visible == value])) == 1 for value in np.unique(visible))


def test_official_looks(tmp_path):
    psg4d.write_gta(tmp_path / "gta", train=1, test=1, frames=2)
    found = json.loads((tmp_path / "gta" / "sailvos3d.json").read_text())
    assert list(found) == ["objects", "relations", "split", "data"] and len(found["data"]) == 2
    for subject, predicate, target, (first, last) in found["data"][0]["relations"]:
        assert isinstance(predicate, str) and {subject, target} <= {17, 48, 79, 110} and 0 <= first <= last < 2
    psg4d.write_hoi(tmp_path / "hoi", train=1, test=1, frames=2)
    (entry, _) = json.loads((tmp_path / "hoi" / "psg4d_hoi.json").read_text())["data"]
    categories = json.loads((tmp_path / "hoi" / "categories.json").read_text())
    assert all(str(shape["mask_id"] % 1000) in categories for shape in entry["object"])
    assert set(json.loads((tmp_path / "hoi" / "hoi4d_id.json").read_text())) == {"0001", "0002"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_command(tmp_path, capsys, layout):
    arguments = ["--layout", layout, "--output", str(tmp_path), "--train", "2", "--test", "1", "--frames", "4"]
    assert toyworld.main(arguments) == 0
    assert "3 videos of 4 frames" in capsys.readouterr().out
    assert toyworld.main(arguments) == 0
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(SgrlError, match="cannot draw 0 training and 0 test"):
        LAYOUTS[layout](tmp_path, train=0, test=0)


def test_never_touches_somebody_elses_folders(tmp_path):
    """Images that were downloaded are safe even before the annotation is there."""
    (tmp_path / "HOI4D_release").mkdir()
    with pytest.raises(SgrlError, match="HOI4D_release exists and was not written by this command"):
        psg4d.write_hoi(tmp_path, train=1, test=1)
    assert list(tmp_path.iterdir()) == [tmp_path / "HOI4D_release"]
