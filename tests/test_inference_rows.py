"""The user's own images, folders and videos as rows."""

import numpy as np
import pytest
from PIL import Image

from sgrl.errors import SgrlError
from sgrl.inference.rows import FileRows


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


def test_files_folders_and_videos(files, toy):
    rows = FileRows(
        [str(files / name) for name in ("photo.jpg", "clip", "walk.mp4")], str(toy / "data"), True, every=2
    )
    assert [key[1] for key in rows.keys] == [
        *("photo.jpg", "clip/0.png", "clip/1.png", "clip/2.png"),
        *("walk.mp4/000000", "walk.mp4/000002", "walk.mp4/000004"),
    ]
    assert rows.videos == [None, *["clip"] * 3, *["walk.mp4"] * 3]
    greys = [np.asarray(rows[i]["image"]).mean() for i in (1, 2, 3, 6, 4, 5)]  # a video in any order
    assert greys == pytest.approx([0, 50, 100, 160, 0, 80], abs=6)
    row = rows[0]
    assert (row["width"], row["height"]) == row["image"].size and row["solution"] is None
    assert len(FileRows([str(files / "clip")], str(toy / "data"), False, limit=2)) == 2


def test_what_cannot_be_read_is_named(files, toy, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "empty").mkdir()
    like = str(toy / "data")
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
