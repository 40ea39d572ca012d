"""Readers of one's own: a dotted path on the command line, from records to rows, and errors that name it."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from data_prep import to_toon
from data_prep.readers import READERS, open_reader
from data_prep.readers.record import Record, attempt
from sgrl import data
from sgrl.dotted import load
from sgrl.errors import SettingError, SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.text import get_codec
from sgrl.vocabulary import Vocabulary

HERE = __name__


class Toy:
    """A few images of a cat on a mat. count: how many; the last one has a box that is none."""

    name = "cats"
    vocabulary = Vocabulary("cats", ("cat", "mat"), ("on",))

    def __init__(self, root, validation: int = 0):
        self.source = Path(root) / "cats.txt"
        self.validation = validation

    def records(self, on_damage=None):
        for number, word in enumerate(self.source.read_text().split()):
            record = attempt(on_damage, f"cats.txt, word {number}", self.record, number, word)
            if record is not None:
                yield record

    def record(self, number, word):
        objects = [Object("cat", (float(word), 2, 8, 9)), Object("mat", (0, 5, 20, 20))]
        graph = SceneGraph(objects, [Relation(0, "on", 1)], 20, 20)
        split = "val" if number < self.validation else "train"
        image = self.source.with_name("cat.png")
        return Record(f"cat-{number}", image, graph, split, f"cats.txt, word {number}")


class Other(Toy):
    """Another reader of the same file, under the same name."""


class Nameless(Toy):
    name = None


class Typed(Toy):
    vocabulary = ("cat", "mat")


class Elsewhere(Toy):
    def __init__(self, root):
        self.source = Path(root) / "dogs.txt"


class Rows(Toy):
    def records(self, on_damage=None):
        yield {"image": "cat.png"}


class Breaks(Toy):
    def records(self, on_damage=None):
        yield from super().records(on_damage)
        raise KeyError("tail")


class Unguarded(Toy):
    def records(self, on_damage=None):
        yield self.record(0, "nan")


def raises(root):
    raise OSError("no such share")


def returns_nothing(root):
    return None


@pytest.fixture
def root(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "cats.txt").write_text("1 3 x 4")
    Image.new("RGB", (20, 20)).save(tmp_path / "cats" / "cat.png")
    return tmp_path / "cats"


def run(root, reader: str, *more) -> int:
    words = ["--layout", reader, "--root", root, "--output", root.parent / "rows", "--resize", "keep", *more]
    return to_toon.main([str(word) for word in words])


def test_a_reader_from_a_test_converts(root, capsys):
    assert run(root, f"{HERE}:Toy", "--validation", "1") == 0
    rows = data.load(root.parent / "rows", "train")
    assert [row["image_id"] for row in rows] == ["cat-1", "cat-3"]
    graph = get_codec("toon").decode(rows[0]["solution"], 20, 20, tags=False)
    assert [o.box for o in graph.objects] == [(3, 2, 8, 9), (0, 5, 20, 20)]
    assert [(r.subject, r.predicate, r.object) for r in graph.relations] == [(0, "on", 1)]
    assert rows[0]["dataset"] == "cats" and rows[0]["image"].size == (20, 20)
    assert [row["image_id"] for row in data.load(root.parent / "rows", "val")] == ["cat-0"]
    assert "cats.txt, word 2" in (root.parent / "rows" / "damaged.txt").read_text()
    assert run(root, f"{HERE}:Toy", "--validation", "1") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert run(root, f"{HERE}:Other", "--validation", "1") == 1
    assert f"holds a data set made by: sgrl convert --layout {HERE}:Toy" in capsys.readouterr().err


def test_jobs_of_an_array_share_it(root):
    for index in (0, 1):
        assert run(root, f"{HERE}:Toy", "--shard-index", index, "--num-shards", 2) == 0
    assert sorted(row["image_id"] for row in data.load(root.parent / "rows", "train")) == ["cat-0", "cat-1", "cat-3"]


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        ("nowhere_at_all:Toy", "there is no module 'nowhere_at_all'"),
        (f"{HERE}:Tory", "has no 'Tory'; did you mean 'Toy'?"),
        (f"{HERE}:HERE", "is no function but a value of type str"),
        (f"{HERE}:raises", r"raised OSError: no such share \(.*test_own.py, line \d+\)"),
        (f"{HERE}:returns_nothing", "returned a NoneType whose name is missing; expected a str"),
        (f"{HERE}:Nameless", "returned a Nameless whose name is None; expected a str"),
        (f"{HERE}:Typed", r"whose vocabulary is \('cat', 'mat'\); expected a Vocabulary"),
        (f"{HERE}:Elsewhere", "its source .*dogs.txt does not exist; expected the annotation file"),
        (f"{HERE}:Rows", "gave a dict as a record; expected data_prep.readers.record.Record"),
        (f"{HERE}:Breaks", r"raised KeyError: 'tail' \(.*test_own.py, line \d+\)"),
        (f"{HERE}:Unguarded", "nan.*; data_prep.readers.record.attempt makes it damage of one record"),
    ],
)
def test_a_reader_of_no_use_is_named(root, capsys, reader, message):
    assert run(root, reader) == 2
    printed = capsys.readouterr().err
    assert re.search(f"to_toon: --layout: '{reader}'.*{message}", printed), printed
    assert "Traceback" not in printed and not (root.parent / "rows").exists()


def test_an_option_that_it_does_not_have(root):
    with pytest.raises(SgrlError, match=f"{HERE}:Toy has no option 'frame_rule'; choose one of: validation"):
        open_reader(f"{HERE}:Toy", root, frame_rule="all")
    with pytest.raises(SettingError, match="^--layout: 'builtins:dict': raised ValueError"):
        open_reader("builtins:dict", root)


def test_parts_that_only_official_readers_have(root):
    class Selects(Toy):
        wanted = None

    reader = open_reader(f"{HERE}:Toy", root)
    assert reader.default_size == (640, 480) and reader.codec == "toon" and not reader.notes and reader.totals() == {}
    assert not hasattr(reader, "wanted")
    inner = Selects(root)
    outer = type(reader)("x:y", inner)
    outer.wanted = len
    assert inner.wanted is len


def test_every_line_of_the_table_is_there():
    for path in READERS.values():
        assert callable(load(path))


def test_the_example_of_the_documentation(root, tmp_path, monkeypatch):
    text = (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.M | re.S)
    (command,) = re.findall(r"^sgrl convert (--layout my_data:.*)$", text, flags=re.M)
    (tmp_path / "my_data.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    row = {"file": "cat.png", "size": [20, 20], "objects": [["cat", 1, 2, 8, 9], ["mat", 0, 5, 20, 20]]}
    lines = [{**row, "relations": [[0, "on", 1]]}, {**row, "relations": [[0, "on", 7]]}]
    (root / "graphs.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    words = command.replace("DIR", str(root)).replace("OUT", str(tmp_path / "rows")).split()
    assert to_toon.main(words) == 0
    assert [row["image_id"] for row in data.load(tmp_path / "rows", "train")] == ["cat.png"]
    assert "line 2" in (tmp_path / "rows" / "damaged.txt").read_text()
