"""PSG4D-GTA and PSG4D-HOI: the fixtures, every way to write a relation, and what is damaged."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from data_prep.clean import clean
from data_prep.readers import open_reader
from data_prep.readers.psg4d import PSG4DGTAReader, PSG4DHOIReader
from data_prep.readers.psg4d_video import Schema
from data_prep.readers.record import RecordError
from rewards.metrics.video import VideoRecall
from sgrl.errors import SgrlError

OBJECTS = [{"object_id": 3, "category": "car"}, {"object_id": 1004, "category": "ground"}]


def make_mask(frame=0):
    """A car of value 3 that moves to the right over the ground, 1004."""
    mask = np.zeros((20, 40), "int32")
    mask[10:] = 1004
    mask[5:15, 2 + frame : 12 + frame] = 3
    return mask


def make_video(video_id="a", frames=3, **changes):
    relations = [[3, "driving on", 1004, [0, frames - 1]]]
    return {"video_id": video_id, "meta": {"num_frames": frames}, "object": OBJECTS, "relations": relations} | changes


def make_root(path, videos, frames=3, **changes):
    (path / "psg4d_gta" / "masks").mkdir(parents=True)
    for video in videos:
        name = video.get("video_id") if isinstance(video, dict) else None
        if not isinstance(name, str) or ".." in name:
            continue
        for folder in ("masks", "images"):
            (path / "psg4d_gta" / folder / name).mkdir(parents=True, exist_ok=True)
        for frame in range(frames):
            np.save(path / "psg4d_gta" / "masks" / name / f"{frame:06d}.npy", make_mask(frame))
            Image.new("RGB", (40, 20)).save(path / "psg4d_gta" / "images" / name / f"{frame:06d}.bmp")
    classes = {"thing": ["car"], "stuff": ["ground"]}
    content = {"objects": classes, "relations": ["driving on"], "split": {"train": ["a"], "val": ["b"]}}
    (path / "sailvos3d.json").write_text(json.dumps({**content, "data": videos, **changes}))
    return path


def triples(record):
    return [(r.subject, r.predicate, r.object) for r in record.graph.relations]


def test_gta_fixture_reads_as_expected(layouts, shared):
    folder = layouts / "psg4d_gta"
    expected = json.loads((folder / "EXPECTED_parse.json").read_text())
    raw = json.loads((folder / "sailvos3d.json").read_text())
    labels = {str(entry["object_id"]): entry["category"] for entry in raw["data"][0]["object"]}
    reader = open_reader("psg4d_gta", folder)
    records = list(reader.records())
    assert [r.image_id for r in records] == [f"{v}_{int(frame)}" for v, frames in expected.items() for frame in frames]
    for record in records:
        known = expected[record.video_id][f"{record.frame:06d}"]
        ids = list(known["objects"])
        assert [o.label for o in record.graph.objects] == [labels[i] for i in ids]
        assert record.graph.boxes.tolist() == [known["objects"][i]["exclusive_xyxy"] for i in ids]
        found = [[int(ids[s]), predicate, int(ids[o])] for s, predicate, o in triples(record)]
        assert found == known["active_triples"]
        assert (record.graph.width, record.graph.height) == (64, 40)
        assert record.split == {"syn_1_mcs_1": "train", "syn_2_rcm": "val"}[record.video_id]
        assert record.image.is_file() and record.image.stem == f"{record.frame:06d}"
    assert reader.vocabulary.predicates == ("looking at", "on", "standing on")
    real = json.loads((shared / "data" / "real" / "psg4d_gta" / "classes.json").read_text())
    classes = (*real["thing_26"], *real["stuff_9"])
    assert (reader.name, reader.vocabulary.objects) == ("psg4d_gta", classes)
    assert reader.totals() == {"videos": (2, 67)}
    assert list(reader.records()) == records


def test_gta_masks_that_were_not_merged(layouts, tmp_path):
    folder = layouts / "psg4d_gta"
    merged = [record.graph for record in PSG4DGTAReader(folder).records()]
    shutil.copytree(folder, tmp_path / "root", ignore=lambda _, names: [n for n in names if n == "masks"])
    (tmp_path / "root").chmod(0o755)
    assert [record.graph for record in PSG4DGTAReader(tmp_path / "root").records()] == merged


def test_hoi_fixture_reads_as_expected(layouts):
    folder = layouts / "psg4d_hoi"
    expected = json.loads((folder / "EXPECTED_parse.json").read_text())
    raw = json.loads((folder / "psg4d_hoi.json").read_text())["data"][0]["object"]
    by_mask = {str(entry["mask_id"]): entry["object_id"] for entry in raw}
    reader = open_reader("psg4d_hoi", folder)
    records = list(reader.records())
    ((video_id, frames),) = expected.items()
    assert [record.image_id for record in records] == [f"{video_id}_{int(frame)}" for frame in frames]
    for record in records:
        known = frames[f"{record.frame:05d}"]
        ids = list(known["objects_by_mask_id"])
        assert record.graph.boxes.tolist() == [known["objects_by_mask_id"][i]["exclusive_xyxy"] for i in ids]
        assert [o.label for o in record.graph.objects] == ["table", "bucket", "hand", "hand"]
        found = [[by_mask[ids[s]], predicate, by_mask[ids[o]]] for s, predicate, o in triples(record)]
        assert found == known["active_triples_object_ids"]
        assert (record.graph.width, record.graph.height) == (48, 27) and record.image.is_file()
    assert reader.vocabulary.predicates == ("grasping", "on", "reaching") and reader.name == "psg4d_hoi"
    assert reader.vocabulary.objects == ("table", "bucket", "hand", "ground")
    assert reader.totals() == {"videos": (1, 2973)} and not reader.notes


RELATIONS = {
    "predicate second, one span": [3, "on", 1004, [1, 2]],
    "predicate third, flat span": [3, 1004, "on", 1, 2],
    "predicate third, list of spans": [3, 1004, "on", [[1, 2]]],
    "predicate first": ["on", 3, 1004, 1, 2],
    "spans as they are": [3, "on", 1004, [1, 1], [2, 2]],
    "list of two spans": [3, "on", 1004, [[1, 1], [2, 2]]],
    "whole numbers as floats": [3.0, "on", 1004.0, [1.0, 2.0]],
    "beyond the video": [3, "on", 1004, [1, 99]],
}


@pytest.mark.parametrize("name", RELATIONS)
def test_every_way_to_write_a_relation(tmp_path, name):
    root = make_root(tmp_path / "root", [make_video(relations=[RELATIONS[name]])])
    found = [triples(record) for record in PSG4DGTAReader(root).records()]
    assert found == [[], [(0, "on", 1)], [(0, "on", 1)]]


def test_relation_without_a_span_always_holds(tmp_path):
    root = make_root(tmp_path / "root", [make_video(relations=[[3, "on", 1004]], object=None, objects=OBJECTS)])
    content = json.loads((root / "sailvos3d.json").read_text())
    del content["data"][0]["object"]
    (root / "sailvos3d.json").write_text(json.dumps(content))
    assert [triples(record) for record in PSG4DGTAReader(root).records()] == [[(0, "on", 1)]] * 3


@pytest.mark.parametrize("misfits", [[3, 4], [0, 1, 2]])
def test_relations_that_fit_no_layout_name_the_video(tmp_path, misfits):
    shapes = ([3, "on"], [3, 4, 1004, [0, 1]], [3, "on", "at", 1004], [3, "on", 1004, ["0-1"]], "3 on 1004")
    for i in misfits:
        videos = [make_video("a", relations=[shapes[i]]), make_video("b")]
        reader, found = PSG4DGTAReader(make_root(tmp_path / str(i), videos)), []
        assert {record.video_id for record in reader.records(found.append)} == {"b"}
        assert found[0].place == "sailvos3d.json, video 0 (a)"
        with pytest.raises(RecordError, match=r"video 0 \(a\): relation 0: expected \[id, predicate, id, .* found"):
            list(reader.records())


def test_spans_are_clipped_and_counted(tmp_path):
    relations = [[3, "on", 1004, spans] for spans in ([[0, 3]], [[-2, 0]], [[2, 1]], [[7, 9]], [[1, 1], [5, 5]])]
    reader = PSG4DGTAReader(make_root(tmp_path / "root", [make_video(relations=relations)]))
    assert [len(record.graph.relations) for record in reader.records()] == [2, 2, 1]
    assert reader.notes == {"spans clipped to the video": 4, "spans without a frame": 3}


def test_relation_of_an_unknown_object_is_left_out_alone(tmp_path):
    relations = [[3, "on", 77, [0, 1]], [3, "on", 1004, [0, 1]]]
    reader = PSG4DGTAReader(make_root(tmp_path / "root", [make_video(relations=relations)]))
    found = []
    assert [len(record.graph.relations) for record in reader.records(found.append)] == [1, 1, 0]
    assert str(found[0]) == (
        "sailvos3d.json, video 0 (a), relation 0: 'on' is of the object 77; expected one of [3, 1004]"
    )
    with pytest.raises(RecordError, match="of the object 77"):
        list(reader.records())


def test_the_id_that_relations_use_is_found_out():
    objects = [{"mask_id": 2, "object_id": 1}, {"mask_id": 1002, "object_id": 2}]
    schema = Schema({2: "cup"})

    def read(relation, schema=schema):
        video = schema.video("x", {"video_id": "v", "object": objects, "relations": [relation]}, pytest.fail)
        return [(r.subject, r.object) for r in video.relations], video.only

    assert read([1, 2, "on", 0, 1]) == ([(0, 1)], ("object_id",))
    assert read([2, 1002, "on", 0, 1]) == ([(0, 1)], ("mask_id",))
    assert read([2, 2, "on", 0, 1]) == ([(1, 1)], ())  # both fit: as most of the file
    assert read([2, 2, "on", 0, 1], Schema({2: "cup"}, "mask_id")) == ([(0, 0)], ())


def test_objects_that_cannot_be_seen(tmp_path):
    root = make_root(tmp_path / "root", [make_video()])
    np.save(root / "psg4d_gta" / "masks" / "a" / "000001.npy", np.where(make_mask() == 3, 0, make_mask()))
    reader = PSG4DGTAReader(root)
    assert [[o.label for o in r.graph.objects] for r in reader.records()] == [["car", "ground"], ["ground"]] + [
        ["car", "ground"]
    ]
    assert reader.notes == {"relations in frames where an end cannot be seen": 1}


def test_labels_outside_the_lists_are_counted_by_the_cleaning(tmp_path):
    objects = [{"object_id": 3, "category": "tank"}, OBJECTS[1]]
    reader = PSG4DGTAReader(make_root(tmp_path / "root", [make_video(object=objects)]))
    record = next(reader.records())
    assert record.graph.objects[0].label == "tank"
    assert clean(record.graph, reader.vocabulary)[1]["unknown_objects"] == 1
    reader = PSG4DGTAReader(make_root(tmp_path / "open", [make_video(object=objects)], objects=None, relations=None))
    assert reader.vocabulary.objects == ("ground", "tank") and reader.vocabulary.predicates == ("driving on",)
    assert reader.name == "open" and reader.totals() == {}


def test_missing_masks_and_frames(tmp_path):
    root = make_root(tmp_path / "root", [make_video("a"), make_video("b", frames=5), make_video("c")])
    shutil.rmtree(root / "psg4d_gta" / "masks" / "a")
    (root / "psg4d_gta" / "masks" / "b" / "000001.npy").unlink()
    (root / "psg4d_gta" / "images" / "b" / "000002.bmp").unlink()
    (root / "psg4d_gta" / "masks" / "b" / "notes.txt").write_text("")
    reader, found = PSG4DGTAReader(root), []
    records = list(reader.records(found.append))
    assert [record.image_id for record in records] == ["b_0", "b_2", "c_0", "c_1", "c_2"]
    assert records[1].image == root / "psg4d_gta" / "images" / "b" / "000002.bmp"  # the converter will miss it
    assert [error.place for error in found] == ["sailvos3d.json, video 0 (a)"]
    assert "holds no masks; expected 000000.npy and so on" in str(found[0])
    assert reader.notes == {"frames without a mask": 3, "videos in no split, taken for training": 1}


def test_mask_of_another_size_than_its_image(tmp_path):
    root = make_root(tmp_path / "root", [make_video()])
    np.save(root / "psg4d_gta" / "masks" / "a" / "000001.npy", make_mask()[:, :30])
    found = []
    assert len(list(PSG4DGTAReader(root).records(found.append))) == 2
    assert found[0].place == "sailvos3d.json, video 0 (a), frame 000001"
    assert "000001.npy is 30 x 20 pixels, its image 40 x 20; expected one size" in str(found[0])


def test_masks_that_cannot_be_read(tmp_path):
    root = make_root(tmp_path / "root", [make_video()])
    masks = root / "psg4d_gta" / "masks" / "a"
    (masks / "000000.npy").write_bytes((masks / "000000.npy").read_bytes()[:200])
    np.save(masks / "000001.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(masks / "000002.npy", np.full((20, 40), 0.5))
    found = []
    assert list(PSG4DGTAReader(root).records(found.append)) == []
    assert "cannot be read" in str(found[0]) and "of object; expected" in str(found[1])
    assert "of float64; expected two axes of whole numbers" in str(found[2])


DAMAGE = {
    "a number": (5, "video 0: expected an object, found 5"),
    "no video_id": (make_video(None), "video_id must be the name of a folder"),
    "climbs": (make_video("../x"), "video_id points outside"),
    "no objects": (make_video(object=None), "expected a list of objects named 'object', found None"),
    "object id 0": (make_video(object=[{"object_id": 0, "category": "car"}]), "object 0: .*above 0, found 0"),
    "no category": (make_video(object=[{"object_id": 1}]), "object 0: category must be a name, found None"),
    "one value, two objects": (make_video(object=OBJECTS[:1] * 2), "mask value 3 stands for 2 objects"),
    "relations": (make_video(relations="none"), "relations must be a list"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_video_is_named_and_the_rest_goes_on(tmp_path, name):
    damaged, message = DAMAGE[name]
    reader = PSG4DGTAReader(make_root(tmp_path / "root", [damaged, make_video("b")]))
    found = []
    assert [record.video_id for record in reader.records(found.append)] == ["b"] * 3
    assert len(found) == 1
    with pytest.raises(RecordError, match=message):
        list(reader.records())


def test_files_that_are_damaged_or_missing(tmp_path):
    root = make_root(tmp_path / "root", [make_video()])
    whole = (root / "sailvos3d.json").read_text()
    (root / "sailvos3d.json").write_text(whole[:-50])
    with pytest.raises(SgrlError, match="sailvos3d.json is truncated"):
        PSG4DGTAReader(root)
    (root / "sailvos3d.json").write_text(json.dumps({"data": []}))
    with pytest.raises(SgrlError, match="names no class"):
        PSG4DGTAReader(root)
    (root / "sailvos3d.json").write_text(whole)
    with pytest.raises(SgrlError, match="sailvos.json does not exist; did you mean 'sailvos3d.json'"):
        PSG4DGTAReader(root, "sailvos.json")
    shutil.rmtree(root / "psg4d_gta")
    with pytest.raises(SgrlError, match="masks is not a folder; expected psg4d_gta's masks"):
        PSG4DGTAReader(root)
    with pytest.raises(SgrlError, match="holds no psg4d_hoi.json, only sailvos3d.json"):
        PSG4DHOIReader(root)
    with pytest.raises(SgrlError, match="is not a folder; give the one that holds psg4d_hoi.json"):
        PSG4DHOIReader(root / "nowhere")


def make_hoi(path, video_id="ZY1/T1", transposed=True, categories='{"3": "car", "4": "ground"}'):
    masks, images = path / "HOI4D_mask/ZY1/T1/mask", path / "HOI4D_release/ZY1/T1/align_rgb"
    masks.mkdir(parents=True)
    images.mkdir(parents=True)
    mask = make_mask()
    mask[mask == 1004] = 2004
    np.savez_compressed(masks / "00000.npz", array=mask.T if transposed else mask)
    Image.new("RGB", (40, 20)).save(images / "00000.jpg")
    objects = [{"mask_id": 3, "object_id": 1}, {"mask_id": 2004, "object_id": 2}]
    content = {"data": [{"video_id": video_id, "object": objects, "relations": [[1, 2, "on", 0, 5]]}]}
    (path / "psg4d_hoi.json").write_text(json.dumps(content))
    (path / "hoi4d_id.json").write_text(json.dumps({"0001": "ZY1/T1"}))
    (path / "categories.json").write_text(categories)
    return path


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("video_id", ["ZY1/T1", "0001"])
def test_hoi_masks_either_way_round_and_short_ids(tmp_path, video_id, transposed):
    reader = PSG4DHOIReader(make_hoi(tmp_path, video_id, transposed))
    (record,) = reader.records()
    assert (record.image_id, record.split) == (f"{video_id}_0", "train")
    assert [(o.label, o.box) for o in record.graph.objects] == [
        ("car", (2, 5, 12, 15)), ("ground", (0, 10, 40, 20))
    ]  # fmt: skip
    assert triples(record) == [(0, "on", 1)] and record.image.is_file()
    assert reader.notes["spans clipped to the video"] == 1 and reader.name == "psg4d_hoi"


def test_hoi_categories(tmp_path):
    reader = PSG4DHOIReader(make_hoi(tmp_path / "a", categories='{"3": "Car", "5": "car"}'))
    record = next(reader.records())
    assert [o.label for o in record.graph.objects] == ["Car", "class 4"] and reader.vocabulary.objects == ("Car",)
    for text, message in (('{"3": "car"', "damaged or truncated"), ('["car"]', "one entry per class number")):
        root = make_hoi(tmp_path / message, categories=text)
        with pytest.raises(SgrlError, match=message):
            PSG4DHOIReader(root)
    (root / "categories.json").unlink()
    with pytest.raises(SgrlError, match="categories.json does not exist"):
        PSG4DHOIReader(root)
    (root / "HOI4D_mask/ZY1/T1/mask/00000.npz").write_bytes(b"PK\x03\x04")
    (root / "categories.json").write_text('{"3": "car"}')
    with pytest.raises(RecordError, match="frame 00000: mask .* cannot be read"):
        list(PSG4DHOIReader(root).records())


def read_all(root, count):
    assert sum(1 for _ in PSG4DGTAReader(root).records()) == count


def test_memory_is_flat(tmp_path, traced_peak):
    peaks = []
    for count in (2, 12):
        root = make_root(tmp_path / str(count), [make_video(str(i)) for i in range(count)])
        # the lesser of two: when garbage is collected is chance
        peaks.append(min(traced_peak(read_all, root, 3 * count) for _ in range(2)))
    assert peaks[1] < peaks[0] + 1e5


def test_videos_with_their_tubes(tmp_path):
    relations = [[3, "driving on", 1004, [[0, 1], [3, 99]]], [1004, "driving on", 3]]
    root = make_root(tmp_path / "root", [make_video(frames=4, relations=relations)], frames=4)
    (root / "psg4d_gta" / "masks" / "a" / "000002.npy").unlink()
    (video_id, split, graph), *others = PSG4DGTAReader(root).video_graphs()
    assert (video_id, split) == ("a", "train") and not others
    assert [o.label for o in graph.objects] == ["car", "ground"]
    assert graph.objects[0].tube.areas.tolist() == [100, 100, 0, 100]
    assert [(r.subject, r.predicate, r.object, r.spans) for r in graph.relations] == [
        (0, "driving on", 1, ((0, 1), (3, 3))),
        (1, "driving on", 0, ()),
    ]
    recall = VideoRecall()
    recall.add(graph, graph)
    assert recall.compute()["recall@20"] == recall.compute()["volume_map"] == 1
    (root / "psg4d_gta" / "masks" / "a" / "000001.npy").write_bytes(b"no array")
    with pytest.raises(RecordError, match="cannot be read"):
        list(PSG4DGTAReader(root).video_graphs())
    found = []
    assert not list(PSG4DGTAReader(root).video_graphs(found.append)) and len(found) == 1


def test_the_fixtures_have_tubes(layouts):
    """The boxes of the frames are those of the tubes."""
    for name in ("psg4d_gta", "psg4d_hoi"):
        reader = open_reader(name, layouts / name)
        seen = {record.video_id for record in reader.records(lambda error: None)}
        videos = {video_id: graph for video_id, _, graph in reader.video_graphs(lambda error: None)}
        assert set(videos) == seen and all(graph.relations for graph in videos.values())
        for record in reader.records(lambda error: None):
            shown = [o.label for o in videos[record.video_id].objects if o.tube.areas[record.frame]]
            assert shown == [o.label for o in record.graph.objects]


def test_images_numbered_from_one_belong_to_the_mask_before(tmp_path):
    root = make_root(tmp_path / "root", [make_video()])
    folder = root / "psg4d_gta" / "images" / "a"
    for number in (2, 1, 0):
        (folder / f"{number:06d}.bmp").rename(folder / f"{number + 1:06d}.bmp")
    reader = PSG4DGTAReader(root)
    assert [(r.frame, r.image.name) for r in reader.records()] == [(i, f"{i + 1:06d}.bmp") for i in range(3)]
    assert reader.notes["videos whose frames are numbered from 1, their masks from 0"] == 1
    (folder / "000003.bmp").unlink()
    with pytest.raises(RecordError, match="is image 1 of mask 0 or of mask 1"):
        list(PSG4DGTAReader(root).records())


@pytest.mark.parametrize("path", ["../../private", "/etc", "..\\private", "a\0b"])
def test_the_index_of_hoi_stays_below_its_folders(tmp_path, path):
    root, found = make_hoi(tmp_path, "0001"), []
    assert len(list(PSG4DHOIReader(root).records())) == 1
    (root / "hoi4d_id.json").write_text(json.dumps({"0001": path}))
    assert not list(PSG4DHOIReader(root).records(found.append))
    assert "the path of the video" in str(found[0]) or "no file can be called" in str(found[0])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(tmp_path, encoding):
    root = make_hoi(tmp_path)
    for name in ("psg4d_hoi.json", "hoi4d_id.json", "categories.json"):
        (root / name).write_text((root / name).read_text(), encoding=encoding)
    assert len(list(PSG4DHOIReader(root).records())) == 1
