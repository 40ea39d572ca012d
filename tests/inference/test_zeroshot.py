"""Each family is asked in its coordinates, and what it answers comes back in the data set's."""

import json

import pytest

from sgrl.errors import SgrlError
from sgrl.graph import Object, Relation, SceneGraph
from sgrl.inference.zeroshot import in_frame_of, prompt
from sgrl.models.vlm.coordinates import CONVENTIONS, convention_of
from sgrl.text import answer, get_codec
from sgrl.vocabulary import get_vocabulary

PSG = get_vocabulary("psg")
W, H = 640, 480


THOUSANDTHS = """Qwen/Qwen2-VL-7B-Instruct qwen2vl-2b Qwen2_VL_2B Qwen/QVQ-72B-Preview Qwen/Qwen-VL-Chat
Qwen/Qwen3-VL-2B-Instruct qwen3-vl-plus Qwen/Qwen3.5-0.8B qwen/qwen3-vl-235b-a22b-instruct OpenGVLab/InternVL3-2B-hf
OpenGVLab/InternVL3_5-GPT-OSS-20B-A4B-Preview zai-org/GLM-4.5V z-ai/glm-4.5v openbmb/MiniCPM-Llama3-V-2_5
llava-hf/llava-1.5-7b-hf models/qwen2.5-vl-runs/Qwen3-VL-8B data/gpt/internvl"""
PIXELS_28 = """Qwen/Qwen2.5-VL-3B-Instruct qwen2_5_vl qwen2p5-vl-7b qwen/qwen-2.5-vl-7b-instruct qwen25vl
qwen2.5vl:7b Qwen/Qwen2.5-VL-72B-Instruct-AWQ runs/qwen3/Qwen2.5-VL-7B"""


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        *((model, "norm1000") for model in THOUSANDTHS.split()),
        *((model, "pixel28") for model in PIXELS_28.split()),
        ("google/paligemma2-3b-mix-448", "norm1024-yx"),
        ("gemini-2.5-flash", "norm1000-yx"),
        ("google/gemma-3-4b-it", "norm1000-yx"),
        ("gpt-4o", "pixel"),
        ("anthropic/claude-sonnet-4.5", "pixel"),
    ],
)
def test_families(model, expected):
    assert convention_of("auto", model) is CONVENTIONS[expected]


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("qwen2_vl", "norm1000"),
        ("qwen2_5_vl", "pixel28"),
        ("qwen3_vl", "norm1000"),
        ("qwen3_vl_moe", "norm1000"),
        ("qwen3_5", "norm1000"),
        ("internvl", "norm1000"),
        ("internvl_chat", "norm1000"),
        ("glm4v", "norm1000"),
        ("paligemma", "norm1024-yx"),
        ("gemma3", "norm1000-yx"),
        ("smolvlm", None),
        ("idefics3", None),
    ],
)
def test_a_model_folder_says_its_family_itself(tmp_path, model_type, expected):
    """Whatever it is called: a Qwen2-VL may lie in a folder of Qwen2.5-VL's name."""
    folder = tmp_path / "Qwen2.5-VL-copy"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    if expected is None:  # no family that has learnt coordinates
        with pytest.raises(SgrlError, match=rf"\(model_type '{model_type}'\) writes boxes is not known"):
            convention_of("auto", str(folder))
    else:
        assert convention_of("auto", str(folder)) is CONVENTIONS[expected]


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": 5}', "\udcff", "[" * 100_000])
def test_a_folder_without_a_readable_type_goes_by_its_name(tmp_path, content):
    folder = tmp_path / "qwen2-vl"
    folder.mkdir()
    (folder / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert convention_of("auto", str(folder)) is CONVENTIONS["norm1000"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("preprocessor_config.json", {"min_pixels": 3136, "max_pixels": 200704}),
        ("preprocessor_config.json", {"size": {"shortest_edge": 3136, "longest_edge": 200704}}),
        ("processor_config.json", {"image_processor": {"size": {"shortest_edge": 3136, "longest_edge": 200704}}}),
    ],
)
def test_pixels_are_those_that_the_processor_leaves(tmp_path, file, content):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    (tmp_path / file).write_text(json.dumps(content))
    assert convention_of("auto", str(tmp_path)).frame(640, 480) == (504, 364)


def test_frames_are_as_the_processor_makes_them():
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    convention = CONVENTIONS["pixel28"]
    for width, height in ((640, 480), (28, 28), (20, 30), (5000, 4000), (9000, 100), (14, 2000), (1000, 1001)):
        expected = smart_resize(height, width, 28, *convention.pixels)
        assert convention.frame(width, height) == expected[::-1], (width, height)


@pytest.mark.parametrize("name", ["norm1000", "pixel28", "norm1000-yx"])
def test_fractions_are_read_as_such(name):
    """Some families write them whatever they are asked for; in thousandths they would all be in one corner."""
    columns, box = ("y1,x1,y2,x2", "0.1,0.2,0.5,1") if "yx" in name else ("x1,y1,x2,y2", "0.2,0.1,1,0.5")
    text = f"obj[1]{{id,name,{columns}}}:\n  1,person,{box}\nrel[0]{{subj,pred,obj}}:"
    codec = get_codec("toon")
    back = codec.decode(in_frame_of(text, codec, (W, H), (W, H), CONVENTIONS[name]), W, H)
    assert back.objects[0].box == (128, 48, 640, 240)


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


def test_a_family_that_never_learnt_coordinates_is_not_taken_for_the_one_in_its_folder():
    for model in ("runs/qwen3/SmolVLM-500M-Instruct", "HuggingFaceTB/SmolVLM2-2.2B", "models/internvl/LFM2-VL-450M"):
        with pytest.raises(SgrlError, match="writes boxes is not known; say it with --zero-shot pixel"):
            convention_of("auto", model)
