"""PVSG's pvsg.json and masks: known readings, spans, splits, real records, damage."""

import json
import zlib

import numpy as np
import pytest
from PIL import Image

from data_prep.clean import clean
from data_prep.readers import open_reader
from data_prep.readers.json_stream import values
from data_prep.readers.pvsg import PVSGReader
from data_prep.readers.record import RecordError
from rewards.metrics.video import VideoRecall
from sgrl.errors import SgrlError

VIDEO = "0001_0000000001"


def video(**changes):
    """One record of pvsg.json: object 1 holds object 2 in frames 0 to 2."""
    return {
        "video_id": VIDEO,
        "meta": {"height": 40, "width": 60, "fps": 5, "duration": 0.8, "num_frames": 4},
        "objects": [
            {"object_id": 1, "category": "adult", "is_thing": True, "status": []},
            {"object_id": 2, "category": "ball", "is_thing": True, "status": []},
        ],
        "relations": [[1, 2, "holding", [[0, 2]]]],
        **changes,
    }


def make_root(path, videos=None, frames=4, **changes):
    content = {
        "objects": {"thing": ["adult", "ball"], "stuff": ["sky"]},
        "relations": ["holding", "next to"],
        "split": {"vidor": {"train": [VIDEO], "val": []}},
        "data": [video()] if videos is None else videos,
    }
    path.mkdir(parents=True, exist_ok=True)
    (path / "pvsg.json").write_text(json.dumps({**content, **changes}))
    for kind in ("masks", "frames"):
        (path / "vidor" / kind / VIDEO).mkdir(parents=True, exist_ok=True)
    for frame in range(frames):
        mask = np.zeros((40, 60), np.uint8)
        mask[5:15, 10 + frame : 30 + frame], mask[20:30, 40:50] = 1, 2
        save_mask(path, frame, mask)
        Image.new("RGB", (60, 40)).save(path / "vidor" / "frames" / VIDEO / f"{frame:04d}.png")
    return path


def save_mask(root, frame, mask, mode="P"):
    image = Image.fromarray(mask)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    image.save(root / "vidor" / "masks" / VIDEO / f"{frame:04d}.png")


def triples(record):
    objects = record.graph.objects
    return [(objects[r.subject].label, r.predicate, objects[r.object].label) for r in record.graph.relations]


def test_fixture_reads_as_expected(layouts):
    root = layouts / "pvsg"
    expected = json.loads((root / "EXPECTED_parse.json").read_text())
    raw = {entry["video_id"]: entry for entry in json.loads((root / "pvsg.json").read_text())["data"]}
    reader = open_reader("pvsg", root)
    records = list(reader.records())
    known_frames = [
        (name, int(frame))
        for name, known in expected.items()
        for frame in known["frames"]
        if known["frames"][frame] is not None
    ]
    assert [(record.video_id, record.frame) for record in records] == known_frames
    for record in records:
        known = expected[record.video_id]
        frame = known["frames"][f"{record.frame:04d}"]
        assert record.image == root / known["source"] / "frames" / record.video_id / f"{record.frame:04d}.png"
        ids = list(map(int, frame["objects"]))
        labels = {o["object_id"]: o["category"] for o in raw[record.video_id]["objects"]}
        assert [o.label for o in record.graph.objects] == [labels[number] for number in ids]
        assert [list(o.box) for o in record.graph.objects] == [o["exclusive_xyxy"] for o in frame["objects"].values()]
        found = [[ids[r.subject], r.predicate, ids[r.object]] for r in record.graph.relations if r.subject != r.object]
        assert sorted(found) == sorted(frame["active_triples"])
        cleaned, _ = clean(record.graph, reader.vocabulary)
        assert len(cleaned.relations) == len(frame["active_in_57_vocab"])
    assert {record.split for record in records if record.video_id.startswith("00000000-")} == {"val"}
    assert reader.name == "pvsg"
    assert reader.notes == {
        "relations listed again, merged": 2,
        "spans left out: backwards or beyond the video": 1,
        "spans clipped to the video": 2,
        "relations in frames where an end cannot be seen, left out": reader.notes[
            "relations in frames where an end cannot be seen, left out"
        ],
    }
    assert reader.totals() == {"videos": (3, 400), "train videos": (2, 338), "val videos": (1, 62)}


def test_real_records(shared, tmp_path):
    """Three real videos; masks are drawn, for none is public."""
    source = shared / "data" / "real" / "pvsg" / "pvsg_REALSUBSET_3videos.json"
    (tmp_path / "pvsg.json").write_bytes(source.read_bytes())
    raw = json.loads(source.read_text())["data"]
    folders = {}
    for entry, folder in zip(raw, ("vidor", "epic_kitchen", "ego4d"), strict=True):
        folders[entry["video_id"]] = folder
        meta = entry["meta"]
        mask = np.zeros((meta["height"], meta["width"]), np.uint8)
        for o in entry["objects"]:
            number = o["object_id"]
            mask[number * 5 : number * 5 + 5, 7 : 7 + number] = number
        for kind in ("masks", "frames"):
            (tmp_path / folder / kind / entry["video_id"]).mkdir(parents=True)
        for frame in (0, 100, 110, meta["num_frames"] - 1):
            Image.fromarray(mask).save(tmp_path / folder / "masks" / entry["video_id"] / f"{frame:04d}.png")
            (tmp_path / folder / "frames" / entry["video_id"] / f"{frame:04d}.png").touch()
    reader = PVSGReader(tmp_path)
    records = {(record.video_id, record.frame): record for record in reader.records()}
    assert len(records) == 12 and reader.name == "pvsg"
    for entry in raw:
        for frame in (0, 100, 110):
            record = records[entry["video_id"], frame]
            assert [o.label for o in record.graph.objects] == [o["category"] for o in entry["objects"]]
            assert (record.graph.width, record.graph.height) == (entry["meta"]["width"], entry["meta"]["height"])
            holding = {(s, p, o) for s, o, p, spans in entry["relations"] if any(a <= frame <= b for a, b in spans)}
            ids = [o["object_id"] for o in entry["objects"]]
            found = {(ids[r.subject], r.predicate, ids[r.object]) for r in record.graph.relations}
            assert found == holding
            assert record.image.parent.parent == tmp_path / folders[entry["video_id"]] / "frames"
    assert {r.video_id: r.split for r in records.values()}[raw[0]["video_id"]] in ("train", "val")
    assert reader.notes["videos of the splits without annotation"] == 397


def test_spans_include_both_ends_and_stay_in_the_video(tmp_path):
    relations = [
        [1, 2, "holding", [[1, 2]]],
        [1, 2, "next to", [[3, 9]]],
        [2, 1, "next to", [[2, 1], [7, 9], [-3, 0]]],
        [2, 1, "holding", []],
    ]
    reader = PVSGReader(make_root(tmp_path, [video(relations=relations)]))
    found = [triples(record) for record in reader.records()]
    always = ("ball", "holding", "adult")
    assert found == [
        [("ball", "next to", "adult"), always],
        [("adult", "holding", "ball"), always],
        [("adult", "holding", "ball"), always],
        [("adult", "next to", "ball"), always],
    ]
    assert reader.notes == {
        "spans clipped to the video": 2,
        "spans left out: backwards or beyond the video": 2,
        "relations without spans, taken to hold in all frames": 1,
    }


def test_frames_need_a_mask_and_an_image(tmp_path):
    root = make_root(tmp_path, frames=6)
    (root / "vidor" / "masks" / VIDEO / "0001.png").unlink()
    (root / "vidor" / "frames" / VIDEO / "0002.png").unlink()
    reader = PVSGReader(root)
    assert [record.frame for record in reader.records()] == [0, 3, 4, 5]
    assert reader.notes == {
        "frames left out: they have no mask": 1,
        "frames left out: they have a mask but no image": 1,
        "frames beyond the length of their video": 2,
    }


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "I;16"])
def test_masks_of_every_mode(tmp_path, mode):
    root = make_root(tmp_path)
    mask = np.zeros((40, 60), np.uint16 if mode == "I;16" else np.uint8)
    mask[3:8, 4:20], mask[30:40, 50:60] = 1, 2
    save_mask(root, 0, np.stack([mask, mask * 0, mask * 0], axis=2) if mode == "RGB" else mask, mode)
    with Image.open(root / "vidor" / "masks" / VIDEO / "0000.png") as image:
        assert image.mode == mode
    record = next(PVSGReader(root).records())
    assert [o.box for o in record.graph.objects] == [(4, 3, 20, 8), (50, 30, 60, 40)]


def test_colour_masks_may_hold_large_ids(tmp_path):
    objects = [{"object_id": number, "category": "ball"} for number in (70000, 300)]
    root = make_root(tmp_path, [video(objects=objects, relations=[[70000, 300, "next to", [[0, 3]]]])])
    mask = np.zeros((40, 60), np.int64)
    mask[0:4, 0:5], mask[10:20, 10:20] = 70000, 300
    rgb = (mask[..., None] >> np.array([0, 8, 16]) & 255).astype(np.uint8)
    save_mask(root, 0, rgb, "RGB")
    record = next(PVSGReader(root).records())
    assert [o.box for o in record.graph.objects] == [(0, 0, 5, 4), (10, 10, 20, 20)]


def test_objects_that_cannot_be_seen_and_segments_without_an_object(tmp_path):
    root = make_root(tmp_path)
    mask = np.full((40, 60), 9, np.uint8)
    mask[0:5, 0:5] = 1
    save_mask(root, 0, mask)
    save_mask(root, 1, np.zeros((40, 60), np.uint8))
    reader = PVSGReader(root)
    first, second, *_ = reader.records()
    assert [o.label for o in first.graph.objects] == ["adult"] and not first.graph.relations
    assert second.graph.objects == ()
    assert reader.notes["segments left out: their number is no object_id"] == 1
    assert reader.notes["relations in frames where an end cannot be seen, left out"] == 2


def test_a_mask_of_another_size_is_trusted_until_the_image_says_otherwise(tmp_path):
    from data_prep.images import encoded

    root = make_root(tmp_path)
    save_mask(root, 0, np.ones((20, 30), np.uint8))
    reader = PVSGReader(root)
    record = next(reader.records())
    assert (record.graph.width, record.graph.height) == (30, 20)
    assert reader.notes["masks of another size than the annotation says, trusted"] == 1
    with pytest.raises(SgrlError, match="0000.png has 60 x 40 pixels, its annotation says 30 x 20"):
        encoded(record.image, (record.graph.width, record.graph.height))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"relations": [[1, 7, "holding", [[0, 1]]]]},
            "relation 0: the object 7 is not the object_id of one of the 2",
        ),
        ({"relations": [["1", 2, "holding", [[0, 1]]]]}, "the subject '1' is not"),
        ({"relations": [[1, 2, 3, [[0, 1]]]]}, r"expected \[subject, object, predicate, spans\]"),
        ({"relations": [[1, 2, "holding", [[0]]]]}, r"a span must be \[first frame, last frame\], found \[0\]"),
        ({"relations": None}, "relations must be a list, found None"),
        ({"objects": None}, "objects must be a list, found None"),
        ({"objects": [{"object_id": 0, "category": "ball"}]}, r"object 0: expected object_id \(from 1\) and category"),
        ({"objects": [{"object_id": 1}]}, "object 0: expected object_id"),
        ({"objects": [{"object_id": 1, "category": "ball"}] * 2}, "object 1: the object_id 1 is taken"),
        ({"meta": {}}, "meta must have num_frames"),
        ({"meta": None}, "meta must have num_frames"),
        ({"video_id": "../../etc"}, "it is the name of a folder"),
        ({"video_id": None}, "expected an object with a video_id"),
    ],
)
def test_a_damaged_video_is_named_and_skipped(tmp_path, changes, message):
    root = make_root(tmp_path, [video(**changes), video()])
    damaged = []
    records = list(PVSGReader(root).records(damaged.append))
    assert [record.frame for record in records][-4:] == [0, 1, 2, 3]
    assert len(damaged) == 1
    with pytest.raises(RecordError, match=message):
        raise damaged[0]
    assert str(damaged[0]).startswith("pvsg.json, video 0")
    with pytest.raises(RecordError, match=message):
        list(PVSGReader(root).records())


def test_damaged_and_missing_masks(tmp_path):
    root = make_root(tmp_path)
    mask = root / "vidor" / "masks" / VIDEO / "0001.png"
    mask.write_bytes(mask.read_bytes()[:60])
    damaged = []
    assert [record.frame for record in PVSGReader(root).records(damaged.append)] == [0, 2, 3]
    assert "frame 0001: the mask cannot be read: image" in str(damaged[0]) and "does not open" in str(damaged[0])
    for file in mask.parent.iterdir():
        file.unlink()
    with pytest.raises(RecordError, match="holds no masks; expected 0000.png and so on"):
        list(PVSGReader(root).records())


def test_frames_that_were_never_decoded(tmp_path):
    root = make_root(tmp_path)
    for file in (root / "vidor" / "frames" / VIDEO).iterdir():
        file.unlink()
    with pytest.raises(RecordError, match=f"holds no frames; decode the video into it, .*{VIDEO}.mp4 -start_number 0"):
        list(PVSGReader(root).records())


def test_sources_that_are_not_there_and_videos_in_no_split(tmp_path):
    others = [video(video_id=name) for name in ("P01_03", "0be30efe-9d71-4698-8304-f1d441aeea58_1", "0002_22")]
    root = make_root(tmp_path, [*others, video()])
    damaged = []
    reader = PVSGReader(root)
    assert {record.video_id for record in reader.records(damaged.append)} == {VIDEO}
    assert reader.notes == {
        "videos in no split, taken for training": 3,
        "videos left out: there is no folder epic_kitchen": 1,
        "videos left out: there is no folder ego4d": 1,
    }
    assert [error.place for error in damaged] == ["pvsg.json, video 2 (0002_22)"]


def test_masks_that_were_unpacked_on_top_of_each_other(tmp_path):
    root = make_root(tmp_path)
    (root / "vidor" / "masks" / "0000.png").touch()
    with pytest.raises(SgrlError, match="masks overwrote each other. Unpack it again"):
        PVSGReader(root)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(SgrlError, match="is not a folder; give PVSG's root"):
        PVSGReader(tmp_path / "nowhere")
    with pytest.raises(SgrlError, match="holds no pvsg.json, only nothing"):
        PVSGReader(tmp_path)
    root = make_root(tmp_path / "pvsg")
    with pytest.raises(SgrlError, match="did you mean 'pvsg.json'"):
        PVSGReader(root, "pvgs.json")
    for changes, message in (
        ({"objects": ["adult"]}, "lacks the lists objects"),
        ({"relations": None}, "lacks the lists"),
        ({"split": ["a"]}, "has no 'split'"),
        ({"split": {"youtube": {}}}, "has no 'split'"),
        ({"split": {"vidor": {"train": [VIDEO], "val": [VIDEO]}}}, f"the video {VIDEO} stands in two splits"),
    ):
        with pytest.raises(SgrlError, match=message):
            PVSGReader(make_root(tmp_path / "pvsg", **changes))
    whole = (root / "pvsg.json").read_bytes()
    (root / "pvsg.json").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(SgrlError, match="is truncated"):
        PVSGReader(root)
    make_root(root)
    for folder in sorted((root / "vidor").rglob("*"), reverse=True):
        folder.unlink() if folder.is_file() else folder.rmdir()
    (root / "vidor").rmdir()
    with pytest.raises(SgrlError, match="holds no vidor, epic_kitchen or ego4d"):
        PVSGReader(root)


def test_lists_at_the_top_are_not_mixed_up_with_those_of_a_video(tmp_path):
    """Both have `objects` and `relations`."""
    root = make_root(tmp_path)
    content = json.loads((root / "pvsg.json").read_text())
    for order in (["data", "split", "objects", "relations"], ["objects", "relations", "data", "split"]):
        (root / "pvsg.json").write_text(json.dumps({key: content[key] for key in order}))
        found = values(root / "pvsg.json", ("objects", "relations", "split"), skip="data")
        assert found == {key: content[key] for key in ("objects", "relations", "split")}
    assert PVSGReader(root).vocabulary.predicates == ("holding", "next to")


def read_all(root):
    for _ in PVSGReader(root).records():
        pass


def test_memory_does_not_grow_with_the_number_of_videos(tmp_path, traced_peak):
    peaks = []
    for count in (2000, 8000):
        root = make_root(tmp_path / str(count), [video(video_id="P01_01")] * count, frames=1)
        peaks.append(traced_peak(read_all, root))
    assert peaks[1] < 1.3 * peaks[0]


def test_a_video_without_annotations(tmp_path):
    """Nothing in its lists, or not in the file at all though a split names it."""
    root = make_root(
        tmp_path, [video(objects=[], relations=[])], split={"vidor": {"train": [VIDEO], "val": ["0002_2"]}}
    )
    reader = PVSGReader(root)
    assert [(record.graph.objects, record.graph.relations) for record in reader.records()] == [((), ())] * 4
    assert reader.notes == {
        "segments left out: their number is no object_id": 8,
        "videos of the splits without annotation": 1,
    }


def test_masks_of_unwanted_videos_are_not_read(layouts, monkeypatch):
    from data_prep.readers import masks

    reader = PVSGReader(layouts / "pvsg")
    everything = list(reader.records())
    opened = []
    original = masks.load_image
    monkeypatch.setattr(masks, "load_image", lambda path: opened.append(path) or original(path))
    reader.wanted = lambda video_id: video_id == "P99_01"
    wanted = list(reader.records())
    assert wanted == [record for record in everything if record.video_id == "P99_01"] and len(opened) == len(wanted)
    assert reader.totals()["videos"] == (1, 400)  # those of all parts of a job add up


def test_parts_of_a_job_report_each_damage_once(tmp_path):
    names = [f"0001_{number:010d}" for number in range(2, 10)]
    videos = [video(video_id=name, relations=[[1, 9, "holding", [[0, 1]]]]) for name in names]
    root = make_root(tmp_path, [*videos, "no record"], split={"vidor": {"train": names, "val": []}})
    for name in names:
        for kind in ("masks", "frames"):
            (root / "vidor" / kind / name).mkdir(exist_ok=True)
            (root / "vidor" / kind / name / "0000.png").touch()
    damaged, notes = [], []
    for index in range(3):
        reader = PVSGReader(root)
        reader.wanted = lambda name, index=index: zlib.crc32(name.encode()) % 3 == index
        assert list(reader.records(damaged.append)) == []
        notes.append(reader.notes["videos of the splits without annotation"])
    assert len(damaged) == len(set(map(str, damaged))) == 2 * len(names) + 1 and notes == [0, 0, 0]


def test_videos_with_their_tubes(tmp_path):
    """Relations with all their spans, masks frame by frame, whether or not the frames were decoded."""
    spoken = video(relations=[[1, 2, "holding", [[0, 1], [3, 9]]], [2, 1, "next to", []], [1, 3, "holding", [[0, 1]]]])
    spoken["objects"].append({"object_id": 3, "category": "ball"})  # is never seen
    root = make_root(tmp_path / "root", [spoken])
    (root / "vidor" / "masks" / VIDEO / "0002.png").unlink()
    reader = PVSGReader(root)
    (video_id, split, graph), *others = reader.video_graphs()
    assert (video_id, split) == (VIDEO, "train") and not others
    assert [o.label for o in graph.objects] == ["adult", "ball"]
    assert graph.objects[0].tube.areas.tolist() == [200, 200, 0, 200]
    assert [(r.subject, r.predicate, r.object, r.spans) for r in graph.relations] == [
        (0, "holding", 1, ((0, 1), (3, 3))),
        (1, "next to", 0, ((0, 3),)),
    ]
    assert reader.notes["relations without a frame or with an object that is never seen, left out"] == 1
    recall = VideoRecall()
    recall.add(graph, graph)
    assert recall.compute()["recall@20"] == recall.compute()["volume_map"] == 1


def test_a_video_with_a_damaged_mask_has_no_tubes(tmp_path):
    root = make_root(tmp_path)
    (root / "vidor" / "masks" / VIDEO / "0001.png").write_bytes(b"no image")
    with pytest.raises(RecordError, match="0001.png does not open"):
        list(PVSGReader(root).video_graphs())
    found = []
    assert not list(PVSGReader(root).video_graphs(found.append)) and len(found) == 1
    for path in (root / "vidor" / "masks" / VIDEO).iterdir():
        path.unlink()
    with pytest.raises(RecordError, match="no panoptic map"):
        list(PVSGReader(root).video_graphs())


def renumber(root, start, video=VIDEO):
    """Frames numbered from `start`, as ffmpeg does from 1."""
    folder = root / "vidor" / "frames" / video
    for path in sorted(folder.glob("*.png"), reverse=True):
        path.rename(folder / f"{int(path.stem) + start:04d}.png")


def test_frames_numbered_from_one_belong_to_the_mask_before(tmp_path):
    root = make_root(tmp_path)
    for frame in range(4):
        Image.new("RGB", (60, 40)).save(root / "vidor" / "frames" / VIDEO / f"{frame:04d}.png")
    expected = [(record.frame, record.graph) for record in PVSGReader(root).records()]
    renumber(root, 1)
    reader = PVSGReader(root)
    records = list(reader.records())
    assert [(record.frame, record.graph) for record in records] == expected
    assert [record.image.name for record in records] == ["0001.png", "0002.png", "0003.png", "0004.png"]
    assert reader.notes["videos whose frames are numbered from 1, their masks from 0"] == 1
    # The last one is not there: without another video they are counted from 1 still, for none has a frame 0.
    (root / "vidor" / "frames" / VIDEO / "0004.png").unlink()
    assert [(record.frame, record.image.name) for record in PVSGReader(root).records()][-1] == (2, "0003.png")
    # Another video of the source has a frame 0: it is the first one that is missing here.
    other = root / "vidor" / "frames" / "0002_0000000002"
    other.mkdir()
    (other / "0000.png").touch()
    assert [(record.frame, record.image.name) for record in PVSGReader(root).records()][-1] == (3, "0003.png")
