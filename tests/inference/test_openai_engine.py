"""The engine for OpenAI's interface: against a scripted server that misbehaves, and against `vllm serve`."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from sgrl.errors import SgrlError
from sgrl.inference import asker, load_engine
from sgrl.inference.engine import EngineSettings
from sgrl.inference.openai_engine import OpenAIEngine

CHAT = [{"role": "user", "content": "Write the scene graph."}]


def completion(text, **more):
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | more
    return {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


def engine_of(server, **options):
    pauses = []
    settings = EngineSettings(50, 1, base_url=server.url, timeout=0.3, **options)
    engine = OpenAIEngine("m", settings, pauses.append)
    engine.pauses = pauses
    return engine


OK = (200, completion("graph"), {})


def test_a_request_holds_image_prompt_grammar_and_key(serve, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    server = serve(OK)
    engine = engine_of(server, api_key_variable="MY_KEY", extra_body={"seed": 3, "logprobs": None})
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8))
    (found,) = engine.generate([image], [CHAT], ["root ::= [a]"])
    assert (found.text, found.tokens, found.prompt_tokens, found.finish_reason) == ("graph", 3, 7, "stop")
    (body,) = server.received
    assert body["temperature"] == 0 and body["max_tokens"] == 50 and body["seed"] == 3 and "logprobs" not in body
    assert body["structured_outputs"] == {"grammar": "root ::= [a]"}
    picture, text = body["messages"][0]["content"]
    data = base64.b64decode(picture["image_url"]["url"].partition("base64,")[2])
    assert np.array_equal(np.array(Image.open(io.BytesIO(data))), np.array(image))
    assert text == {"type": "text", "text": CHAT[0]["content"]}
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert CHAT == [{"role": "user", "content": "Write the scene graph."}]


def test_without_a_key_none_is_sent(serve, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = serve(OK)
    engine_of(server).generate([None], [CHAT])
    assert "Authorization" not in server.headers[0]
    assert server.received[0]["messages"] == CHAT


@pytest.mark.parametrize(
    "trouble",
    [
        (503, {"error": {"message": "overloaded"}}, {}),
        (200, b"<html>not JSON</html>", {}),
        (200, {"choices": []}, {}),
        (200, [1, 2], {}),
        (200, {"choices": [{"message": {"content": 5}}]}, {}),
        "hang",
        "drop",
    ],
    ids=["overloaded", "html", "no choices", "a list", "a number", "time-out", "lost connection"],
)
def test_what_may_pass_is_tried_again(serve, trouble):
    server = serve(trouble, trouble, OK)
    engine = engine_of(server)
    (found,) = engine.generate([None], [CHAT])
    assert found.text == "graph"
    assert (engine.requests, engine.retries) == (3, 2)
    assert 1 <= engine.pauses[0] <= 1.5 and 2 <= engine.pauses[1] <= 3


def test_the_server_may_say_how_long_to_wait(serve):
    server = serve((429, {}, {"Retry-After": "17"}), (429, {}, {"Retry-After": "86400"}), OK)
    engine = engine_of(server)
    engine.generate([None], [CHAT])
    assert engine.pauses == [17.0, 60.0]


def test_one_image_without_an_answer_does_not_stop_the_others(serve):
    def by_text(body):
        return (500, {}, {}) if body["messages"][0]["content"] == "bad" else OK

    server = serve(*[by_text] * 8)
    engine = engine_of(server, attempts=3)
    found = engine.generate([None] * 3, [[{"role": "user", "content": word}] for word in ("good", "bad", "good")])
    assert [one.finish_reason for one in found] == ["stop", "error", "stop"]
    assert "status 500" in found[1].error and engine.requests == 5


def test_what_will_not_pass_stops_the_run(serve):
    server = serve((401, {"error": {"message": "invalid key"}}, {}))
    with pytest.raises(SgrlError, match="status 401.*invalid key; is the key in the variable OPENAI_API_KEY right"):
        engine_of(server).generate([None], [CHAT])
    server = serve((404, b"no such model", {}))
    with pytest.raises(SgrlError, match="status 404.*no such model"):
        engine_of(server).generate([None], [CHAT])
    with pytest.raises(SgrlError, match="expected one such as http"):
        OpenAIEngine("m", EngineSettings(base_url="localhost:8000"))


def test_a_refused_prompt_and_a_key_that_expires_lose_no_answer(serve):
    def by_text(body):
        word = body["messages"][0]["content"]
        return {"long": (400, {"error": {"message": "too many tokens"}}, {}), "late": (403, {}, {})}.get(word, OK)

    server = serve(otherwise=by_text)
    chats = [[{"role": "user", "content": word}] for word in ("a", "long", "b", "late")]
    engine = engine_of(server)
    found = engine.generate([None] * 4, chats)
    assert [one.finish_reason for one in found] == ["stop", "refused", "stop", "error"] and engine.requests == 4
    assert "too many tokens" in found[1].error and "status 403" in found[3].error
    with pytest.raises(SgrlError, match="status 403"):
        engine.generate([None] * 2, chats[-1:] * 2)
    assert [one.finish_reason for one in engine.generate([None] * 2, chats[1:2] * 2)] == ["refused"] * 2


def test_log_probabilities_follow_the_text(serve):
    def tokens(*entries):
        found = [{"token": t, "logprob": -float(i), "bytes": list(b)} for i, (t, b) in enumerate(entries)]
        return {"logprobs": {"content": found}}

    whole = tokens(("a", b"a"), ("b,", b"b,"))
    ended = tokens(("ab,", b"ab,"), ("<|im_end|>", b"<|im_end|>"))
    split = tokens(("\\xc3", b"\xc3"), ("\\xa9", b"\xa9"), ("!", b"!"))
    server = serve(
        (200, completion("ab,", **whole), {}),
        (200, completion("ab,", **ended), {}),
        (200, completion("é!", **split), {}),
        (200, completion("other", **whole), {}),
        (200, completion(None, logprobs={"content": [{"token": 1}]}), {}),
    )
    found = engine_of(server).generate([None] * 5, [CHAT] * 5)
    assert [one.pieces for one in found] == [("a", "b,"), ("ab,", ""), ("", "é", "!"), (), ()]
    assert [one.logprobs for one in found] == [(0.0, -1.0), (0.0, -1.0), (0.0, -1.0, -2.0), (), ()]
    assert found[4].text == ""


def test_asker_returns_answers_in_order(serve):
    def echo(body):
        return (200, completion(body["messages"][0]["content"] + "?"), {})

    server = serve(*[echo] * 3)
    assert asker(engine_of(server))(["a", "b", "c"]) == ["a?", "b?", "c?"]


@pytest.mark.slow
def test_vllm_serve_gives_the_text_of_the_offline_engine(toy, vllm_server):
    """A real server with the tiny model on the CPU: texts, log-probabilities, grammars and text-only questions."""
    generator = np.random.default_rng(3)
    images = [Image.fromarray(generator.integers(0, 256, (96, 96, 3), dtype=np.uint8)) for _ in range(4)]
    grammar = 'root ::= "yes" | "no"'
    engine = load_engine(
        "openai", "tiny", max_new_tokens=12, base_url=vllm_server, extra_body={"skip_special_tokens": True}
    )
    found = engine.generate(images, [CHAT] * 4)
    limited = engine.generate(images, [CHAT] * 4, [grammar, None, grammar, None])
    answers = asker(engine)(["Is a circle round?", "Write."])
    with pytest.raises(SgrlError, match="refuses the request .status 404"):
        load_engine("openai", "other", base_url=vllm_server).generate([None], [CHAT])
    offline = load_engine("transformers", str(toy / "model"), max_new_tokens=12)
    expected = offline.generate(images, [CHAT] * 4)
    # The server holds back half a character at the end of an answer that was cut off.
    assert [one.text for one in found] == [one.text.rstrip("\ufffd") for one in expected]
    assert len({one.text for one in found}) > 1
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.tokens, ours.prompt_tokens, ours.finish_reason) == (12, theirs.prompt_tokens, "length")
        if ours.pieces:
            assert "".join(ours.pieces) == ours.text
            assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
    # A model of random weights also writes bytes that are no text, and then the tokens don't join to the answer.
    assert any(one.pieces for one in found)
    assert {limited[0].text, limited[2].text} <= {"yes", "no"} and limited[1].text == found[1].text
    assert answers == [answer.rstrip("\ufffd") for answer in asker(offline)(["Is a circle round?", "Write."])]
