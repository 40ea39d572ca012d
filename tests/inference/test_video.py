"""Videos: frames in order, many at a time, each with the right graph before it, and no error crosses over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sgrl.context import context_of
from sgrl.errors import SgrlError
from sgrl.inference import SceneGraphModel, SceneGraphStream
from sgrl.inference.engine import Generation
from sgrl.inference.video import batches, generate_apart
from sgrl.models.vlm.chat import RefusedPrompt
from sgrl.prompts import split_previous, with_context
from sgrl.task import Task
from sgrl.text import answer, get_codec
from sgrl.vocabulary import get_vocabulary

TOON = get_codec("toon")
FRAME = Image.new("RGB", (96, 96))
ASKED = Task(get_vocabulary("psg"), prompt="short", coordinates="pixel", context="generated")
WORDS = "Write the scene graph."


def graph(label, count=1):
    rows = "".join(f"\n  {i},{label},{i},1,{i + 20},40" for i in range(1, count + 1))
    return f"obj[{count}]{{id,name,x1,y1,x2,y2}}:{rows}\nrel[0]{{subj,pred,obj}}:"


class Scripted:
    """Answers with what a function makes of each prompt's text; records the prompts."""

    name, batch_size = "scripted", 4

    def __init__(self, answer_to):
        self.answer_to, self.prompts = answer_to, []

    def generate(self, images, prompts, grammars=None):
        texts = [prompt[-1]["content"] for prompt in prompts]
        if any("too long" in text for text in texts):
            raise RefusedPrompt("a prompt is too long")
        self.prompts += texts
        return [Generation(self.answer_to(text), 5, 0.1, "stop") for text in texts]


@given(st.lists(st.integers(0, 7), max_size=12), st.integers(1, 5))
def test_batches_keep_order_and_never_mix_two_frames_of_a_video(lengths, width):
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    units = [list(range(start, start + length)) for start, length in zip(starts, lengths, strict=True)]
    found = list(batches(units, width))
    assert sorted(i for batch in found for i in batch) == list(range(sum(lengths)))
    assert all(0 < len(batch) <= width for batch in found)
    place = {index: number for number, batch in enumerate(found) for index in batch}
    for unit in units:
        assert all(place[a] + 1 == place[b] for a, b in zip(unit, unit[1:], strict=False))
    # No place stays free while a video waits: as few batches as the longest chain and the sum allow, nearly.
    total, longest = sum(lengths), max(lengths, default=0)
    assert len(found) <= -(-total // width) + longest


def test_context_is_put_in_once():
    prompt = [{"role": "user", "content": "Write."}]
    once = with_context(prompt, graph("cat"))
    assert split_previous(once[0]["content"]) == ("Write.", graph("cat"))
    assert with_context(prompt, None) == prompt == [{"role": "user", "content": "Write."}]


def test_own_graphs_are_cleaned_and_bounded():
    text = answer.wrap(graph("cat", 3).replace("  2,cat,2,1,22,40", "  2,cat,50,1,50,40"))
    assert "50" not in context_of(text, TOON, 96, 96) and context_of(text, TOON, 96, 96).startswith("obj[2]")
    assert context_of("no graph", TOON, 96, 96) is None
    assert context_of(answer.wrap(graph("cat", 70)), TOON, 96, 96).startswith("obj[60]")


def test_a_refused_prompt_is_an_error_of_its_own_image():
    engine = Scripted(lambda text: text.upper())
    prompts = [[{"role": "user", "content": text}] for text in ("a", "too long", "b")]
    found = generate_apart(engine, [FRAME] * 3, prompts, [None] * 3)
    assert [one.text for one in found] == ["A", "", "B"]
    assert found[1].finish_reason == "refused" and "too long" in found[1].error


def test_others_of_a_refused_batch_still_share_batches():
    engine = Scripted(lambda text: text.upper())
    texts = [str(i) for i in range(64)]
    texts[40] = "too long"
    found = generate_apart(engine, [FRAME] * 64, [[{"role": "user", "content": text}] for text in texts], [None] * 64)
    assert [one.finish_reason == "refused" for one in found] == [text == "too long" for text in texts]


def test_a_stream_hands_its_graph_on_and_survives_bad_frames():
    answers = iter([graph("cat"), "nothing", graph("dog")])
    engine = Scripted(lambda text: answer.wrap(next(answers)))
    stream = SceneGraphStream(SceneGraphModel(engine, ASKED))
    assert stream.latency()["mean"] == 0
    labels = [[o.label for o in stream.push(FRAME).graph.objects] for _ in range(3)]
    assert labels == [["cat"], [], ["dog"]]
    contexts = [split_previous(text)[1] for text in engine.prompts]
    assert contexts == [None, graph("cat"), graph("cat")]  # the frame without a graph left the last one
    stream.reset()
    stream.model.engine = Scripted(lambda text: "x")
    stream.push(FRAME)
    assert stream.model.engine.prompts == [WORDS]
    assert len(stream.latencies) == 4 and 0 < stream.latency()["median"] <= stream.latency()["p95"]


def test_a_stream_without_context_looks_at_each_frame_alone():
    engine = Scripted(lambda text: answer.wrap(graph("cat")))
    stream = SceneGraphStream(SceneGraphModel(engine, ASKED), "none")
    for _ in range(2):
        stream.push(FRAME)
    assert engine.prompts == [WORDS] * 2
    with pytest.raises(SgrlError, match="found 'gt'"):
        SceneGraphStream(SceneGraphModel(engine, ASKED), "gt")
