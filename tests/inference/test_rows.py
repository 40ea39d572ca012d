"""The user's own images, folders and videos as rows."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from sgrl.errors import SgrlError
from sgrl.inference.folders import frame_numbers
from sgrl.inference.predict import units_of
from sgrl.inference.presentation import Presentation
from sgrl.inference.rows import FileRows
from sgrl.task import Task


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """photo.jpg, clip/0.png to clip/2.png, each of one grey, and walk.mp4 with five frames of growing grey."""
    cv2 = pytest.importorskip("cv2")
    folder = tmp_path_factory.mktemp("files")
    (folder / "clip").mkdir()
    Image.new("RGB", (120, 80), (9, 9, 9)).save(folder / "photo.jpg")
    for i in range(3):
        Image.new("RGB", (96, 96), (50 * i,) * 3).save(folder / f"clip/{i}.png")
    (folder / "clip/notes.txt").write_text("no image")
    writer = cv2.VideoWriter(str(folder / "walk.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (96, 96))
    for i in range(5):
        writer.write(np.full((96, 96, 3), 40 * i, np.uint8))
    writer.release()
    return folder


def like_rows(toy):
    """As the rows of the toy data set are shown and asked about."""
    return Presentation(Task.of_dataset(toy / "data"))


def test_files_folders_and_videos(files, toy):
    rows = FileRows([str(files / name) for name in ("photo.jpg", "clip", "walk.mp4")], like_rows(toy), True, every=2)
    assert [key[1] for key in rows.keys] == [
        *("photo.jpg", "clip/0.png", "clip/1.png", "clip/2.png"),
        *("walk.mp4/000000", "walk.mp4/000002", "walk.mp4/000004"),
    ]
    assert rows.videos == [None, *["clip"] * 3, *["walk.mp4"] * 3]
    greys = [np.asarray(rows[i]["image"]).mean() for i in (1, 2, 3, 6, 4, 5)]  # a video in any order
    assert greys == pytest.approx([0, 50, 100, 160, 0, 80], abs=6)
    row = rows[0]
    assert (row["width"], row["height"]) == (120, 80) and row["solution"] is None
    assert len(FileRows([str(files / "clip")], like_rows(toy), False, limit=2)) == 2


def images(folder, *names):
    """Small images at these paths below a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (96, 96)).save(folder / name)
    return str(folder)


def ids(rows):
    return [name for _, name in rows.keys]


@pytest.mark.parametrize(
    "names",
    [
        [f"frame_{n}.png" for n in range(12)],
        ["9998.png", "9999.png", "10000.png", "100000.png"],  # behind the end of %04d
        ["a1b9.png", "a1b10.png", "a2b1.png"],
        ["take 2/00.png", "take 2/01.png", "take 10/00.png"],
        ["07.JPG", "7.png", "8.png", f"{'9' * 120}.png", f"1{'0' * 120}.png"],
    ],
)
@pytest.mark.parametrize("as_video", [True, False])
def test_frames_come_in_the_order_of_their_numbers(toy, tmp_path, names, as_video):
    names = (
        sorted(names, key=lambda name: names.index(name))
        if names[0] != "7.png"
        else ["07.JPG", *names[:1], *names[2:]]
    )
    folder = images(tmp_path / "clip", *names)
    assert ids(FileRows([folder], like_rows(toy), as_video)) == [f"clip/{name}" for name in names]


def test_each_folder_of_frames_is_a_video_of_its_own(toy, tmp_path):
    """As videos: the top, and folders at any depth, each in one piece. As images: none is a frame of anything."""
    names = ["1.png", "2.png", "a/1.png", "a/2.png", "a/b/1.png", "a/c/d/5.png", "a/c/d/7.png", "a10/1.png"]
    folder, like = images(tmp_path / "frames", *names), like_rows(toy)
    rows = FileRows([folder], like, True)
    assert ids(rows) == [f"frames/{name}" for name in names]
    assert rows.videos == [*["frames"] * 2, *["frames/a"] * 2, "frames/a/b", *["frames/a/c/d"] * 2, "frames/a10"]
    assert units_of(rows, "generated") == [[0, 1], [2, 3], [4], [5, 6], [7]]
    assert [rows[i]["frame"] for i in range(8)] == [1, 2, 1, 2, 1, 5, 7, 1]
    assert [rows[i]["video_id"] for i in (0, 7)] == ["frames", "frames/a10"]
    rows = FileRows([folder], like, False)
    assert ids(rows) == [f"frames/{name}" for name in names] and set(rows.videos) == {None}
    assert rows[0]["frame"] is None and len(units_of(rows, "generated")) == 8


def test_two_folders_of_one_name_are_not_one_video(toy, tmp_path):
    paths = [images(tmp_path / "monday/cam", "0.png"), images(tmp_path / "tuesday/cam", "1.png")]
    with pytest.raises(SgrlError, match="two inputs are called 'cam'; give the folder that holds them both"):
        FileRows(paths, like_rows(toy), True)
    rows = FileRows([str(tmp_path / "monday/..")], like_rows(toy), True)
    assert rows.videos == [f"{tmp_path.name}/monday/cam", f"{tmp_path.name}/tuesday/cam"]


def test_here_has_a_name(toy, tmp_path, monkeypatch):
    images(tmp_path / "clip", "0.png")
    monkeypatch.chdir(tmp_path / "clip")
    assert FileRows(["."], like_rows(toy), True).videos == ["clip"]


def test_video_files_at_any_depth(files, toy, tmp_path):
    (tmp_path / "all/deep/er").mkdir(parents=True)
    for name in ("all/walk.mp4", "all/deep/er/walk.MP4"):
        shutil.copy(files / "walk.mp4", tmp_path / name)
    (tmp_path / "all/deep/broken.mov").write_bytes(b"no video")
    rows = FileRows([str(tmp_path / "all")], like_rows(toy), False, every=3)
    assert ids(rows) == [
        *("all/walk.mp4/000000", "all/walk.mp4/000003", "all/deep/broken.mov/000000"),
        *("all/deep/er/walk.MP4/000000", "all/deep/er/walk.MP4/000003"),
    ]
    assert rows.videos[1] == "all/walk.mp4" and rows[4]["frame"] == 3
    with pytest.raises(SgrlError, match="broken.mov is no video that OpenCV can read"):
        rows[2]  # the others get their graphs


def test_what_is_no_image_of_the_users_is_left_out_and_named(toy, tmp_path, caplog):
    own = tmp_path / "own"
    names = ["a.png", "sub/b.png", ".hidden.png", ".ipynb_checkpoints/a-checkpoint.png", "sub/.cache/x/c.png"]
    names += ["__MACOSX/own/a.png", "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg"]
    images(own, *names)
    for name in ("._a.png", "sub/._b.png", "Thumbs.db", ".DS_Store", "notes.txt", "sub/photo.heic"):
        (own / name).write_bytes(b"\x00\x05\x16\x07")
    os.mkfifo(own / "pipe.jpg")
    (own / "x.jpg").mkdir()
    rows = FileRows([str(own)], like_rows(toy), False)
    assert ids(rows) == ["own/a.png", "own/sub/b.png"]
    assert "9 hidden ones and those of systems (own/.DS_Store, own/._a.png, own/.hidden.png, ...)" in caplog.text
    assert "2 of other kinds (own/notes.txt, own/sub/photo.heic)" in caplog.text
    assert "1 pipes and devices (own/pipe.jpg)" in caplog.text
    assert ids(FileRows([str(own / ".hidden.png")], like_rows(toy), False)) == [".hidden.png"]  # asked for by name


def test_names_that_are_no_utf8(toy, tmp_path, caplog):
    own = os.fsencode(images(tmp_path / "own", "a.png"))
    shutil.copy(own + b"/a.png", own + b"/caf\xe9.png")
    shutil.copy(own + b"/a.png", own + b"/\x1b[2J.txt")
    rows = FileRows([str(tmp_path / "own")], like_rows(toy), False)
    assert ids(rows) == ["own/a.png", "own/caf\udce9.png"] and rows[1]["image"].size == (96, 96)
    assert "\x1b" not in caplog.text and r"own/\x1b[2J.txt" in caplog.text
    json.loads(json.dumps(rows.keys[1]))


def test_links_are_followed_once(toy, tmp_path, caplog):
    own, elsewhere = tmp_path / "own", tmp_path / "elsewhere"
    images(own, "b/1.png")
    images(elsewhere, "2.png")
    (own / "a").symlink_to(own / "b")  # the same folder again, under a name that sorts before its own
    (own / "b/up").symlink_to(own)  # round and round
    (own / "far").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(own / "b")
    (own / "self.png").symlink_to(own / "self.png")
    (own / "gone.png").symlink_to(own / "nowhere.png")
    os.mkfifo(tmp_path / "pipe")
    (own / "pipe.png").symlink_to(tmp_path / "pipe")
    rows = FileRows([str(own)], like_rows(toy), True)
    assert ids(rows) == ["own/gone.png", "own/pipe.png", "own/self.png", "own/b/1.png", "own/far/2.png"]
    assert "3 links to folders that are here already (own/a, own/b/up, own/far/back)" in caplog.text
    for index in (0, 1, 2):
        with pytest.raises(SgrlError, match="gone.png|pipe.png|self.png"):
            rows[index]


def test_frames_whose_names_do_not_ascend_are_counted(toy, tmp_path):
    folder = images(tmp_path / "clip", "a 3.png", "b 1.png", "c.png")
    rows = FileRows([folder], like_rows(toy), True)
    assert [rows[i]["frame"] for i in range(3)] == [0, 1, 2]
    assert list(frame_numbers(["x/0001_640x480.png", "x/0002_640x480.png"])) == [0, 1]  # not 480 twice
    assert list(frame_numbers(["x/1403636579763555584.png"])) == [0]  # a time: more than a frame's number can be
    assert list(frame_numbers(["v2/f_7.jpg", "v2/f_9.jpg"])) == [7, 9]


def test_what_cannot_be_read_is_named(files, toy, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "empty").mkdir()
    like = like_rows(toy)
    with pytest.raises(SgrlError, match="broken.png does not open"):
        FileRows([str(tmp_path / "broken.png")], like, False)[0]
    with pytest.raises(SgrlError, match="broken.mp4 is no video that OpenCV can read"):
        FileRows([str(tmp_path / "broken.mp4")], like, False)
    with pytest.raises(SgrlError, match="no images; expected files that end in .jpg"):
        FileRows([str(tmp_path / "empty")], like, False)
    with pytest.raises(SgrlError, match="nowhere does not exist"):
        FileRows([str(tmp_path / "nowhere")], like, False)
    with pytest.raises(SgrlError, match="two inputs are called 'photo.jpg'"):
        FileRows([str(files / "photo.jpg")] * 2, like, False)
