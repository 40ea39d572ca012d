"""A server that is slow, broken or hostile: requests end, the key stays secret, and only sound answers come in."""

import base64
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.parse

import pytest

from sgrl.errors import SgrlError
from sgrl.inference.engine import EngineSettings
from sgrl.inference.openai_answers import BadAnswer, generation
from sgrl.inference.openai_engine import LONGEST_MESSAGE, OpenAIEngine, check_server
from sgrl.inference.redact import MARK, Redactor

CHAT = [{"role": "user", "content": "Write the scene graph."}]
KEY = "sk-stand/in+key-0123456789abcdef"
PATIENCE = 20  # seconds until a server of these tests gives up, so that a request without a limit fails, not hangs


def completion(text="graph", *, usage=None, **choice):
    choice = {"message": {"content": text}, "finish_reason": "stop"} | choice
    return {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3} if usage is None else usage}


@pytest.fixture
def engine_of():
    engines = []

    def make(url, **options):
        pause = options.pop("pause", lambda seconds: None)
        settings = EngineSettings(50, 2, base_url=url, **({"timeout": 30.0, "attempts": 1} | options))
        engines.append(OpenAIEngine("m", settings, pause))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def raw_server():
    """`raw_server(talk)`: a server that calls `talk(connection)` with each that it accepted; returns its URL."""
    servers = []

    def start(talk):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/v1"

    yield start
    for server in servers:
        server.close()


################
# Time
################

HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"", "no answer within 0.4 s"),
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", "no answer within 0.4 s"),
        (HEAD % b"200 OK", "no end of the answer within 0.4 s"),
        (HEAD % b"503 Busy", "status 503: no message"),
    ],
    ids=["silence", "head", "body", "error"],
)
def test_a_byte_now_and_then_does_not_keep_a_request_alive(raw_server, engine_of, start, said):
    def drip(connection):
        try:
            connection.recv(65536)
            connection.sendall(start)
            for _ in range(PATIENCE * 20):
                time.sleep(0.05)
                connection.sendall(b" " if start else b"")
        except OSError:
            pass
        connection.close()

    (found,) = engine_of(raw_server(drip), timeout=0.4).generate([None], [CHAT])
    assert found.finish_reason == "error" and found.error.startswith(said)


@pytest.mark.parametrize("stall", [True, False], ids=["stalls", "resets"])
def test_an_error_whose_body_does_not_come_is_that_error(raw_server, engine_of, stall):
    def talk(connection):
        connection.recv(65536)
        connection.sendall(HEAD % b"401 Unauthorized" + b'{"error"')
        if stall:
            time.sleep(PATIENCE)
        connection.close()

    with pytest.raises(SgrlError, match="status 401.: .*is the key in the variable OPENAI_API_KEY right"):
        engine_of(raw_server(talk), timeout=1.0).generate([None], [CHAT])


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf")])
def test_a_timeout_is_a_number_of_seconds(timeout):
    with pytest.raises(SgrlError, match="--timeout is"):
        OpenAIEngine("m", EngineSettings(timeout=timeout))


def test_an_interruption_ends_requests_and_pauses(raw_server, engine_of):
    """One request waits for a silent server, one in the pause before another attempt."""
    asked = threading.Semaphore(0)
    first = threading.Lock()

    def talk(connection):
        connection.recv(65536)
        if first.acquire(blocking=False):
            connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: 60\r\n\r\n")
        asked.release()
        time.sleep(PATIENCE)
        connection.close()

    def interrupt():
        for _ in range(2):
            asked.acquire()
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    engine = engine_of(raw_server(talk), timeout=600.0, attempts=2, pause=lambda seconds: time.sleep(PATIENCE))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.generate([None] * 2, [CHAT] * 2)
    finally:
        signal.signal(signal.SIGINT, before)
    engine.close()
    with pytest.raises(SgrlError, match="the engine is closed"):
        engine.generate([None], [CHAT])


def test_it_works_within_another_event_loop(serve, engine_of):
    """As in a notebook."""
    import asyncio

    async def cell():
        return engine_of(serve((200, completion(), {})).url).generate([None], [CHAT])

    assert asyncio.run(cell())[0].text == "graph"


################
# Size and shape of what comes
################


def test_more_than_the_tokens_need_is_not_read(serve, engine_of):
    big = b" " * (2**20 + 51 * 4096)
    (found,) = engine_of(serve((200, big, {})).url).generate([None], [CHAT])
    assert found.error.startswith("an answer of more than 1,253,376 bytes")
    with pytest.raises(SgrlError, match="status 404.: x+…") as caught:
        engine_of(serve((404, b"x" * 10**7, {})).url).generate([None], [CHAT])
    assert len(str(caught.value)) < LONGEST_MESSAGE + 200


def test_a_compressed_answer_is_not_unpacked(serve, engine_of):
    """A kilobyte may become gigabytes; the request says that it wants none."""
    import gzip

    server = serve((200, gzip.compress(b"0" * 10**6), {"Content-Encoding": "gzip"}))
    (found,) = engine_of(server.url).generate([None], [CHAT])
    assert found.error == "a compressed answer, which was not asked for"
    assert server.headers[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "not JSON"),
        (b"1" * 5000, "not JSON"),
        ([1], "the answer is a list, expected a dict"),
        ({"choices": {"0": 1}}, "choices is a dict, expected a list"),
        ({"choices": []}, "choices is empty"),
        ({"choices": [None]}, r"choices\[0\] is a NoneType"),
        ({"choices": [{"message": "graph"}]}, "message is a str, expected a dict"),
        (completion(["graph"]), "content is a list, expected a str"),
        (completion(usage=3), "usage is a int, expected a dict"),
        *(
            (completion(usage={name: value}), f"usage.{name} is no whole number from 0 to 1,000,000,000")
            for name in ("completion_tokens", "prompt_tokens")
            for value in (float("inf"), float("nan"), 10**400, 10**9 + 1, -1, 1.5, "12", True, [], 1e300)
        ),
    ],
)
def test_what_is_no_sound_answer_is_refused_in_a_line(body, said):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(BadAnswer, match=said) as caught:
        generation(body, 0.5)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 150


def test_one_bad_answer_is_one_image_without_a_graph(serve, engine_of):
    def answer(body):
        bad = body["messages"][0]["content"] == "bad"
        return (200, completion(usage={"completion_tokens": 10**400} if bad else None), {})

    chats = [[{"role": "user", "content": word}] for word in ("good", "bad", "good")]
    found = engine_of(serve(otherwise=answer).url).generate([None] * 3, chats)
    assert [(one.text, one.finish_reason) for one in found] == [("graph", "stop"), ("", "error"), ("graph", "stop")]


@pytest.mark.parametrize("count", [None, 12, 12.0])
def test_counts_that_are_counts(count):
    found = generation(json.dumps(completion(usage={"completion_tokens": count})).encode(), 0.5)
    assert found.tokens == (count or 0) and type(found.tokens) is int and found.prompt_tokens == 0


@pytest.mark.parametrize(
    "entry",
    [
        {"logprob": float("nan")},
        {"logprob": float("inf")},
        {"logprob": float("-inf")},
        {"logprob": 10**400},
        {"logprob": 50.0},
        {"logprob": "-1"},
        {"logprob": True},
        {"logprob": None},
        {"token": 5},
        {"token": None, "bytes": [98]},
        {"bytes": [300]},
        {"bytes": [-1]},
        {"bytes": [98.0]},
        {"bytes": 700_000_000},
        {"bytes": "b"},
        5,
    ],
    ids=str,
)
def test_unsound_log_probabilities_are_none(entry):
    """The graph stays, without confidences: none of them may become 1."""
    sound = [{"token": word, "logprob": -0.1, "bytes": list(word.encode())} for word in "ab"]
    body = completion("ab", logprobs={"content": sound})
    assert generation(json.dumps(body).encode(), 0.5).logprobs == (-0.1, -0.1)
    sound[1] = sound[1] | entry if isinstance(entry, dict) else entry
    found = generation(json.dumps(body).encode(), 0.5)
    assert (found.text, found.pieces, found.logprobs) == ("ab", (), ())
    for logprobs in (5, [], {"content": None}, {"content": 5}, {"content": {"token": "ab"}}):
        assert generation(json.dumps(completion("ab", logprobs=logprobs)).encode(), 0.5).pieces == ()


def test_rounding_above_zero_is_zero_and_halves_of_characters_are_replaced():
    tokens = [{"token": "a\ud800", "logprob": 1e-7}, {"token": "\U0001f600", "logprob": -2}]
    found = generation(json.dumps(completion("a\ud800\U0001f600", logprobs={"content": tokens})).encode(), 0.5)
    assert found.text == "a\ufffd\U0001f600" and found.pieces == ("a\ufffd", "\U0001f600")
    assert found.logprobs == (0.0, -2.0)


################
# The key
################


def spellings(key):
    data = key.encode()
    return {
        "plain": key,
        "upper case": key.upper(),
        "URL": urllib.parse.quote(key, safe=""),
        "URL twice": urllib.parse.quote(urllib.parse.quote(key, safe=""), safe=""),
        "URL, every character": "".join(f"%{byte:02X}" for byte in data),
        "JSON, every character": "".join(f"\\u{byte:04x}" for byte in data),
        "JSON, some characters": key.replace("/", "\\/").replace("-", "\\u002D"),
        "JSON in JSON": key.replace("/", "\\\\\\/").replace("-", "\\\\u002d"),
        "Python": "".join(f"\\x{byte:02x}" for byte in data),
        "HTML": "".join(f"&#{byte};" for byte in data),
        "hexadecimal": data.hex(),
        "base64": base64.b64encode(data).decode(),
        "base64 of the header": base64.b64encode(b"Bearer " + data).decode(),
        "base64 of a pair": base64.b64encode(b"me:" + data + b":x").decode(),
        "base64 for URLs": base64.urlsafe_b64encode(b"u:" + data).decode(),
        "its first half": key[: len(key) // 2],
        "its last half": key[-(len(key) // 2) :],
    }


@pytest.mark.parametrize("kind", spellings(KEY))
def test_the_key_is_found_in_every_spelling(kind):
    found = Redactor(KEY)(f"1,{spellings(KEY)[kind]},2")
    assert MARK in found and found.startswith("1,") and found.endswith(",2")
    assert len(found) <= len("1,,2") + len(MARK) + 10  # base64 of what stands before the key may stay


def test_what_is_no_secret_stays():
    text = "1,person,24,71,259,268 EMPTY"
    for secret in (None, "", "EMPTY", "person", KEY):
        assert Redactor(secret)(text) == text
    assert Redactor("aaaaaaaa")("aaaaaaa") == "aaaaaaa"


@pytest.mark.parametrize("step", ["\\", "s", "sk-stand/", "&#", "%25", "c2st", KEY[:-1], KEY])
def test_taking_the_key_out_is_linear(step):
    """Quadratic time in a million characters would take hours."""
    Redactor(KEY)(step * (10**6 // len(step)))


@pytest.mark.parametrize("kind", ["plain", "JSON, some characters", "base64 of the header", "URL"])
@pytest.mark.parametrize("status", [400, 401, 500, 302, 200])
def test_a_server_that_echoes_the_key_gives_nobody_the_key(serve, engine_of, monkeypatch, caplog, status, kind):
    monkeypatch.setenv("MY_KEY", KEY)
    spelt = spellings(KEY)[kind]
    said = f"bad {spelt} \x1b[2J\n it is"
    body = completion(said, logprobs={"content": [{"token": said, "logprob": -1}]})
    body = body if status == 200 else {"error": {"message": said}}
    server = serve((status, body, {"Location": f"http://elsewhere.invalid/?{urllib.parse.quote(KEY)}"}))
    engine = engine_of(server.url, api_key_variable="MY_KEY")
    try:
        (found,) = engine.generate([None], [CHAT])
        shown = found.text + str(found.error) + "".join(found.pieces)
    except SgrlError as error:
        shown = str(error)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert MARK in shown and (status == 200 or shown.isprintable())
    for text in (shown, caplog.text):
        assert not any(word in text for word in (spelt, KEY, "in+key", "0123456789"))
    if status == 200:
        assert (found.pieces, found.logprobs) == ((), ())
        assert "writes the key into its answers" in caplog.text


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("same_host", [True, False])
def test_no_redirect_is_followed(serve, engine_of, monkeypatch, status, same_host):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    other = serve(otherwise=(200, completion(), {}))
    address = other.url if same_host else other.url.replace("127.0.0.1", "localhost")
    server = serve((status, b"", {"Location": f"{address}/elsewhere"}))
    with pytest.raises(SgrlError, match=rf"on to {address}/elsewhere \(status {status}\), which is not followed"):
        engine_of(server.url, attempts=3).generate([None], [CHAT])
    assert len(server.received) == 1 and not other.received


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://localhost/v1",
        "http://",
        "http://[::1",
        "http://host:port/v1",
        "http://host:99999/v1",
        "http://ho st/v1",
        "http://host/v1\n",
        f"http://me:{KEY}@host/v1",
        f"https://host/v1?api-key={KEY}",
    ],
)
def test_what_is_no_base_url(url):
    with pytest.raises(SgrlError, match="expected one such as http://localhost:8000/v1") as caught:
        OpenAIEngine("m", EngineSettings(base_url=url))
    assert KEY not in str(caught.value) and str(caught.value).isprintable()


def test_the_key_is_no_option(monkeypatch):
    with pytest.raises(SgrlError, match="not the key itself") as caught:
        check_server("http://host/v1", KEY)
    assert KEY not in str(caught.value)
    for key in (KEY + "\n", "two words", "schlüssel"):
        monkeypatch.setenv("MY_KEY", key)
        with pytest.raises(SgrlError, match="the key in the variable MY_KEY holds a blank") as caught:
            check_server("http://host/v1", "MY_KEY")
        assert key not in str(caught.value)
    monkeypatch.setenv("MY_KEY", KEY)
    assert check_server("http://host/v1", "MY_KEY", ["predict.py", "--model", "m"]) == KEY
    with pytest.raises(SgrlError, match="the options hold the key") as caught:
        check_server("http://host/v1", "MY_KEY", ["predict.py", "--extra-body", f'{{"api_key": "{KEY}"}}'])
    assert KEY not in str(caught.value)


def test_broken_settings_of_the_machine_are_named(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "nonsense://proxy")
    with pytest.raises(SgrlError, match="no connection to .* can be prepared .*HTTP_PROXY"):
        OpenAIEngine("m")


def test_a_name_that_no_host_has(engine_of):
    (found,) = engine_of(f"http://{'a' * 70}.invalid/v1").generate([None], [CHAT])
    assert found.finish_reason == "error" and re.match(r"\w+: ", found.error)
