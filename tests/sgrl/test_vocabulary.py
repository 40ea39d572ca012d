import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgrl.vocabulary import VOCABULARIES, Vocabulary, VocabularyError, canonical, get_vocabulary, normalised


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
        (("v", ["  "], []), "no visible character"),
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
        ("Café", "café", "café"),
        ("cafe\u0301", "café", "café"),  # one letter, written as two
        ("ＴＶ", "tv", "tv"),  # full width
        ("日本", "日本", "日本"),
        ("Кот под_столом", "кот-под-столом", "кот-под_столом"),
        ("हिन्दी भाषा", "हिन्दी-भाषा", "हिन्दी-भाषा"),  # its vowels are marks, not letters
        ("می\u200cخواهم", "میخواهم", "میخواهم"),  # a joiner, which can't be seen
        ("٣ cups", "3-cups", "3-cups"),
        ("C++", "c-plus-plus", "c-plus-plus"),
        ("C#", "c-sharp", "c-sharp"),
        ("salt & pepper", "salt-and-pepper", "salt-and-pepper"),
        ("5 €", "5-u20ac", "5-u20ac"),
        ("?!", "u3f-u21", "u3f-u21"),
        ("", "unknown", "unknown"),
        (" \n\0\ud800\u200d", "unknown", "unknown"),
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
    assert all(parts.split("-")) and text == text.lower() and unicodedata.is_normalized("NFKC", text)
    assert all(unicodedata.category(c)[0] in "LMN" for c in parts if c != "-")


def test_every_letter_of_every_script_is_one():
    """Of all characters, those that are equal in canonical form are so in Unicode's own normal form and lower case."""
    letters = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c)[0] == "L"]
    assert all(canonical(c) not in ("unknown", "") and canonical(f"a{c}b") != "ab" for c in letters)
    forms = {unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", c).lower()) for c in letters}
    assert len({canonical(c) for c in letters if canonical(c).isalpha()}) >= 0.99 * len(forms)


def test_class_lists_of_other_scripts():
    vocabulary = Vocabulary("my", ["人", "马", "C++", "C#", "c", "año", "ano"], ["骑", "吃"])
    assert [vocabulary.from_text(vocabulary.to_text(label)) for label in vocabulary.objects] == list(
        vocabulary.objects
    )
    assert vocabulary.from_text("c#") == "C#" and vocabulary.from_text("狗") is None
    with pytest.raises(VocabularyError, match="are both 'tv' in text"):
        Vocabulary("my", ["TV", "ＴＶ"], [])


@pytest.mark.parametrize(
    ("label", "name"), [("Looking_at", "looking at"), ("-a-_b ", "a  b"), ("cup/glass", "cup/glass"), ("С++", "с++")]
)
def test_labels_as_published_evaluators_compare_them(label, name):
    assert normalised(label) == name
