"""The previous graph: one prompt text in training and at inference, noise that is seeded and keeps to the layout."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgrl.context import (
    LONGEST,
    TRAINING_CONTEXTS,
    ContextTransform,
    Noise,
    corrupt,
)
from sgrl.data import vocabulary_to_json
from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.prompts import split_previous, with_context
from sgrl.text import get_codec
from sgrl.vocabulary import Vocabulary, get_vocabulary

VOCABULARY = Vocabulary("toy", ("circle", "big square", "cup"), ("left of", "inside"))
QUIET = dict.fromkeys(Noise.__dataclass_fields__, 0.0)
GRAPH = SceneGraph(
    (Object("circle", (10, 10, 40, 40)), Object("big-square", (50, 5, 90, 45)), Object("cup", (0, 60, 30, 96))),
    (Relation(0, "left-of", 1), Relation(2, "inside", 1)),
    96,
    96,
)
TEXT = get_codec("toon").encode(GRAPH)


def metadata(codec="toon", vocabulary=VOCABULARY, **more):
    return {"codec": codec, "coords": "pixel", "previous": "gt", "vocabulary": vocabulary_to_json(vocabulary)} | more


def only(**rates):
    return Noise(**QUIET | rates)


def rows(count=1, text=TEXT):
    chats = [[{"role": "user", "content": "Write."}] for _ in range(count + 1)]
    frame = {"width": [96] * (count + 1), "height": [96] * (count + 1)}
    return {"prompt": chats, "previous": [None, *[text] * count]} | frame


def contexts(transform, batch):
    return [split_previous(prompt[0]["content"])[1] for prompt in transform(batch)["prompt"]]


def test_none_and_gt():
    assert contexts(ContextTransform("gt", metadata()), rows()) == [None, TEXT]
    assert contexts(ContextTransform("none", metadata()), rows()) == [None, None]
    assert contexts(ContextTransform("corrupted", metadata(), only()), rows()) == [None, TEXT]


def test_training_and_inference_write_the_same_prompt():
    transform = ContextTransform("corrupted", metadata(), only(relabel=1.0))
    prompt = transform(rows())["prompt"][1]
    previous = split_previous(prompt[0]["content"])[1]
    assert previous != TEXT
    assert with_context([{"role": "user", "content": "Write."}], previous) == prompt


def test_each_kind_of_noise_does_what_it_says():
    def made(**rates):
        return corrupt(GRAPH, VOCABULARY, only(**rates), random.Random(1))

    labels = [o.label for o in GRAPH.objects]
    assert made() == GRAPH
    assert made(drop=1.0).objects == ()
    assert all(a.label != b for a, b in zip(made(relabel=1.0).objects, labels, strict=True))
    moved = made(jitter=0.2)
    assert [o.label for o in moved.objects] == labels and [o.box for o in moved.objects] != [
        o.box for o in GRAPH.objects
    ]
    assert len(made(insert=1.0).objects) == 6 and len(made(insert=1.0).relations) == 2
    assert made(drop_relation=1.0).relations == () and made(drop_relation=1.0).objects == GRAPH.objects
    assert [r.predicate for r in made(swap_predicate=1.0).relations] == ["inside", "left-of"]
    assert [(r.subject, r.object) for r in made(reverse=1.0).relations] == [(1, 0), (1, 2)]
    assert {*GRAPH.relations} < {*made(insert_relation=1.0).relations}


def test_relations_follow_their_objects_when_rows_come_and_go():
    for seed in range(50):
        found = corrupt(GRAPH, VOCABULARY, only(drop=0.3, insert=0.5), random.Random(seed))
        true = {("circle", "left-of", "big-square"), ("cup", "inside", "big-square")}
        assert {
            (found.objects[r.subject].label, r.predicate, found.objects[r.object].label) for r in found.relations
        } <= true


def test_rates_come_true():
    big = SceneGraph(GRAPH.objects * 1, (), 96, 96)
    rng = random.Random(0)
    kept = sum(len(corrupt(big, VOCABULARY, only(drop=0.2), rng).objects) for _ in range(2000)) / 6000
    assert abs(kept - 0.8) < 0.03
    transform = ContextTransform("corrupted", metadata(), only(omit=0.25))
    left_out = 0
    for epoch in range(2000):
        transform.epoch = epoch
        left_out += transform.corrupted("Write.", TEXT, 96, 96) is None
    assert abs(left_out / 2000 - 0.25) < 0.04


def test_noise_hangs_on_seed_epoch_and_row_alone():
    noise = only(jitter=0.3, relabel=0.5)
    first = ContextTransform("corrupted", metadata(), noise, seed=3)
    again = ContextTransform("corrupted", metadata(), noise, seed=3)
    other = ContextTransform("corrupted", metadata(), noise, seed=4)
    found = contexts(first, rows(8))
    assert len({*found[1:]}) == 1  # the answers of one group have one prompt
    assert contexts(again, rows(1))[1] == found[1]
    assert contexts(other, rows(1))[1] != found[1]
    again.epoch = 1
    assert contexts(again, rows(1))[1] != found[1]


@st.composite
def graphs(draw, vocabulary):
    size = st.integers(1, 90)
    objects = [
        Object(vocabulary.to_text(draw(st.sampled_from(vocabulary.objects))), (x, y, min(x + w, 96), min(y + h, 96)))
        for x, y, w, h in draw(st.lists(st.tuples(size, size, size, size), min_size=1, max_size=6))
    ]
    if vocabulary.groups:
        objects[0] = Object("person", objects[0].box)
    relations = []
    for target in range(1, len(objects)):
        for group in draw(st.sets(st.sampled_from(sorted(vocabulary.groups or {None})), min_size=1)):
            labels = vocabulary.groups[group] if group else vocabulary.predicates
            predicate = vocabulary.to_text(draw(st.sampled_from(labels)))
            relations.append(Relation(0, predicate, target, group))
    return SceneGraph(tuple(objects), tuple(relations), 96, 96).cleaned()[0]


@pytest.mark.parametrize(
    ("codec", "name"), [("toon", "psg"), ("json", "psg"), ("toon-lean", "psg"), ("toon-pairs", "action_genome")]
)
def test_a_corrupted_graph_is_a_graph_of_the_layout_within_the_limit(codec, name):
    vocabulary = get_vocabulary(name)
    noise = Noise(**dict.fromkeys(QUIET, 0.5))
    codec = get_codec(codec)
    transform = ContextTransform("corrupted", metadata(codec.name, vocabulary), noise)

    @given(graphs(vocabulary), st.integers(0, 1000))
    def check(graph, epoch):
        text = codec.encode(graph)
        transform.epoch = epoch
        found = transform.corrupted("Write.", text, 96, 96)
        if found is not None and found != text:
            assert len(found) <= LONGEST * len(text)
            decoded = codec.decode(found, 96, 96, tags=False)  # raises for what breaks the layout
            assert all(0 <= o.box[0] < o.box[2] <= 96 for o in decoded.objects)

    check()


def test_the_frame_comes_from_the_image_where_the_columns_are_gone():
    from PIL import Image

    batch = {"image": [Image.new("RGB", (96, 96))] * 2} | {name: rows()[name] for name in ("prompt", "previous")}
    noise = only(jitter=0.5)
    one, other = (ContextTransform("corrupted", metadata(), noise)(found) for found in (batch, rows()))
    assert one["prompt"] == other["prompt"] != ContextTransform("gt", metadata())(rows())["prompt"]


def test_a_prompt_is_not_read_without_the_graph_that_it_is_to_hold():
    batch = {"prompt": rows()["prompt"]}
    for context in ("gt", "corrupted"):
        with pytest.raises(SgrlError, match="read without the column 'previous'"):
            ContextTransform(context, metadata())(batch)
    assert ContextTransform("none", metadata())(batch) == batch
    assert ContextTransform("gt", metadata())({"image_id": ["a"]}) == {"image_id": ["a"]}


def test_refusals():
    with pytest.raises(SgrlError, match="unknown context 'corupted'; did you mean 'corrupted'"):
        ContextTransform("corupted", metadata())
    for context in TRAINING_CONTEXTS[1:]:
        with pytest.raises(SgrlError, match="--context gt"):
            ContextTransform(context, metadata(previous="none"))
    with pytest.raises(SgrlError, match="unknown kind 'jiter'; did you mean 'jitter'"):
        Noise.named({"jiter": 0.1})
    with pytest.raises(SgrlError, match="drop must be a number from 0 to 1, found 2"):
        Noise(drop=2)


def test_epochs_reach_the_rows_through_datasets_and_workers():
    """As a trainer reads them: columns taken away after the transform, rows prepared by a worker process."""
    from types import SimpleNamespace

    import datasets
    from torch.utils.data import DataLoader

    from sgrl.training.previous import ContextEpoch

    stored = datasets.Dataset.from_dict(rows(3) | {"image_id": ["a", "b", "c", "d"]})
    transform = ContextTransform("corrupted", metadata(), only(relabel=0.5, jitter=0.3), seed=1)
    read = stored.with_transform(transform).select_columns(["prompt", "previous", "width", "height"])
    loader = DataLoader(read, batch_size=2, collate_fn=list, num_workers=1)
    epochs = []
    for epoch in (0.0, 0.6, 1.0):  # the second: a run that goes on within the first epoch
        ContextEpoch(transform).on_epoch_begin(None, SimpleNamespace(epoch=epoch), None)
        epochs.append([row["prompt"][0]["content"] for batch in loader for row in batch])
    assert epochs[0] == epochs[1] != epochs[2]
    assert len({*epochs[0][1:]}) == 1 and epochs[0][0] == "Write."
    assert stored[1]["previous"] == TEXT and stored[1]["prompt"] == stored[0]["prompt"]  # what is stored stays


def test_settings_of_a_recipe(tmp_path):
    from types import SimpleNamespace

    import datasets
    import pyarrow
    import pyarrow.parquet

    from sgrl.data import schema
    from sgrl.training.previous import add_context

    file = tmp_path / "train-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([], schema=schema(metadata(), video=True)), file)
    stored = datasets.Dataset.from_dict(rows())
    training = SimpleNamespace(seed=0, dataloader_persistent_workers=False)

    def settings(context, rates=None):
        return SimpleNamespace(dataset=tmp_path, context=context, context_noise=rates)

    train, evaluation, _ = add_context(stored, stored, settings(None), training)  # as the data set has it
    for read in (train, evaluation):
        assert [split_previous(row["prompt"][0]["content"])[1] for row in read] == [None, TEXT]
        assert "previous" not in read[1]
    train, evaluation, callbacks = add_context(stored, None, settings("none"), training)
    assert train is stored and evaluation is None and callbacks == []
    with pytest.raises(SgrlError, match="set context: corrupted"):
        add_context(stored, None, settings("gt", {"drop": 0.1}), training)
    training.dataloader_persistent_workers = True
    with pytest.raises(SgrlError, match="dataloader_persistent_workers: false"):
        add_context(stored, None, settings("corrupted"), training)
