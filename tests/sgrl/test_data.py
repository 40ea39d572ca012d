"""Loading checks what would fail hours later, and says what to change."""

import io

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from data_prep.writer import DatasetWriter
from sgrl import data
from sgrl.errors import SgrlError
from sgrl.text import answer
from sgrl.vocabulary import Vocabulary, get_vocabulary

SOLUTION = "obj[2]{id,name,x1,y1,x2,y2}:\n  1,cat,0,0,20,30\n  2,mat,0,20,40,40\nrel[1]{subj,pred,obj}:\n  1,on,2"
METADATA = {
    "codec": "toon",
    "coords": "pixel",
    "vocabulary": data.vocabulary_to_json(Vocabulary("v", ("cat", "mat"), ("on",))),
    "prompt": "short",
    "command": "x",
    "length": "characters",
}


def row(number=0, **changes):
    found = {
        "image": {"bytes": b"", "path": None},
        "prompt": [{"role": "user", "content": "Write."}],
        "completion": [{"role": "assistant", "content": answer.wrap(SOLUTION)}],
        "solution": SOLUTION,
        "width": 40,
        "height": 40,
        "dataset": "v",
        "image_id": str(number),
        "length": 100 + number,
    }
    return {**found, **changes}


def chat(*roles):
    return [{"role": role, "content": "x"} for role in roles]


def write(folder, rows, metadata=METADATA, split="train"):
    with DatasetWriter(folder, metadata) as writer:
        for entry in rows:
            writer.add(split, entry)
    return folder


def test_round_trip(tmp_path):
    folder = write(tmp_path / "d", [row(i) for i in range(3)])
    found = data.load(folder, "train")
    assert list(found.features) == list(data.COLUMNS)
    assert {**found.features, "image": data.features()["image"]} == data.features()
    assert found.remove_columns("image")[2] == {key: value for key, value in row(2).items() if key != "image"}
    assert data.read_metadata(folder) == METADATA
    assert data.vocabulary_of(METADATA) == Vocabulary("v", ("cat", "mat"), ("on",))
    (file,) = data.files(folder, "train")
    assert data.load(file).num_rows == 3


def test_vocabulary_with_groups_survives():
    vocabulary = get_vocabulary("action_genome")
    assert data.vocabulary_of({"vocabulary": data.vocabulary_to_json(vocabulary)}) == vocabulary


def test_missing_folder_split_and_files(tmp_path):
    with pytest.raises(SgrlError, match="nowhere does not exist"):
        data.load(tmp_path / "nowhere")
    with pytest.raises(SgrlError, match="holds no train-"):
        data.load(tmp_path)
    folder = write(tmp_path / "d", [row()])
    with pytest.raises(SgrlError, match="no split 'test'"):
        data.load(folder, "test")
    with pytest.raises(SgrlError, match="no split 'trian'; did you mean 'train'"):
        data.load(folder, "trian")


BAD_ROWS = {
    "placeholder": (
        {"prompt": [{"role": "user", "content": "<image>Write."}]},
        "'prompt' contains '<image>'. The trainer puts the image before",
    ),
    "model's placeholder": ({"prompt": [{"role": "user", "content": "a <|image_pad|>"}]}, "image_pad"),
    "role": (
        {"prompt": [{"role": "assistant", "content": "x"}]},
        "the roles in 'prompt' are assistant; expected from the user",
    ),
    "two of one role": (
        {"prompt": [{"role": "user", "content": "x"}] * 2},
        "the roles in 'prompt' are user user; exp",
    ),
    "the assistant's last": ({"prompt": chat("user", "assistant")}, "the roles in 'prompt' are user assistant; exp"),
    "the system's late": (
        {"prompt": chat("user", "system", "user")},
        "the roles in 'prompt' are user system user; exp",
    ),
    "no role": ({"prompt": [{"role": None, "content": "x"}]}, "the roles in 'prompt' are none; expected"),
    "no text": ({"prompt": [{"role": "user", "content": None}]}, "a message of 'prompt' is empty"),
    "two answers": ({"completion": chat("assistant", "user", "assistant")}, "expected one from the assistant"),
    "no message": (
        {"completion": []},
        "'completion' must be a list of messages .one from the assistant., found a row",
    ),
    "null": ({"prompt": None}, "'prompt' must be a list of messages .*found a row without"),
    "empty": ({"prompt": [{"role": "user", "content": ""}]}, "a message of 'prompt' is empty"),
    "no tags": ({"completion": [{"role": "assistant", "content": SOLUTION}]}, "must begin with <answer>"),
    "reference": (
        {"solution": SOLUTION.replace("rel[1]", "rel[3]")},
        "row 1 .image_id 5.: the solution is not a valid",
    ),
    "reference null": ({"solution": None}, "the solution is not a valid 'toon' text"),
    "box outside": ({"width": 10}, "the solution is not a valid 'toon' text: .*0 <= x1 < x2 <= 10"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_row(tmp_path, name):
    changes, message = BAD_ROWS[name]
    folder = write(tmp_path / "d", [row(), row(5, **changes)])
    with pytest.raises(SgrlError, match=message):
        data.load(folder)


def test_missing_column_and_metadata(tmp_path):
    table = pa.Table.from_pylist([row()], schema=data.schema(METADATA))
    parquet.write_table(table.drop_columns(["solution", "length"]), tmp_path / "train-0.parquet")
    with pytest.raises(SgrlError, match="lacks the columns solution, length .found image, prompt"):
        data.load(tmp_path)
    parquet.write_table(table.replace_schema_metadata({}), tmp_path / "train-0.parquet")
    with pytest.raises(SgrlError, match="carries no 'sgrl' metadata"):
        data.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 500, -9])
def test_damaged_file(tmp_path, keep):
    folder = write(tmp_path / "d", [row(i) for i in range(50)])
    (file,) = data.files(folder)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(SgrlError, match="is not a readable Parquet file .*convert or copy it again"):
        data.load(folder)


def test_damaged_page(tmp_path):
    folder = write(tmp_path / "d", [row(i) for i in range(50)])
    (file,) = data.files(folder)
    content = bytearray(file.read_bytes())
    content[20:200] = bytes(180)
    file.write_bytes(content)
    with pytest.raises(SgrlError, match="damaged .*convert or copy it again"):
        data.load(folder)


def test_files_of_two_conversions(tmp_path):
    folder = write(tmp_path / "d", [row()])
    other = write(tmp_path / "e", [row()], {**METADATA, "codec": "json"}, split="test")
    data.files(other)[0].rename(folder / "test-00000-of-00001.parquet")
    with pytest.raises(SgrlError, match="differ in 'codec'.*remove the stale"):
        data.load(folder)


@pytest.mark.parametrize("video", [False, True])
def test_schema_is_the_one_that_datasets_would_write(video):
    own, theirs = data.schema(METADATA, video), data.features(video).arrow_schema
    assert own.equals(theirs)
    assert own.metadata == {**theirs.metadata, b"sgrl": own.metadata[b"sgrl"]}


def test_missing_file_of_a_set(tmp_path):
    folder = write(tmp_path / "d", [row(0)])
    (file,) = data.files(folder)
    file.rename(folder / "train-00001-of-00002.parquet")
    with pytest.raises(SgrlError, match="holds 1 files of the split train, but their names say 2.*interrupted"):
        data.load(folder)


def test_images_are_decoded_by_the_one_function(tmp_path):
    """Also after the rows were selected, taken apart and handed to a trainer's transform."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("L", (40, 30), 200).save(file, "JPEG", exif=exif)
    images = [{"bytes": data, "path": None} for data in (file.getvalue(), file.getvalue()[:-20], b"%!PS-Adobe-3.0")]
    rows = data.load(write(tmp_path / "d", [row(i, image=image) for i, image in enumerate(images)]), "train")
    for found in (rows, rows.select([0, 1]), rows.select_columns(["image"]).with_transform(lambda batch: batch)):
        image = found[0]["image"]
        assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (30, 40), (200, 200, 200))
    for i in (1, 2):
        with pytest.raises(SgrlError, match="image does not open: "):
            rows[i]
