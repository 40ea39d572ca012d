"""Overlays: the boxes are where the predictions say, and videos can be read again."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from rewards.metrics import SceneGraphMetrics
from sgrl.__main__ import main as sgrl
from sgrl.errors import SgrlError
from sgrl.files import folder_lock
from sgrl.inference.rows import DatasetRows
from sgrl.report.command import main as report
from sgrl.report.draw import COLOURS, file_name, main
from sgrl.report.verdicts import NEAR, RIGHT, WRONG
from sgrl.text import answer, get_codec

CODEC = get_codec("toon")
TEXT = """<answer>
obj[3]{id,name,x1,y1,x2,y2}:
  1,circle,8,8,32,32
  2,square,48,48,88,88
  3,"a
b",60,5,90,20
rel[2]{subj,pred,obj}:
  1,above,2
  2,<b>,1
</answer>"""


def write_run(folder, rows, **info):
    folder.mkdir(parents=True)
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.json").write_text(json.dumps({"model": "m", "codec": "toon"} | info))
    (folder / "metrics.json").write_text(json.dumps({"object_f1": 0.5}))
    return str(folder)


def own(name, **more):
    row = {"dataset": "files", "image_id": name, "prediction": TEXT, "solution": None, "width": 96, "height": 96}
    return row | {"tokens": 5, "seconds": 0.1, "finish_reason": "stop"} | more


def pictures(folder, count):
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (96, 96), (250, 250, 250 - number)).save(folder / f"{number:03d}.png")
    return folder


def share(image, box, colour):
    """How much of a box, in the picture's own pixels, has a colour."""
    x1, y1, x2, y2 = map(round, box)
    part = np.asarray(image.convert("RGB")).astype(int)[y1:y2, x1:x2]
    return (np.abs(part - np.array(colour)).max(axis=2) < 8).mean()


@pytest.mark.parametrize("name", ["draw", "report"])
def test_a_second_process_in_one_folder_is_refused(toy, tmp_path, capsys, name):
    folder = pictures(tmp_path / "mine", 1)
    run = write_run(tmp_path / "run", [own("mine/000.png")], dataset=str(toy / "data"), input=[str(folder)])
    with folder_lock(tmp_path / "out", beside=name == "report"):
        assert sgrl([name, run, "--output", str(tmp_path / "out")]) == 1
    assert "out is being written by process" in capsys.readouterr().err


def test_colours_say_what_is_right_near_and_hallucinated(toy, tmp_path):
    rows = DatasetRows(str(toy / "data"), "test")
    row = rows[0]
    truth = CODEC.decode(row["solution"], 96, 96, tags=False)
    first, second = truth.objects[:2]
    others = [
        label for label in ("circle", "square", "triangle", "cross") if label not in {o.label for o in truth.objects}
    ]
    x, y = (0 if first.box[0] > 40 else 60), (0 if second.box[1] > 40 else 60)
    text = "obj[3]{id,name,x1,y1,x2,y2}:\n"
    text += (
        f"  1,{first.label},{','.join(f'{v:g}' for v in first.box)}\n  2,{second.label},{x},{y},{x + 30},{y + 30}\n"
    )
    text += f"  3,{others[0]},30,88,66,95\nrel[0]{{subj,pred,obj}}:"
    sample = (answer.wrap(text), row["solution"], 96, 96)
    metrics = SceneGraphMetrics("toon", 96, 96)
    kept = {key: row[key] for key in ("dataset", "image_id", "solution", "width", "height")}
    kept |= {"prediction": sample[0], "score": metrics.add(*sample), "matched": metrics.compare(*sample).matched}
    run = write_run(tmp_path / "run", [kept], dataset=str(toy / "data"), split="test")
    assert sgrl(["draw", run, "--output", str(tmp_path / "out")]) == 0
    (file,) = (tmp_path / "out").iterdir()
    drawn = Image.open(file)
    assert file.name == f"{row['image_id']}.png" and drawn.width == 480 and 480 < drawn.height < 560
    for box, state in ((first.box, RIGHT), ((x, y, x + 30, y + 30), NEAR), ((30, 88, 66, 95), WRONG)):
        x1, y1, x2, y2 = (5 * value for value in box)  # five times as large
        rows_of_edge = [share(drawn, (x1 + 4, y, x2 - 4, y + 1), COLOURS[state]) for y in np.arange(y2 - 4, y2 + 1)]
        assert max(rows_of_edge) > 0.9, state


def test_own_images_and_videos_have_a_colour_for_each_object(toy, tmp_path):
    import cv2

    folder = pictures(tmp_path / "clip", 7)
    rows = [own(f"clip/{n:03d}.png", video_id="clip", frame=n) for n in (3, 0, 1, 2, 4, 5, 6)]
    rows[2]["prediction"] = "I see nothing."
    info = {"dataset": str(toy / "data"), "split": None, "input": [str(folder)], "context": "generated"}
    run = write_run(tmp_path / "run", rows, **info)
    main([run, "--output", str(tmp_path / "out"), "--fps", "5"])
    frames = sorted((tmp_path / "out/clip").iterdir())
    assert [frame.name for frame in frames] == [f"{n:06d}.png" for n in range(7)]
    sizes = {Image.open(frame).size for frame in frames}
    (size,) = sizes
    capture = cv2.VideoCapture(str(tmp_path / "out/clip.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(5)
    read = []
    while (frame := capture.read())[0]:
        read.append(frame[1][:, :, ::-1])
    assert len(read) == 7 and read[0].shape[1::-1] == size
    first = np.asarray(Image.open(frames[0]).convert("RGB")).astype(int)
    assert np.abs(first - read[0]).mean() < 4  # compressed, but the same
    # edges of two boxes: two colours, neither of them the background's
    colours = [first[5 * y2 - 2, 5 * x - 20] for x, y2 in ((32, 32), (88, 88))]
    assert all(colour.std() > 20 for colour in colours) and np.abs(colours[0] - colours[1]).max() > 60
    empty = np.asarray(Image.open(frames[1]).convert("RGB"))[:480]
    assert empty.std() < 3, "no graph could be read: nothing is drawn"
    assert not [path for path in tmp_path.rglob("*.part*")]


def test_a_report_of_own_images_has_pictures_and_no_figures(toy, tmp_path, capsys):
    folder = pictures(tmp_path / "mine", 2)
    run = write_run(
        tmp_path / "run", [own(f"mine/{n:03d}.png") for n in range(2)], dataset=str(toy / "data"), input=[str(folder)]
    )
    report([run, "--output", str(tmp_path / "page.html")])
    page = (tmp_path / "page.html").read_text()
    assert "<h2>Results" not in page and 'value="worst"' not in page and page.count("data:image/png;base64") == 2
    assert '"reference":null' in page and "All 2 images." in capsys.readouterr().out


def test_names_of_files_are_safe_and_distinct(toy, tmp_path):
    assert file_name("../../etc/passwd") == "etc_passwd" and file_name("...") == "image"
    folder = pictures(tmp_path / "a", 2)
    (folder / "000.png").rename(folder / "x y.png")
    (folder / "001.png").rename(folder / "x_y.png")
    run = write_run(
        tmp_path / "run", [own("a/x y.png"), own("a/x_y.png")], dataset=str(toy / "data"), input=[str(folder)]
    )
    main([run, "--output", str(tmp_path / "out")])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_x_y-2.png", "a_x_y.png"]


def test_a_graph_of_hundreds_is_drawn_and_bounded(toy, tmp_path):
    rows = "\n".join(f"  {i},{'x' * 190},-1e9,3,1e300,50" for i in range(1, 151))
    relations = "\n".join(f"  {i % 150 + 1},{'y' * 190},{(i + 7) % 150 + 1}" for i in range(300))
    text = f"<answer>\nobj[150]{{id,name,x1,y1,x2,y2}}:\n{rows}\nrel[300]{{subj,pred,obj}}:\n{relations}\n</answer>"
    folder = pictures(tmp_path / "a", 1)
    run = write_run(
        tmp_path / "run", [own("a/000.png", prediction=text)], dataset=str(toy / "data"), input=[str(folder)]
    )
    main([run, "--output", str(tmp_path / "out")])
    (file,) = (tmp_path / "out").iterdir()
    assert Image.open(file).height < 480 + 14 * 20


def test_what_is_wrong_is_said(toy, tmp_path, monkeypatch):
    folder = pictures(tmp_path / "clip", 2)
    info = {"dataset": str(toy / "data"), "input": [str(folder)], "context": "generated"}
    run = write_run(tmp_path / "run", [own(f"clip/{n:03d}.png", video_id="clip", frame=n) for n in (0, 1)], **info)
    for arguments, message in (
        (["--limit", "0"], "--limit is 0"),
        (["--fps", "0"], "--fps is 0.0, expected more than 0"),
    ):
        with pytest.raises(SgrlError, match=message):
            main([run, "--output", str(tmp_path / "out"), *arguments])
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SgrlError, match=r"clip.mp4: writing videos needs cv2: pip install 'sgrl\[thin\]'"):
        main([run, "--output", str(tmp_path / "out")])
    monkeypatch.undo()
    (folder / "001.png").write_bytes(b"not an image")
    with pytest.raises(SgrlError, match="001.png"):
        main([run, "--output", str(tmp_path / "out")])
    (folder / "001.png").unlink()
    with pytest.raises(SgrlError, match="lacks 1 of 2 predicted images, such as 'clip/001.png'"):
        main([run, "--output", str(tmp_path / "out")])
