"""Each family is asked in its coordinates, and what it answers comes back in the data set's."""

import pytest

from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.inference.zeroshot import CONVENTIONS, convention_of, in_frame_of, prompt
from sgrl.text import answer, get_codec
from sgrl.vocabulary import get_vocabulary

PSG = get_vocabulary("psg")
W, H = 640, 480


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", "pixel28"),
        ("Qwen/Qwen3-VL-2B-Instruct", "norm1000"),
        ("Qwen/Qwen3.5-0.8B", "norm1000"),
        ("OpenGVLab/InternVL3-2B-hf", "norm1000"),
        ("google/paligemma2-3b-mix-448", "norm1024-yx"),
        ("gemini-2.5-flash", "norm1000-yx"),
        ("google/gemma-3-4b-it", "norm1000-yx"),
        ("gpt-4o", "pixel"),
    ],
)
def test_families(model, expected):
    assert convention_of("auto", model) is CONVENTIONS[expected]


def test_unknown_ones_are_named():
    with pytest.raises(SgrlError, match="say it with --zero-shot pixel"):
        convention_of("auto", "build/grpo")
    with pytest.raises(SgrlError, match="did you mean 'norm1000-yx'"):
        convention_of("norm1000-xy", "m")


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("layout", ["toon", "json"])
def test_a_model_that_follows_the_prompt_is_read_right(name, layout):
    """A graph as the convention writes it, in each layout: the data set's coordinates come back, in any frame."""
    convention, codec = CONVENTIONS[name], get_codec(layout)
    truth = SceneGraph(
        (Object("person", (64, 48, 320, 240)), Object("horse", (128, 96, 640, 480))), (Relation(0, "riding", 1),), W, H
    )
    width, height = convention.frame(W, H)
    written = truth.resized(width, height)
    text = codec.encode(written)
    if convention.y_first:
        swapped = [Object(o.label, tuple(o.box[i] for i in (1, 0, 3, 2))) for o in written.objects]
        text = codec.encode(SceneGraph(swapped, written.relations, max(width, height), max(width, height)))
        text = text.replace("x1,y1,x2,y2", "y1,x1,y2,x2")
    for frame in ((W, H), (1000, 1000)):
        back = codec.decode(in_frame_of(answer.wrap(text), codec, (W, H), frame, convention), *frame)
        expected = truth.resized(*frame)
        assert [o.label for o in back.objects] == ["person", "horse"] and len(back.relations) == 1
        for found, wanted in zip(back.objects, expected.objects, strict=True):
            assert found.box == pytest.approx(wanted.box, abs=2)


def test_prompts_say_the_frame_and_the_order():
    codec = get_codec("toon")
    text = prompt(PSG, codec, W, H, CONVENTIONS["pixel"])
    assert "pixels of the image, which is 640 wide and 480 high" in text and "{id,name,x1,y1,x2,y2}" in text
    assert "644 wide and 476 high" in prompt(PSG, codec, W, H, CONVENTIONS["pixel28"])
    text = prompt(PSG, codec, W, H, CONVENTIONS["norm1000-yx"])
    assert "{id,name,y1,x1,y2,x2}" in text and "x1,y1" not in text and "top, left, bottom and right" in text
    assert "from 0 to 1000" in text and "pixels" not in text and "traffic-light" in text
    rows = [line for line in text.splitlines() if line.startswith("  1,person,")]
    usual = [line for line in prompt(PSG, codec, W, H, CONVENTIONS["norm1000"]).splitlines() if "1,person," in line]
    (y1, x1, y2, x2), (a, b, c, d) = (line.split(",")[2:] for line in (rows[0], usual[0]))
    assert (x1, y1, x2, y2) == (a, b, c, d)
    text = prompt(PSG, get_codec("json"), W, H, CONVENTIONS["norm1024-yx"])
    assert "from 0 to 1024" in text and "top, left, bottom and right edge" in text


def test_an_answer_without_a_graph_stays():
    for name in CONVENTIONS:
        assert in_frame_of("I see a cat.", get_codec("toon"), (W, H), (W, H), CONVENTIONS[name]) == "I see a cat."
