"""Rows of the Hub: the fixtures as JSON lines and as Parquet, splits by name, and rows that are damaged."""

import io
import json

import pyarrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from data_prep.images import encoded
from data_prep.readers import open_reader
from data_prep.readers.hub import HubReader
from data_prep.readers.record import EmbeddedImage, RecordError
from sgrl.errors import SgrlError


def make_row(image_id="7", size=(60, 40), **changes):
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "JPEG")
    row = {
        "image_id": image_id,
        "image": {"bytes": buffer.getvalue(), "path": None},
        "objects": json.dumps(
            [{"id": "traffic light.1", "bbox": [1, 2, 30, 40]}, {"id": "car.1", "bbox": [0, 0, 9, 9]}]
        ),
        "relationships": json.dumps([{"subject": "traffic light.1", "predicate": "over", "object": "car.1"}]),
    }
    return {**row, **changes}


def make_file(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path.parent


@pytest.fixture
def mirrors(layouts, tmp_path):
    """The fixture's rows where their images are, and again as Parquet files with the images inside."""
    source, folders = layouts / "hf_mirrors", {}
    for name in ("psg_train_sg", "vg150_train_sgg_prompt"):
        rows = [json.loads(line) for line in (source / f"{name}_rows.jsonl").read_text().splitlines()]
        folders[name] = tmp_path / "lines" / name, tmp_path / "parquet" / name
        folders[name][0].mkdir(parents=True)
        with (folders[name][0] / "rows.jsonl").open("w") as file:
            for row in rows:
                (folders[name][0] / row["image_id"]).write_bytes((source / row["image_file"]).read_bytes())
                file.write(json.dumps({**row, "image_file": row["image_id"]}) + "\n")
        for row in rows:
            row["image"] = {"bytes": (source / row.pop("image_file")).read_bytes(), "path": None}
        make_file(folders[name][1] / "data" / "train-00000-of-00001.parquet", rows)
    return folders


@pytest.mark.parametrize("kind", [0, 1])
def test_psg_fixture(layouts, mirrors, kind):
    reader = open_reader("hub", mirrors["psg_train_sg"][kind])
    expected = json.loads((layouts / "psg/EXPECTED_parse.json").read_text())
    records = list(reader.records())
    assert [record.image_id for record in records] == ["900001", "900002"] and reader.name == "psg"
    for record in records:
        known, graph = expected[record.image_id], record.graph
        assert [(o.label, list(o.box)) for o in graph.objects] == [(o["class"], o["xyxy"]) for o in known["objects"]]
        assert [[r.subject, r.predicate, r.object] for r in graph.relations] == known["raw_triples"]
        assert record.split == "train"
        assert encoded(record.image, (graph.width, graph.height))  # size and bytes are right
    assert [(r.graph.width, r.graph.height) for r in records] == [(96, 128), (120, 80)]
    assert list(reader.records()) == records


@pytest.mark.parametrize("kind", [0, 1])
def test_vg150_fixture(mirrors, kind):
    reader = HubReader(mirrors["vg150_train_sgg_prompt"][kind])
    (record,) = reader.records()
    assert reader.name == "vg150" and (record.graph.width, record.graph.height) == (800, 600)
    assert [o.label for o in record.graph.objects] == ["man", "shirt", "tree"]
    assert [(r.subject, r.predicate, r.object) for r in record.graph.relations] == [(0, "wearing", 1), (1, "on", 0)]


def test_split_by_folder_then_by_file(tmp_path):
    root = tmp_path / "mirrors"
    for name in (
        "psg_test_sg/train-0.parquet",
        "vg150_val_sgg/train-0.parquet",
        "latest/test-0.parquet",
        "x/1.parquet",
    ):
        make_file(root / name, [make_row(name)])
    splits = {record.image_id: record.split for record in HubReader(root).records()}
    assert list(splits.values()) == ["test", "test", "val", "train"]
    assert splits["psg_test_sg/train-0.parquet"] == "test" and splits["vg150_val_sgg/train-0.parquet"] == "val"
    (record,) = HubReader(root / "x", split="val").records()
    assert record.split == "val"
    with pytest.raises(SgrlError, match="unknown split 'vla'; did you mean 'val'"):
        HubReader(root, split="vla")


def test_class_lists(tmp_path):
    strange = json.dumps([{"id": "gadget.v2.1", "bbox": [0, 0, 1, 1]}, {"id": "gizmo.1", "bbox": [0, 0, 1, 1]}])
    relation = json.dumps([{"subject": "gizmo.1", "predicate": "near-ish", "object": "gadget.v2.1"}])
    root = make_file(tmp_path / "own" / "a.parquet", [make_row(objects=strange, relationships=relation)])
    reader = HubReader(root)
    assert reader.vocabulary.objects == ("gadget.v2", "gizmo") and reader.name == "own"
    assert HubReader(root, vocabulary="psg").name == "psg"
    mixed = make_file(tmp_path / "mixed" / "a.parquet", [make_row(), make_row(objects=strange, relationships="[]")])
    assert HubReader(mixed).name == "psg"  # what is outside is counted by the cleaning


DAMAGE = {
    "no dot": ({"objects": '[{"id": "car"}]'}, "its class, a dot and a number .person.1., found 'car'"),
    "no id": ({"objects": "[{}]"}, "found None"),
    "twice": (
        {"objects": '[{"id": "a.1", "bbox": [0, 0, 1, 1]}, {"id": "a.1"}]'},
        "object 1: the id 'a.1' stands twice",
    ),
    "no box": ({"objects": '[{"id": "a.1"}]'}, "four finite numbers"),
    "cut off": ({"objects": '[{"id": "a.'}, "objects is no JSON"),
    "no list": ({"relationships": "{}"}, "relationships must be a list of objects, found {}"),
    "unknown end": ({"relationships": '[{"subject": "b.1"}]'}, "relation 0: subject must be the id .* found 'b.1'"),
    "no predicate": (
        {"relationships": '[{"subject": "car.1", "object": "traffic light.1"}]'},
        "the predicate must be a string",
    ),
    "no image": ({"image": {"bytes": b"nothing", "path": None}}, "image of .*, row 0 does not open"),
    "no image_id": ({"image_id": None}, "image_id must be a whole number or a string"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_row_is_named_and_the_rest_goes_on(tmp_path, name):
    changes, message = DAMAGE[name]
    reader, found = HubReader(make_file(tmp_path / "train-0.parquet", [make_row(**changes), make_row("8")])), []
    (record,) = reader.records(found.append)
    assert record.image_id == "8" and isinstance(record.image, EmbeddedImage)
    assert found[0].place == "train-0.parquet, row 0"
    with pytest.raises(RecordError, match=message):
        list(reader.records())


def test_missing_image_file(tmp_path):
    row = {**make_row(), "image": None}
    (tmp_path / "rows.jsonl").write_text(json.dumps({**row, "image_file": "no.jpg"}))
    with pytest.raises(RecordError, match="no.jpg does not exist"):
        list(HubReader(tmp_path).records())
    (tmp_path / "rows.jsonl").write_text(json.dumps({**row, "image_file": "/etc/passwd"}))
    with pytest.raises(RecordError, match="the image's path '/etc/passwd' points outside"):
        list(HubReader(tmp_path).records())


def test_damaged_files(tmp_path):
    root = make_file(tmp_path / "root" / "a.parquet", [make_row()] * 50)
    path = root / "a.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SgrlError, match="a.parquet .* is truncated or damaged .*; download it again"):
        HubReader(root)
    make_file(path, [{"image": 1, "caption": "x"}])
    with pytest.raises(SgrlError, match="has no column 'image_id', only image, caption"):
        HubReader(root)
    path.unlink()
    with pytest.raises(SgrlError, match="holds no .parquet .or .jsonl. files, only nothing"):
        HubReader(root)
    (root / "a.jsonl").write_text(json.dumps({**make_row(), "image": None})[:-5])
    with pytest.raises(SgrlError, match="not one row with objects .* a.jsonl, row 0: .*no JSON: .*Unterminated"):
        HubReader(root)
    (root / "a.jsonl").write_text("{}\n")
    with pytest.raises(SgrlError, match="not one row with objects"):
        HubReader(root)
    with pytest.raises(SgrlError, match="is not a folder"):
        HubReader(root / "nowhere")


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_boxes_are_in_the_image_that_viewers_show(tmp_path, turn):
    """Also where it is turned by half and its size says nothing."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = turn
    seen = Image.new("RGB", (60, 40))
    seen.paste((255, 0, 0), (0, 0, 30, 20))
    stored = {1: seen, 3: seen.rotate(180), 6: seen.rotate(90, expand=True), 8: seen.rotate(-90, expand=True)}[turn]
    stored.save(file, "JPEG", exif=exif, quality=95, subsampling=0)
    root = make_file(tmp_path / "a.parquet", [make_row(image={"bytes": file.getvalue(), "path": None})])
    (record,) = HubReader(root).records()
    assert (record.graph.width, record.graph.height) == (60, 40)
    image = Image.open(io.BytesIO(encoded(record.image, (60, 40))))
    assert image.size == (60, 40) and image.getpixel((10, 10))[0] > 200 and image.getpixel((50, 30))[0] < 50


@pytest.mark.parametrize(
    "name", ["../private.jpg", "/etc/passwd", "a/../../private.jpg", "..\\private.jpg", "C:\\x.jpg"]
)
def test_images_outside_of_the_folder_are_damage(tmp_path, name):
    Image.new("RGB", (60, 40)).save(tmp_path / "private.jpg")
    rows = [make_row("bad", image={"bytes": None, "path": name}), make_row("good")]
    reader, found = HubReader(make_file(tmp_path / "set" / "train.parquet", rows)), []
    assert [record.image_id for record in reader.records(found.append)] == ["good"]
    assert "points outside" in str(found[0])


def test_the_hubs_cache_of_links_is_read(tmp_path):
    """snapshots/HASH/... are links into blobs/, which lies outside; so are images beside the rows."""
    blobs, root = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    make_file(blobs / "1f", [make_row("7", image={"bytes": None, "path": "a.jpg"})])
    Image.new("RGB", (60, 40)).save(blobs / "2e", "JPEG")
    (root / "test").mkdir(parents=True)
    (root / "test" / "train-0.parquet").symlink_to(blobs / "1f")
    (root / "test" / "a.jpg").symlink_to(blobs / "2e")
    (record,) = HubReader(root).records()
    assert record.split == "test" and record.image.read_bytes() == (blobs / "2e").read_bytes()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_in_lines(tmp_path, encoding):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")
    rows = [json.dumps({**make_row(str(i)), "image": None, "image_file": "a.jpg"}) for i in range(3)]
    (tmp_path / "rows.jsonl").write_bytes("\n".join([rows[0], "\ufeff" + rows[1], rows[2]]).encode(encoding))
    assert [record.image_id for record in HubReader(tmp_path).records()] == ["0", "1", "2"]


def test_text_in_parquet_that_is_no_utf8_is_one_row(tmp_path):
    ids = pyarrow.array([b"7", b"\xff\xfe", b"9"], pyarrow.binary()).view(pyarrow.string())
    rows = pyarrow.Table.from_pylist([make_row()] * 3).set_column(0, "image_id", ids)
    parquet.write_table(rows, tmp_path / "train.parquet")
    reader, found = HubReader(tmp_path), []
    assert [record.image_id for record in reader.records(found.append)] == ["7", "9"]
    assert found[0].place == "train.parquet, row 1"
