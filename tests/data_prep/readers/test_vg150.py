"""VG150: the fixture's known decoding, the published images, the split rule, and files that are damaged."""

import json
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from data_prep.readers import open_reader, vg150
from data_prep.readers.record import RecordError
from data_prep.readers.vg150 import FILES, VG150Reader
from sgrl.errors import SgrlError

NAMES = {"1": "cat", "2": "traffic light"}, {"1": "on", "2": "in front of"}


def encode(boxes, width, height):
    """xyxy pixels -> rows of boxes_1024."""
    xyxy = np.array(boxes, float).reshape(-1, 4) * 1024 / max(width, height)
    size = xyxy[:, 2:] - xyxy[:, :2]
    return np.hstack([xyxy[:, :2] + np.floor(size / 2), size]).astype("int32")


def make_root(path, images, size=(512, 256), **changes):
    """images: (split, [(box, label)], [(subject, object, predicate)]) each, all numbers as in the file."""
    path.mkdir(parents=True)
    (path / "VG_100K").mkdir()
    columns = {name: [] for name in ("boxes_1024", "labels", "relationships", "predicates")}
    for key in ("first_box", "last_box", "first_rel", "last_rel"):
        columns[f"img_to_{key}"] = []
    columns["split"] = [split for split, _, _ in images]
    for _, objects, relations in images:
        for what, rows, name in (("box", objects, "labels"), ("rel", relations, "predicates")):
            start = len(columns[name])
            columns[f"img_to_first_{what}"].append(start if rows else -1)
            columns[f"img_to_last_{what}"].append(start + len(rows) - 1 if rows else -1)
        start = len(columns["labels"])
        columns["boxes_1024"] += encode([box for box, _ in objects], *size).tolist()
        columns["labels"] += [[label] for _, label in objects]
        columns["relationships"] += [[start + s, start + o] for s, o, _ in relations]
        columns["predicates"] += [[predicate] for _, _, predicate in relations]
    shapes = {"boxes_1024": (-1, 4), "relationships": (-1, 2), "labels": (-1, 1), "predicates": (-1, 1)}
    with h5py.File(path / "VG-SGG.h5", "w") as file:
        for name, rows in {**columns, **changes}.items():
            if rows is not None:
                file[name] = np.array(rows, "int64").reshape(shapes.get(name, -1))
    labels, predicates = NAMES
    (path / "VG-SGG-dicts.json").write_text(json.dumps({"idx_to_label": labels, "idx_to_predicate": predicates}))
    url = "https://cs.stanford.edu/people/rak248/VG_100K/{}.jpg"
    ids = [i + 1 if i < 1000 else i + 10000 for i in range(len(images))]  # no corrupt ones
    entries = [{"image_id": i, "url": url.format(i), "width": size[0], "height": size[1]} for i in ids]
    (path / "image_data.json").write_text(json.dumps(entries))
    return path


PAIR = (0, [((0, 0, 100, 50), 1), ((20, 10, 60, 256), 2)], [(1, 0, 2)])
EMPTY = (0, [((0, 0, 100, 50), 1)], [])
TEST = (2, [], [])


@pytest.mark.parametrize("name", FILES)
def test_fixtures_read_as_expected(shared, name):
    folder = shared / "data" / "schema_examples" / "vg"
    expected = json.loads((folder / "EXPECTED_decode.json").read_text())
    reader = VG150Reader(folder, name, validation=0)
    records = list(reader.records())
    assert reader.name == "vg150"  # the official class lists are recognised
    assert [record.image_id for record in records] == [str(entry["image_id"]) for entry in expected] == list("1234")
    for record, known in zip(records, expected, strict=True):
        graph = record.graph
        assert (graph.width, graph.height) == (known["width"], known["height"])
        assert [o.label for o in graph.objects] == known["labels"]
        assert np.allclose(graph.boxes, np.reshape(known["decoded_clipped"], (-1, 4)), atol=6e-4)
        triples = [[r.subject, r.predicate, r.object] for r in graph.relations]
        assert triples == known["triples_local_subj_pred_obj"]
        assert record.split == {0: "train", 2: "test"}[known["split"]]
        assert record.image.is_file()
    assert reader.notes == {"boxes clipped to the image": 1}
    assert reader.totals()["rows"] == (4, 108073) and reader.totals()["relations"] == (7, 622705)
    assert list(reader.records()) == records


def test_official_files_get_their_validation_images(shared):
    folder = shared / "data" / "schema_examples" / "vg"
    reader = open_reader("vg150", folder)
    assert [record.split for record in reader.records()] == ["val", "train", "test", "test"]
    assert reader.totals()["validation images"] == (1, 5000)


def test_published_images(shared, tmp_path):
    """Five test images whose annotation was printed and drawn, encoded again and read back."""
    known = json.loads((shared / "data/real/vg/vg150_test_first5_gt.json").read_text())
    dicts = json.loads((shared / "data/real/vg/VG-SGG-dicts-with-attri.json").read_text())
    labels, predicates = dicts["label_to_idx"], dicts["predicate_to_idx"]
    for entry in known:
        n, size = len(entry["gt_labels"]), (entry["width"], entry["height"])
        boxes = [box or [0, 0, 0, 0] for box in entry["boxes_int_truncated_xyxy_recovered_from_drawing"] or [None] * n]
        objects = [(box, labels[label]) for box, label in zip(boxes, entry["gt_labels"], strict=True)]
        relations = [(s, o, predicates[predicate]) for s, predicate, o in entry["gt_relations_subj_pred_obj"]]
        root = make_root(tmp_path / str(entry["test_index"]), [(2, objects, relations)], size)
        (root / "VG-SGG-dicts.json").write_text(json.dumps(dicts))
        (record,) = VG150Reader(root).records()
        assert [o.label for o in record.graph.objects] == entry["gt_labels"]
        found = [[r.subject, r.predicate, r.object] for r in record.graph.relations]
        assert found == entry["gt_relations_subj_pred_obj"]
        assert np.abs(record.graph.boxes - boxes).max() < 2  # a corner and a size are each rounded to 1/1024


def test_validation_images_are_the_first_with_relations(tmp_path):
    root = make_root(tmp_path / "root", [EMPTY, PAIR, EMPTY, PAIR, PAIR, TEST])
    splits = [record.split for record in VG150Reader(root, validation=2).records()]
    assert splits == ["train", "val", "train", "val", "train", "test"]
    assert [record.split for record in VG150Reader(root).records()].count("val") == 0  # own class lists
    with pytest.raises(SgrlError, match="validation is -1"):
        VG150Reader(root, validation=-1)


def test_rows_follow_the_list_without_the_corrupt_images(tmp_path):
    root = make_root(tmp_path / "root", [PAIR, EMPTY])
    entries = json.loads((root / "image_data.json").read_text())
    entries[0]["image_id"], entries[1]["image_id"] = 7, 5
    entries[1]["url"] = entries[1]["url"].replace("VG_100K", "VG_100K_2")
    corrupt = [{**entries[0], "image_id": image_id} for image_id in (1592, 1722, 4616, 4617)]
    (root / "image_data.json").write_text(json.dumps([*corrupt[:1], entries[0], *corrupt[1:], entries[1]]))
    first, second = VG150Reader(root).records()
    assert (first.image_id, first.image, len(first.graph.objects)) == ("7", root / "VG_100K" / "7.jpg", 2)
    assert second.image == root / "VG_100K" / "5.jpg"  # all images in one folder
    (root / "VG_100K_2").mkdir()
    _, second = VG150Reader(root).records()
    assert second.image == root / "VG_100K_2" / "5.jpg"
    (root / "image_data.json").write_text(json.dumps(entries[:1]))
    with pytest.raises(SgrlError, match="has 2 images, .*image_data.json has 1 .* matched by position"):
        VG150Reader(root)


def test_the_image_file_knows_its_size(tmp_path):
    root = make_root(tmp_path / "root", [PAIR, PAIR])
    Image.new("RGB", (1024, 512)).save(root / "VG_100K" / "1.jpg")
    reader = VG150Reader(root)
    first, second = reader.records()
    assert (first.graph.width, second.graph.width) == (1024, 512)
    assert np.array_equal(first.graph.boxes, 2 * second.graph.boxes)
    (note,) = reader.notes
    assert "another size than image_data.json says" in note and reader.notes[note] == 1


def test_boxes_are_clipped_to_the_image_not_to_its_square(tmp_path):
    root = make_root(tmp_path / "root", [(0, [((-3, 200, 600, 500), 1)], [])])
    (record,) = VG150Reader(root).records()
    assert record.graph.objects[0].box == (0, 200, 512, 256)


DAMAGE = {
    "label 3": ({"labels": [[1], [3], [1], [2]]}, "object 1: the label must be from 1 to 2, found 3"),
    "label 0": ({"labels": [[0], [1], [1], [2]]}, "found 0"),
    "predicate 9": ({"predicates": [[9], [1]]}, "relation 0: the predicate must be from 1 to 2, found 9"),
    "box of the next image": ({"relationships": [[0, 2], [3, 2]]}, "object must be the position .* found 2"),
    "box of no image": ({"relationships": [[-4, 0], [3, 2]]}, "subject must be .* found -4"),
    "rows beyond the end": ({"img_to_last_box": [99, 3]}, "its boxes are rows 0 to 99, .* 0 to 3 only"),
    "rows turned": ({"img_to_first_rel": [1, 1], "img_to_last_rel": [0, 1]}, "its relations are rows 1 to 0"),
    "split 7": ({"split": [7, 2]}, "split must be .* found 7"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_row_is_named_and_the_rest_goes_on(tmp_path, name):
    changes, message = DAMAGE[name]
    reader = VG150Reader(make_root(tmp_path / "root", [PAIR, (2, *PAIR[1:])], **changes))
    found = []
    (record,) = reader.records(found.append)
    assert (record.image_id, record.split) == ("2", "test")
    assert found[0].place == "VG-SGG.h5, row 0 (image_id 1)"
    with pytest.raises(RecordError, match=message):
        list(reader.records())


def test_size_that_is_none(tmp_path):
    root = make_root(tmp_path / "root", [PAIR], size=(512, 0))
    with pytest.raises(RecordError, match="row 0 .*whole numbers above 0, found 512 and 0"):
        list(VG150Reader(root).records())


@pytest.mark.parametrize("share", [0.999, 0.5, 0.01])
def test_truncated_h5(tmp_path, share):
    root = make_root(tmp_path / "root", [PAIR] * 100)
    path = root / "VG-SGG.h5"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(SgrlError, match=r"VG-SGG.h5 .*(is truncated|not a readable HDF5).* again"):
        VG150Reader(root)


def test_truncated_json(tmp_path):
    root = make_root(tmp_path / "root", [PAIR] * 3)
    whole_list = (root / "image_data.json").read_text()
    for name, message in (("image_data.json", "is truncated"), ("VG-SGG-dicts.json", "is damaged or truncated")):
        whole = (root / name).read_text()
        (root / name).write_text(whole[:-20])
        with pytest.raises(SgrlError, match=f"{name} {message}"):
            VG150Reader(root)
        (root / name).write_text(whole)
    (root / "image_data.json").write_text(json.dumps([{"width": 1}, *json.loads(whole_list)[1:]]))
    with pytest.raises(RecordError, match="row 0: expected an object with an image_id"):
        list(VG150Reader(root).records())


def test_h5_files_of_other_layouts(tmp_path):
    with pytest.raises(SgrlError, match="has no 'predicates', only boxes_1024"):
        VG150Reader(make_root(tmp_path / "a", [PAIR], predicates=None))
    with pytest.raises(SgrlError, match=r"img_to_first_box has the shape \(2,\), split has 1 rows"):
        VG150Reader(make_root(tmp_path / "b", [PAIR], img_to_first_box=[0, 1]))
    with pytest.raises(SgrlError, match="boxes_1024 has 2 rows, labels 3"):
        VG150Reader(make_root(tmp_path / "c", [PAIR], labels=[1, 1, 1]))


def test_missing_files_say_what_was_found(tmp_path):
    with pytest.raises(SgrlError, match="is not a folder; give the folder that holds VG-SGG.h5 or VG-SGG-with"):
        VG150Reader(tmp_path / "nowhere")
    root = make_root(tmp_path / "root", [PAIR])
    with pytest.raises(SgrlError, match="VG-SG.h5 does not exist; did you mean 'VG-SGG.h5'"):
        VG150Reader(root, "VG-SG.h5")
    for name, message in (
        ("VG_100K", "holds neither VG_100K/ nor VG_100K_2/"),
        ("image_data.json", "holds no image_data.json"),
        ("VG-SGG.h5", "holds no VG-SGG.h5 or VG-SGG-with-attri.h5, only VG-SGG-dicts.json"),
    ):
        shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()
        with pytest.raises(SgrlError, match=message):
            VG150Reader(root)


def read_all(root, count):
    vg150._WINDOW = 256  # of a process of its own
    assert sum(1 for _ in VG150Reader(root).records()) == count


def test_memory_is_flat(tmp_path, traced_peak):
    peaks = []
    for count in (300, 6000):
        root = make_root(tmp_path / str(count), [PAIR] * count)
        peaks.append(traced_peak(read_all, root, count))
    assert peaks[1] < 1.5 * peaks[0] + 2e6  # image_data.json is read in windows of up to a megabyte


def own(path, **changes):
    """Images that name their files, whose ids count from 0: beyond 1,592 entries some are those of corrupt images."""
    root = make_root(path, [PAIR] * 4)
    entries = [{"file_name": f"{i + 1:06d}.jpg", "image_id": i, "width": 512, "height": 256} for i in range(4)]
    entries[2] |= {"image_id": 1592, **changes}
    (root / "image_data.json").write_text(json.dumps(entries))
    return root


def test_images_that_name_their_files(tmp_path):
    reader = VG150Reader(own(tmp_path / "a"))
    records = list(reader.records())
    assert [record.image_id for record in records] == ["0", "1", "1592", "3"]
    assert [record.image.name for record in records] == ["000001.jpg", "000002.jpg", "000003.jpg", "000004.jpg"]
    root = own(tmp_path / "b", file_name="pictures/x.png", image_id="text")
    (root / "pictures").mkdir()
    Image.new("RGB", (512, 256)).save(root / "pictures" / "x.png")
    assert [record.image.name for record in VG150Reader(root).records()][2] == "x.png"
    found = []
    assert len(list(VG150Reader(own(tmp_path / "c", file_name="../../x.png")).records(found.append))) == 3
    assert "points outside" in str(found[0])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(tmp_path, encoding):
    root = make_root(tmp_path / "root", [PAIR])
    for name in ("image_data.json", "VG-SGG-dicts.json"):
        (root / name).write_text((root / name).read_text(), encoding=encoding)
    assert len(list(VG150Reader(root).records())) == 1


def test_columns_that_declare_more_than_the_file_holds(tmp_path):
    """A billion boxes, of which none was written; a column that is a link; one without numbers; a huge chunk."""
    root = make_root(tmp_path / "root", [PAIR])
    whole = (root / "VG-SGG.h5").read_bytes()

    def declare(name, message, **how):
        (root / "VG-SGG.h5").write_bytes(whole)
        with h5py.File(root / "VG-SGG.h5", "a") as file:
            del file[name]
            if "link" in how:
                file[name] = how["link"]
            else:
                file.create_dataset(name, **how)
        with pytest.raises(SgrlError, match=message):
            VG150Reader(root)

    declare("boxes_1024", "declares 16,000,000,000 bytes", shape=(10**9, 4), dtype="i4", chunks=(1000, 4))
    declare("labels", "in chunks of 160,000,000", shape=(2, 1), maxshape=(None, 1), dtype="i4", chunks=(40_000_000, 1))
    declare("labels", "not in this file", link=h5py.ExternalLink("other.h5", "/labels"))
    declare("labels", "not in this file", link=h5py.SoftLink("/boxes_1024"))
    declare("labels", "expected rows of numbers", shape=(2, 1), dtype="S10")


@pytest.mark.parametrize("value", [-2, 77, 1 << 40, -(1 << 62)])
@pytest.mark.parametrize("name", ["img_to_first_box", "img_to_last_box", "img_to_first_rel", "split", "predicates"])
def test_one_hostile_row_is_named(tmp_path, name, value):
    root, found = make_root(tmp_path / "root", [PAIR] * 3), []
    with h5py.File(root / "VG-SGG.h5", "a") as file:
        file[name][1] = value
    kept = [record.image_id for record in VG150Reader(root).records(found.append)]
    assert kept == ["1", "3"] and found[0].place == "VG-SGG.h5, row 1 (image_id 2)"


def test_no_image_has_more_boxes_than_a_window(tmp_path):
    many = (0, [((0, 0, 100, 50), 1)] * (vg150._WINDOW + 1), [])
    root, found = make_root(tmp_path / "root", [PAIR, many]), []
    assert len(list(VG150Reader(root).records(found.append))) == 1
    assert "65,536 at most" in str(found[0])
