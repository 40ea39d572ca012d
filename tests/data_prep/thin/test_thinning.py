"""Thinning a data set: BaseAnnot against its definition, and the pass over a reader that all methods share."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.readers.record import Record, RecordError
from data_prep.thin import METHODS, thin
from data_prep.thin.base_annot import BaseAnnot, changes, overlap
from data_prep.thin.thinning import LabelSets, open_method, union
from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.vocabulary import Vocabulary, get_vocabulary

VOCABULARY = Vocabulary("zoo", ("cat", "dog", "cow"), ("on", "under", "beside"))


class ListReader:
    """A reader of records that are there already."""

    name, source, default_size, codec = "zoo", Path("zoo.json"), (640, 480), "toon"

    def __init__(self, records, vocabulary=VOCABULARY):
        self._records, self.vocabulary, self.notes = records, vocabulary, Counter()

    def records(self, on_damage=None):
        for record in self._records:
            if isinstance(record, RecordError):
                on_damage(record)
            else:
                yield record


def graph(*labels: str, relations=()) -> SceneGraph:
    return SceneGraph([Object(label, (0, 0, 9, 9)) for label in labels], [Relation(*r) for r in relations], 10, 10)


def video(split: str, name: str, graphs, folder=Path()) -> list[Record]:
    return [
        Record(f"{name}_{i}", folder / name / f"{i:04d}.png", found, split, f"{name}, frame {i}", name, i)
        for i, found in enumerate(graphs)
    ]


# --- base-annot ---


def changed(protocol: str, *graphs: SceneGraph, vocabulary=VOCABULARY) -> list[int]:
    method = BaseAnnot(vocabulary, BaseAnnot.Options(protocol))
    return method.select(video("train", "v", graphs), None)


def test_what_counts_as_a_change():
    cat_on_dog = graph("cat", "dog", relations=[(0, "on", 1)])
    cat_under_dog = graph("cat", "dog", relations=[(0, "under", 1)])
    dog_on_cat = graph("cat", "dog", relations=[(1, "on", 0)])
    both = graph("cat", "dog", relations=[(0, "on", 1), (1, "under", 0)])
    for protocol, kept in (("default", [0, 2, 3, 4]), ("published", [0, 4])):
        assert changed(protocol, cat_on_dog, cat_on_dog, cat_under_dog, dog_on_cat, both) == kept
    for protocol in ("default", "published"):
        # a second cat is no new label, a cow is; what went comes back
        assert changed(protocol, graph("cat"), graph("cat", "cat"), graph("cat", "cow"), graph("cat")) == [0, 2, 3]
        # repeated relations and those of an object to itself are none
        twice = graph("cat", "dog", relations=[(0, "on", 1), (0, "on", 1), (0, "on", 0)])
        assert changed(protocol, cat_on_dog, twice) == [0]
        assert changed(protocol) == []


def test_labels_outside_the_vocabulary():
    graphs = [graph("cat"), graph("cat", "unicorn"), graph("cat", "cat", relations=[(0, "riding", 1)])]
    assert changed("default", *graphs) == [0]
    assert changed("published", *graphs) == [0, 1, 2]


def test_pairs_count_once_where_relations_are_in_groups():
    vocabulary = get_vocabulary("action_genome")
    looking = [(0, "looking_at", 1, "attention")]
    more = [*looking, (0, "in_front_of", 1, "spatial"), (0, "holding", 1, "contacting")]
    graphs = [graph("person", "dish", relations=relations) for relations in (looking, more)]
    assert changed("published", *graphs, vocabulary=vocabulary) == [0]
    assert changed("default", *graphs, vocabulary=vocabulary) == [0, 1]


def shown(labels: str) -> int:
    return sum(1 << (ord(label) - ord("a")) for label in set(labels))


def test_overlap_is_repeated_until_it_holds():
    # z is only in test; without that frame no b is left there, and so on
    splits = {"train": [shown("a"), shown("bc"), shown("ac")], "test": [shown("a"), shown("bz"), shown("ac")]}
    assert overlap(splits) == {"train": {shown("a"), shown("ac")}, "test": {shown("a"), shown("ac")}}
    assert overlap({"train": [shown("axy")], "test": [shown("ax")]}) == {"train": set(), "test": set()}
    assert overlap({"train": [shown("ab")]}) == {"train": {shown("ab")}}
    assert overlap({}) == {}


LABEL_SETS = st.lists(st.builds(shown, st.text("abcdefg", max_size=4)), max_size=12)


@given(LABEL_SETS, LABEL_SETS)
def test_overlap_is_the_published_rule(train, test):
    left = train, test
    for _ in range(100):
        in_train, in_test = map(union, left)
        rest = [x for x in left[0] if not x & in_train & ~in_test], [x for x in left[1] if not x & in_test & ~in_train]
        if rest == left:
            break
        left = rest
    assert overlap({"train": train, "test": test}) == {"train": set(left[0]), "test": set(left[1])}


def test_label_sets():
    label_sets = LabelSets(VOCABULARY)
    one = label_sets.of(graph("cat", "cat", "dog", relations=[(0, "on", 2)]))
    assert one == label_sets.of(graph("dog", "cat", relations=[(0, "on", 1), (1, "on", 0)]))
    assert (one & label_sets.objects).bit_count() == 2 and (one & label_sets.predicates).bit_count() == 1
    unknown = label_sets.of(graph("on", "cat", relations=[(0, "cat", 1)]))
    assert unknown & (label_sets.objects | label_sets.predicates) == label_sets.of(graph("cat"))
    assert unknown.bit_count() == 3 and label_sets.of(graph()) == 0


@given(st.lists(st.integers(0, 2)))
def test_changes(annotations):
    kept = changes(annotations)
    assert kept[:1] == [0][: len(annotations)]
    last = None
    for position, annotation in enumerate(annotations):
        assert (position in kept) == (position == 0 or annotation != last)
        last = annotation  # equal to the last kept one whether or not this frame was kept


# --- the pass over a reader ---


def zoo() -> list:
    cat, dog = graph("cat"), graph("cat", "dog", relations=[(0, "on", 1)])
    cow = graph("cow", "dog", relations=[(0, "beside", 1)])
    return [
        *video("train", "a", [cat, cat, dog, dog]),
        RecordError("zoo.json, record 4", "is damaged"),
        *video("train", "b", [cow, dog]),
        *video("test", "c", [dog, cat, cat]),
    ]


def test_base_annot_of_a_data_set():
    outcome = thin(ListReader(zoo()), "base-annot")
    assert outcome.kept == {"train": {"a_0", "a_2", "b_1"}, "test": {"c_0", "c_1"}}
    train, test = outcome.rows
    assert (train.videos, train.frames, train.kept, train.unreadable) == (2, 6, 3, 0)
    assert (train.objects, train.predicates) == ((2, 3), (1, 2))
    assert (test.objects, test.predicates) == ((2, 2), (1, 1))
    assert [outcome.keeps(record) for record in zoo() if isinstance(record, Record)] == [
        *[True, False, True, False],
        *[False, True],
        *[True, True, False],
    ]
    assert outcome.table() == (
        "thinned by base-annot                      train        test\n"
        "videos                                         2           1\n"
        "frames read                                    6           3\n"
        "frames kept                                    3           2\n"
        "  of those read                           50.0 %      66.7 %\n"
        "object labels kept                        2 of 3      2 of 2\n"
        "predicates kept                           1 of 2      1 of 1"
    )


def test_base_annot_looks_at_all_splits():
    assert thin(ListReader(zoo()), "base-annot", ["train"]).kept["train"] == {"a_0", "a_2", "b_1"}
    only_train = [record for record in zoo() if isinstance(record, Record) and record.split == "train"]
    assert thin(ListReader(only_train), "base-annot").kept["train"] == {"a_0", "a_2", "b_0", "b_1"}


def test_nothing_in_common(tmp_path):
    records = [*video("train", "a", [graph("cat")]), *video("test", "b", [graph("dog")])]
    outcome = thin(ListReader(records), "base-annot")
    assert outcome.kept == {"train": set(), "test": set()}
    assert [row.objects for row in outcome.rows] == [(0, 1), (0, 1)]
    assert "0.0 %" in outcome.table()
    assert thin(ListReader([]), "base-annot").rows == []


@given(st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from(["cat", "dog", "cow", "unicorn"]))), max_size=8))
@settings(max_examples=50, deadline=None)
def test_the_rows_add_up(videos):
    records = []
    for number, (test, labels) in enumerate(videos):
        records += video("test" if test else "train", f"v{number}", [graph(label) for label in labels])
    for protocol in ("default", "published"):
        outcome = thin(ListReader(records), "base-annot", protocol=protocol)
        by_id = {record.image_id: record for record in records}
        for row in outcome.rows:
            assert row.frames == sum(record.split == row.split for record in records)
            kept = [by_id[image_id] for image_id in outcome.kept[row.split]]
            assert len(kept) == row.kept <= row.frames
            shown = {o.label for record in kept for o in record.graph.objects} & set(VOCABULARY.objects)
            assert len(shown) == row.objects[0] <= row.objects[1] <= 3


def painted(folder: Path, split: str, name: str, seeds) -> list[Record]:
    """A video whose frames look different where the seeds are."""
    records = video(split, name, [graph("cat", "dog", relations=[(0, "on", 1)])] * len(seeds), folder)
    (folder / name).mkdir(parents=True)
    for record, seed in zip(records, seeds, strict=True):
        rng = np.random.default_rng(seed)
        picture = np.kron(rng.integers(0, 256, (12, 16, 3)), np.ones((10, 10, 1)))
        Image.fromarray(picture.astype(np.uint8)).save(record.image)
    return records


def test_psfr_of_a_data_set(tmp_path):
    pytest.importorskip("cv2")
    records = [*painted(tmp_path, "train", "a", [1, 1, 2, 2, 3]), *painted(tmp_path, "test", "b", [4, 4, 4, 5])]
    records[1].image.unlink()
    records[6].image.write_bytes(records[6].image.read_bytes()[:300])
    outcome = thin(ListReader(records), "psfr")
    assert outcome.kept == {"train": {"a_0", "a_2", "a_4"}, "test": {"b_0", "b_3"}}
    assert [row.unreadable for row in outcome.rows] == [1, 1] and len(outcome.unreadable) == 2
    assert "a/0001.png does not exist" in outcome.unreadable[0] and "b/0001.png does not open" in outcome.unreadable[1]
    assert "  unreadable                                   1           1\n" in outcome.table()
    only_test = thin(ListReader(records), "psfr", ["test"], retention=0.5, patches=3)
    assert only_test.kept == {"test": {"b_0", "b_3"}}


def test_published_psfr_sorts_by_file_name(tmp_path):
    pytest.importorskip("cv2")
    records = painted(tmp_path, "train", "a", [1, 2, 1])
    renamed = [
        Record(r.image_id, r.image.rename(r.image.with_name(name)), r.graph, r.split, r.place, r.video_id, r.frame)
        for r, name in zip(records, ("9.png", "10.png", "100.png"), strict=True)
    ]
    # by name: 10.png (2), 100.png (1), 9.png (1)
    assert thin(ListReader(renamed), "psfr", protocol="published").kept == {"train": {"a_1", "a_2"}}
    assert thin(ListReader(renamed), "psfr").kept == {"train": {"a_0", "a_1", "a_2"}}


class MeanColours:
    """Stands where a model does: the mean colour of each quarter of a frame."""

    def features(self, frames, unreadable, video):
        rows = []
        for frame in frames:
            if frame.exists():
                rows.append(np.asarray(Image.open(frame).resize((2, 2)), np.float32).ravel())
            else:
                unreadable(f"{video}: {frame} is gone")
                rows.append(np.full(12, np.nan, np.float32))
        return np.array(rows)


def test_maxinfo_of_a_data_set(tmp_path):
    records = [*painted(tmp_path, "train", "a", range(20)), *painted(tmp_path, "train", "b", [7] * 4)]
    records[3].image.unlink()
    outcome = thin(ListReader(records), "maxinfo", ratio=0.5, model=MeanColours())
    assert len(outcome.kept["train"]) == 10 + 2 and "a_3" not in outcome.kept["train"]
    assert outcome.rows[0].unreadable == 1
    assert len(thin(ListReader(records), "maxinfo", count=6, model=MeanColours()).kept["train"]) == 6 + 4


@pytest.mark.parametrize(
    "message, name, options",
    [
        ("unknown thinning method 'pfsr'; did you mean 'psfr'", "pfsr", {}),
        ("maxinfo has no option 'tolerence'; did you mean 'tolerance'", "maxinfo", {"tolerence": 1}),
        ("has no option 'vocabulary'", "base-annot", {"vocabulary": 1}),
        ("unknown protocol 'publish'", "base-annot", {"protocol": "publish"}),
        ("count and ratio both say", "maxinfo", {"count": 1, "ratio": 0.5}),
    ],
)
def test_wrong_arguments(message, name, options):
    with pytest.raises(SgrlError, match=message):
        thin(ListReader(zoo()), name, **options)


def test_every_method_opens():
    for name in METHODS:
        options = {"model": MeanColours()} if name == "maxinfo" else {}
        assert hasattr(open_method(name, VOCABULARY, options), "select")


def test_missing_package_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "data_prep.thin.psfr", raising=False)
    with pytest.raises(SgrlError, match=r"thinning by psfr needs cv2: pip install 'sgrl\[thin\]'"):
        thin(ListReader(zoo()), "psfr")


def test_images_without_videos_and_scattered_frames():
    record = Record("1", Path("1.png"), graph("cat"), "train", "record 0")
    with pytest.raises(SgrlError, match="zoo has images that belong to no video"):
        thin(ListReader([record]), "base-annot")
    first, second = video("train", "a", [graph("cat")] * 2)
    (between,) = video("train", "b", [graph("cat")])
    with pytest.raises(SgrlError, match=r"frames of video a \(train\) do not lie next to each other"):
        thin(ListReader([first, between, second]), "base-annot")


def test_one_video_in_memory_at_a_time():
    """The reader is asked for a video after the one before it has been dealt with."""
    import weakref

    class Held(SceneGraph):
        __slots__ = ("__weakref__",)

    alive: list[weakref.ref] = []
    most = 0

    def records():
        nonlocal most
        for number in range(30):
            for i in range(5):
                found = Held((Object("cat", (0, 0, 1, 1)),), (), 10, 10)
                alive.append(weakref.ref(found))
                most = max(most, sum(ref() is not None for ref in alive))
                yield Record(f"{number}_{i}", Path("x"), found, "train", "", str(number), i)

    thin(ListReader(records()), "base-annot")
    assert most <= 12
