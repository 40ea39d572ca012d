"""Any server with OpenAI's chat interface: `vllm serve`, SGLang, llama.cpp, or a provider's API.

    OPENAI_API_KEY=... python recipes/predict.py --engine openai --base-url https://HOST/v1 --model NAME ...

Requests run side by side, each against one clock from the first name look-up to the last byte. What may pass (a
time-out, a lost connection, status 408, 409, 425, 429 or 5xx, an answer that is no answer) is tried again after
growing pauses; what won't (a wrong key, an unknown model, a redirect) stops the run with the server's own words. The
key is taken out of whatever a server sends.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

from sgrl.errors import SgrlError, UsageError
from sgrl.inference.engine import BASE_URL, KEY_VARIABLE, EngineSettings, Generation, check_batch
from sgrl.inference.openai_answers import BadAnswer, generation
from sgrl.inference.redact import SHORTEST, Redactor
from sgrl.models.vlm.chat import RefusedPrompt, images_of
from sgrl.terminal import printable

logger = logging.getLogger(__name__)

PASSING = (408, 409, 425, 429)  # and all from 500: the same request may succeed later
REFUSED = (400, 413, 422)  # this request is wrong (too long a prompt, for one), others may be right
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds
MOST_OF_AN_ERROR = 65536  # bytes that are read of an error's body; of an answer's as many as its tokens may need:
ANSWER_BYTES, TOKEN_BYTES = 2**20, 4096
LONGEST_MESSAGE = 300  # characters that are shown of a server's words
GOODBYE = 2.0  # seconds that `close` waits for connections to close


def check_server(base_url: str, api_key_variable: str, command: Sequence[str] = ()) -> str | None:
    """The key in the environment, None if there is none.

    command: the words of the command, which go to run.json.

    Raises:
        SgrlError: the URL or the key is none, or the command holds the key. What may be secret is not shown.
    """
    if not set("@?#").isdisjoint(base_url):
        raise SgrlError(
            "the base URL has more than a host and a path (a user's name before @, a ? or a #); expected one such as "
            f"{BASE_URL}, and a key in the environment"
        )
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:  # a bracket without its pair, a port that is no number
        usable = False
    if not usable or not base_url.isprintable() or " " in base_url:
        raise SgrlError(f"the base URL is {base_url!r}; expected one such as {BASE_URL}")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", api_key_variable):
        raise UsageError(
            "--api-key-variable is no name of an environment variable; expected the name of the one that holds the "
            f"key, such as {KEY_VARIABLE}, not the key itself"
        )
    key = os.environ.get(api_key_variable) or None
    if key and not re.fullmatch("[!-~]+", key):
        raise SgrlError(
            f"the key in the variable {api_key_variable} holds a blank, a line break or a letter that is not ASCII, "
            "which no request can carry; set it again without"
        )
    if key and len(key) >= SHORTEST and any(key in word for word in command):
        raise SgrlError(
            f"the options hold the key in the variable {api_key_variable}, and would be written to run.json; leave it "
            "out: it is sent in the header Authorization"
        )
    return key


class OpenAIEngine:
    """See `sgrl.inference.load_engine`.

    Args:
        model: the server's name of the model.
        settings: `batch_size` is the number of requests at a time.
        pause: waits so many seconds; tests hand in their own.

    Attributes:
        requests, retries: sent so far.
    """

    name = "openai"

    def __init__(
        self, model: str, settings: EngineSettings | None = None, pause: Callable[[float], None] = time.sleep
    ):
        settings = settings or EngineSettings()
        key = check_server(settings.base_url, settings.api_key_variable)
        if not (settings.timeout > 0 and math.isfinite(settings.timeout)):
            raise UsageError(f"--timeout is {settings.timeout}; expected seconds, such as 120")
        self.model, self.batch_size = model, settings.batch_size or 16
        self._url = settings.base_url.rstrip("/") + "/chat/completions"
        self._redact = Redactor(key)
        self._key_variable = settings.api_key_variable
        self._timeout, self._attempts, self._pause = settings.timeout, max(settings.attempts, 1), pause
        self._body = {"model": model, "temperature": 0, "max_tokens": settings.max_new_tokens, "logprobs": True}
        self._body |= settings.extra_body or {}
        limits = (self._body.get(name) for name in ("max_tokens", "max_completion_tokens"))
        self._most = ANSWER_BYTES + TOKEN_BYTES * max(
            (n for n in limits if isinstance(n, int)), default=settings.max_new_tokens
        )
        self._client = _client(self._url, key, self.batch_size)
        self._loop = _BackgroundLoop()
        self._turn = asyncio.Semaphore(self.batch_size)
        self._echoed = False
        self.requests = self.retries = 0

    def generate(
        self, images: Sequence, prompts: Sequence, grammars: Sequence[str | None] | None = None
    ) -> list[Generation]:
        """As every engine. An image that got no answer after all attempts has the finish_reason "error", one whose
        prompt the server does not take "refused". An interruption ends all requests at once.

        Raises:
            SgrlError: the server refuses all requests in a way that trying again won't change.
        """
        grammars = check_batch(images, prompts, grammars)
        results = self._loop.run(lambda: self._all(list(zip(images, prompts, grammars, strict=True))))
        found: list[Generation] = []
        refusal: SgrlError | None = None
        for result in results:
            if isinstance(result, SgrlError):  # answers that came before are not lost
                refusal, result = result, Generation("", 0, 0.0, "error", error=str(result))
            elif isinstance(result, BaseException):
                raise result
            found.append(result)
        if refusal and all(one.error for one in found):
            raise refusal
        return found

    async def _all(self, work: list[tuple]) -> list[Generation | BaseException]:
        return await asyncio.gather(*(self._one(*one) for one in work), return_exceptions=True)

    async def _one(self, image, prompt, grammar: str | None) -> Generation:
        async with self._turn:
            data = await asyncio.to_thread(self._encode, image, prompt, grammar)
            wait = FIRST_PAUSE
            for attempt in range(1, self._attempts + 1):
                start = time.perf_counter()
                self.requests += 1
                self.retries += attempt > 1
                try:
                    return self._without_key(generation(await self._send(data), time.perf_counter() - start))
                except RefusedPrompt as error:
                    return Generation("", 0, time.perf_counter() - start, "refused", error=str(error))
                except BadAnswer as error:
                    problem, after = str(error), None
                except _Passing as error:
                    problem, after = str(error), error.after
                if attempt < self._attempts:
                    # Up to a half more, so that requests that failed together don't come back together.
                    pause = min(after or wait * (1 + random.random() / 2), LONGEST_PAUSE)
                    await asyncio.to_thread(self._pause, pause)
                    wait = min(wait * 2, LONGEST_PAUSE)
            logger.warning("%s gave no answer in %d attempts: %s", self._url, self._attempts, problem)
            return Generation("", 0, time.perf_counter() - start, "error", error=problem)

    def _encode(self, image, prompt, grammar: str | None) -> bytes:
        body = self._body | {"messages": messages(prompt, image)}
        if prompt[-1]["role"] == "assistant":  # how the answer begins: vLLM's fields, which others have no need of
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        if grammar:
            body["structured_outputs"] = {"grammar": grammar}  # vLLM's field
        return json.dumps({key: value for key, value in body.items() if value is not None}).encode()

    async def _send(self, data: bytes) -> bytes:
        """The body of the answer.

        Raises:
            _Passing: none came, or one that may be another next time. RefusedPrompt, SgrlError: see `_failure`.
        """
        import httpx

        status, headers, body, problem = None, {}, bytearray(), None
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._client.stream("POST", self._url, content=data) as response,
            ):
                status, headers = response.status_code, response.headers
                most = self._most if response.is_success else MOST_OF_AN_ERROR
                async for chunk in response.aiter_raw():  # not decoded: a few compressed bytes may become gigabytes
                    body += chunk
                    if len(body) > most:
                        problem = f"an answer of more than {most:,} bytes"
                        break
        except TimeoutError:
            problem = f"no {'end of the answer' if status else 'answer'} within {self._timeout:g} s (--timeout)"
        except (
            httpx.HTTPError,
            httpx.StreamError,
            OSError,
            ValueError,
        ) as error:  # ValueError: a name that is no host
            problem = self._clean(f"{type(error).__name__}: {error}")
        if status is not None and not 200 <= status < 300:
            raise self._failure(status, headers, bytes(body[:MOST_OF_AN_ERROR]))
        if problem is None and headers.get("Content-Encoding", "identity").lower() != "identity":
            problem = "a compressed answer, which was not asked for"
        if problem is not None:
            raise _Passing(problem)
        return bytes(body)

    def _failure(self, status: int, headers: Mapping[str, str], body: bytes) -> Exception:
        """What a status other than 2xx means, in the server's words as far as they came."""
        said = self._clean(_message(body))
        if status in PASSING or status >= 500:
            return _Passing(f"status {status}: {said}", _seconds(headers.get("Retry-After")))
        if 300 <= status < 400:
            place = self._clean(headers.get("Location", "")) or "no address"
            return SgrlError(
                f"{self._url} sends requests on to {place} (status {status}), which is not followed, for it would get "
                "the key; if it is the right one, give it as --base-url, up to and with /v1"
            )
        hint = f"; is the key in the variable {self._key_variable} right?" if status in (401, 403) else ""
        kind = RefusedPrompt if status in REFUSED else SgrlError
        return kind(f"{self._url} refuses the request (status {status}): {said}{hint}")

    def _clean(self, text: str) -> str:
        """A server's words in one line, without the key."""
        return printable(" ".join(self._redact(text).split()), LONGEST_MESSAGE)

    def _without_key(self, found: Generation) -> Generation:
        text = self._redact(found.text)
        if text == found.text:
            return found
        if not self._echoed:
            logger.warning("%s writes the key into its answers; it is taken out of them.", self._url)
            self._echoed = True
        return replace(found, text=text, pieces=(), logprobs=())  # the tokens hold it too

    def close(self) -> None:
        self._loop.close(self._client.aclose)


class _Passing(Exception):
    """A failure after which the same request is worth another attempt, `after` seconds if the server says so."""

    def __init__(self, message: str, after: float | None = None):
        super().__init__(message)
        self.after = after


def _client(url: str, key: str | None, connections: int):
    """An httpx.AsyncClient that follows no redirect and leaves time to its caller."""
    import httpx

    for name in ("httpx", "httpcore"):  # they log every request, and at DEBUG what a server sends
        logging.getLogger(name).setLevel(logging.WARNING)
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        httpx.URL(url)
        return httpx.AsyncClient(
            headers=headers,
            timeout=None,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )
    except (httpx.InvalidURL, ValueError, OSError, ImportError) as error:  # proxies and certificates are read here
        raise SgrlError(
            f"no connection to {url} can be prepared ({printable(str(error))}); check --base-url and the environment "
            "variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
        ) from None


class _DaemonThreads(ThreadPoolExecutor):
    """A thread for each call, for which no exit waits: looking up a name may take half a minute."""

    def submit(self, function, /, *arguments, **named) -> Future:
        future: Future = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function(*arguments, **named)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=run, daemon=True).start()
        return future


class _BackgroundLoop:
    """An event loop in a thread of its own, so that it works within another loop too, as notebooks have one."""

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_DaemonThreads())
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Coroutine], timeout: float | None = None):
        """What the coroutine returns. Whatever ends the wait, Ctrl-C for one, ends the work too."""
        if not self._thread.is_alive():
            raise SgrlError("the engine is closed; load it again")
        future = asyncio.run_coroutine_threadsafe(work(), self._loop)
        try:
            return future.result(timeout)
        finally:
            future.cancel()

    def close(self, last: Callable[[], Coroutine]) -> None:
        """Run what is left to do, for GOODBYE seconds at most, and end."""
        if not self._thread.is_alive():
            return
        try:
            self.run(last, GOODBYE)
        except TimeoutError:
            pass
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(GOODBYE)


def messages(prompt: Sequence[Mapping], image) -> list[dict]:
    """A chat as the interface wants it, the images (losslessly, as PNG) before the text of the first user turn."""
    found = [dict(message) for message in prompt]
    parts = [{"type": "image_url", "image_url": {"url": _url(one)}} for one in images_of(image)]
    first = next((message for message in found if message["role"] == "user"), None)
    if parts and first:
        first["content"] = [*parts, {"type": "text", "text": first["content"]}]
    return found


def _url(image) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _message(body: bytes) -> str:
    """The server's words in an error's body."""
    text = body.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
        found = found.get("error", found)
        found = found.get("message", found) if isinstance(found, dict) else found
        text = found if isinstance(found, str) else text
    except (ValueError, AttributeError, RecursionError):
        pass
    return text or "no message"


def _seconds(text: str | None) -> float | None:
    """A Retry-After of seconds; the form with a date is not waited for."""
    return float(text) if text and text.isascii() and text.isdecimal() and len(text) < 6 else None
