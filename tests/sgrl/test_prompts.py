"""Prompts show the layout that the codec writes, and every label that is allowed."""

import re

import pytest

from sgrl.errors import SgrlError
from sgrl.prompts import SHORT, scene_graph_prompt, split_previous, with_previous
from sgrl.text import CODECS, get_codec
from sgrl.vocabulary import VOCABULARIES, Vocabulary, get_vocabulary

TOY = Vocabulary("toy", ("circle", "square", "triangle"), ("inside", "left of"))


def cases():
    for name in VOCABULARIES:
        vocabulary = get_vocabulary(name)
        for codec in CODECS:
            if vocabulary.groups or not get_codec(codec).grouped:
                yield pytest.param(vocabulary, codec, id=f"{name}-{codec}")
    for codec in CODECS:
        if not get_codec(codec).grouped:
            yield pytest.param(TOY, codec, id=f"toy-{codec}")


@pytest.mark.parametrize(("vocabulary", "codec"), list(cases()))
@pytest.mark.parametrize(
    ("width", "height", "coords"), [(96, 96, "pixel"), (640, 480, "pixel"), (1000, 1000, "norm1000")]
)
def test_the_example_is_a_valid_answer(vocabulary, codec, width, height, coords):
    prompt = scene_graph_prompt(vocabulary, codec, width, height, coords=coords)
    (example,) = re.findall(r"<answer>\n.*?\n</answer>", prompt, re.DOTALL)
    parsed = get_codec(codec).parse(example, width, height)
    assert len(parsed.labels) == 2 and parsed.relations
    assert all(vocabulary.from_text(label) in vocabulary.objects for label in parsed.labels)
    for label in (*vocabulary.objects, *vocabulary.predicates):
        assert vocabulary.to_text(label) in prompt
    assert f"<= {width} " in prompt and f"<= {height}." in prompt
    assert ("thousandths" in prompt) == (coords == "norm1000")


def test_labels_are_listed_as_text_spells_them():
    prompt = scene_graph_prompt(get_vocabulary("psg"), "toon", 640, 480)
    assert "traffic-light, fire-hydrant" in prompt and "traffic light" not in prompt
    assert "Predicates: over, in-front-of, beside" in prompt
    assert len(prompt) < 3500


def test_groups_are_listed_apart_for_pairs():
    vocabulary = get_vocabulary("action_genome")
    prompt = scene_graph_prompt(vocabulary, "toon-pairs", 640, 480)
    for group in vocabulary.groups:
        assert f"\n{group.capitalize()}: " in prompt
    assert "Predicates:" not in prompt


def test_short_is_one_line_whatever_the_rest():
    assert scene_graph_prompt(TOY, "toon", 96, 96, style="short") == SHORT
    assert "\n" not in SHORT


def test_unknown_values():
    with pytest.raises(SgrlError, match="'toom'.*did you mean 'toon'"):
        scene_graph_prompt(TOY, "toom", 96, 96)
    with pytest.raises(SgrlError, match="style 'shrt'; did you mean 'short'"):
        scene_graph_prompt(TOY, "toon", 96, 96, style="shrt")
    with pytest.raises(SgrlError, match="coordinates 'norm100'; did you mean 'norm1000'"):
        scene_graph_prompt(TOY, "toon", 96, 96, coords="norm100")


def test_previous_graph_comes_last_and_comes_off_again():
    prompt = scene_graph_prompt(TOY, "toon", 96, 96)
    graph = "obj[1]{id,name,x1,y1,x2,y2}:\n  1,circle,0,0,8,8\nrel[0]{subj,pred,obj}:"
    found = with_previous(prompt, graph)
    assert found.startswith(prompt) and found.endswith(graph)
    assert split_previous(found) == (prompt, graph)
    assert split_previous(prompt) == (prompt, None)
