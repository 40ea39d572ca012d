import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgrl.vocabulary import VOCABULARIES, Vocabulary, VocabularyError, canonical, get_vocabulary


@pytest.mark.parametrize(
    ("name", "objects", "predicates", "first", "last"),
    [
        ("psg", 133, 56, ("person", "over"), ("rug-merged", "leaning on")),
        ("pvsg", 126, 57, ("adult", "beside"), ("water", "wearing")),
        ("action_genome", 36, 26, ("person", "looking_at"), ("window", "writing_on")),
        ("vg150", 150, 50, ("airplane", "above"), ("zebra", "with")),
    ],
)
def test_official_lists(name, objects, predicates, first, last):
    vocabulary = get_vocabulary(name)
    assert (len(vocabulary.objects), len(vocabulary.predicates)) == (objects, predicates)
    assert (vocabulary.objects[0], vocabulary.predicates[0]) == first
    assert (vocabulary.objects[-1], vocabulary.predicates[-1]) == last
    assert get_vocabulary(name) is vocabulary


@pytest.mark.parametrize("name", VOCABULARIES)
def test_every_label_comes_back_from_text(name):
    vocabulary = get_vocabulary(name)
    for label in vocabulary.objects + vocabulary.predicates:
        text = vocabulary.to_text(label)
        assert vocabulary.from_text(text) == label
        assert vocabulary.from_text(text.upper().replace("-", " ")) == label
    assert vocabulary.from_text("unicorn") is None


def test_action_genome_keeps_its_spelling_and_groups():
    vocabulary = get_vocabulary("action_genome")
    assert vocabulary.to_text("cup/glass/bottle") == "cup/glass/bottle"
    assert vocabulary.from_text("in front of") == "in_front_of"
    assert [len(vocabulary.groups[g]) for g in ("attention", "spatial", "contacting")] == [3, 6, 17]
    assert sum(vocabulary.groups.values(), ()) == vocabulary.predicates


def test_the_lists_are_those_of_the_data_sets(shared):
    real = shared / "data" / "real"
    psg = json.loads((real / "psg" / "psg_classes.json").read_text())
    assert list(get_vocabulary("psg").objects) == psg["thing_classes"] + psg["stuff_classes"]
    assert list(get_vocabulary("psg").predicates) == psg["predicate_classes"]
    vg = json.loads((real / "vg" / "VG-SGG-dicts-with-attri.json").read_text())
    for i, label in enumerate(get_vocabulary("vg150").objects, 1):
        assert vg["label_to_idx"][label] == i
    for i, label in enumerate(get_vocabulary("vg150").predicates, 1):
        assert vg["predicate_to_idx"][label] == i
    squeezed = (real / "action_genome" / "object_classes.txt").read_text().split()
    assert [label.replace("/", "") for label in get_vocabulary("action_genome").objects] == squeezed
    pvsg = json.loads((real / "pvsg" / "classes.json").read_text())
    assert list(get_vocabulary("pvsg").predicates) == pvsg["relations"]


def test_any_lists_may_be_given():
    vocabulary = Vocabulary("toy", ["red ball", "cube"], ["left of"])
    assert vocabulary.objects == ("red ball", "cube")
    assert vocabulary.to_text("red ball") == "red-ball" and vocabulary.from_text("left-of") == "left of"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("v", ["a", "a"], []), "'a' stands twice among the objects"),
        (("v", ["red ball", "red-ball"], []), "both 'red-ball' in text"),
        (("v", ["  "], []), "no letter or digit"),
        (("v", ["a"], ["on"], {"spatial": ["onn"]}), "did you mean 'on'"),
    ],
)
def test_lists_that_text_cannot_tell_apart_are_refused(arguments, message):
    with pytest.raises(VocabularyError, match=message):
        Vocabulary(*arguments)


def test_a_misspelt_name_gets_a_hint():
    with pytest.raises(VocabularyError, match="did you mean 'action_genome'"):
        get_vocabulary("action-genome")


@pytest.mark.parametrize(
    ("label", "narrow", "wide"),
    [
        ("traffic light", "traffic-light", "traffic-light"),
        ("in_front_of", "in-front-of", "in_front_of"),
        ("Cup/Glass/Bottle", "cup-glass-bottle", "cup/glass/bottle"),
        ("  --a__b//-c. ", "a-b-c", "a_b-c"),
        ("café", "cafe", "cafe"),
        ("日本", "unknown", "unknown"),
        ("", "unknown", "unknown"),
    ],
)
def test_canonical_spelling(label, narrow, wide):
    assert canonical(label) == narrow and canonical(label, wide=True) == wide


@given(st.text(), st.booleans())
def test_canonical_is_idempotent_and_clean(label, wide):
    text = canonical(label, wide)
    assert canonical(text, wide) == text
    assert canonical(canonical(label, wide=True)) == canonical(label)
    parts = text.replace("_", "-").replace(".", "-").replace("/", "-") if wide else text
    assert all(part.isascii() and part.isalnum() and part == part.lower() for part in parts.split("-"))
