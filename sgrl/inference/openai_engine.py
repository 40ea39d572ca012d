"""Any server with OpenAI's chat interface: `vllm serve`, SGLang, llama.cpp, or a provider's API.

    OPENAI_API_KEY=... python recipes/predict.py --engine openai --base-url https://HOST/v1 --model NAME ...

Requests run side by side in threads. What may pass (a time-out, a lost connection, status 408, 409, 429 or 5xx, an
answer that is no answer) is tried again after growing pauses; what won't (a wrong key, an unknown model) stops the run
with the server's own words.
"""

from __future__ import annotations

import base64
import codecs
import http.client
import io
import itertools
import json
import logging
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from sgrl.errors import SgrlError
from sgrl.inference.engines import Generation, RefusedPrompt, check_batch

logger = logging.getLogger(__name__)

BASE_URL, KEY_VARIABLE = "http://localhost:8000/v1", "OPENAI_API_KEY"
PASSING = (408, 409, 425, 429)  # and all from 500: the same request may succeed later
REFUSED = (400, 413, 422)  # this request is wrong (too long a prompt, for one), others may be right
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds
MAX_ANSWER = 32 * 2**20  # bytes that are read of one response


class OpenAIEngine:
    """See `sgrl.inference.load_engine`.

    Args:
        model: the server's name of the model.
        max_new_tokens: limit of one answer.
        batch_size: requests at a time (default 16).
        base_url: up to and with /v1.
        api_key_variable: name of the environment variable that holds the key; without one none is sent.
        timeout: seconds that a request may take.
        attempts: how often a request is sent at most.
        extra_body: more fields of every request, e.g. {"chat_template_kwargs": {"enable_thinking": False}}. A null
            takes one of ours out ({"logprobs": None} for a server that refuses it).
        pause: waits so many seconds; tests hand in their own.

    Attributes:
        requests, retries: sent so far.
    """

    name = "openai"

    def __init__(
        self,
        model: str,
        max_new_tokens: int = 1024,
        batch_size: int | None = None,
        *,
        base_url: str = BASE_URL,
        api_key_variable: str = KEY_VARIABLE,
        timeout: float = 120.0,
        attempts: int = 6,
        extra_body: Mapping | None = None,
        pause: Callable[[float], None] = time.sleep,
    ):
        if urlsplit(base_url).scheme not in ("http", "https"):
            raise SgrlError(f"the base URL is {base_url!r}; expected one such as {BASE_URL}")
        self.model, self.batch_size = model, batch_size or 16
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._headers = {"Content-Type": "application/json"}
        if os.environ.get(api_key_variable):
            self._headers["Authorization"] = f"Bearer {os.environ[api_key_variable]}"
        self._key_variable = api_key_variable
        self._timeout, self._attempts, self._pause = timeout, max(attempts, 1), pause
        self._body = {"model": model, "temperature": 0, "max_tokens": max_new_tokens, "logprobs": True}
        self._body |= extra_body or {}
        self._pool = ThreadPoolExecutor(self.batch_size, thread_name_prefix="openai")
        self._lock = threading.Lock()
        self.requests = self.retries = 0

    def generate(
        self, images: Sequence, prompts: Sequence, grammars: Sequence[str | None] | None = None
    ) -> list[Generation]:
        """As every engine. An image that got no answer after all attempts has the finish_reason "error", one whose
        prompt the server does not take "refused".

        Raises:
            SgrlError: the server refuses all requests in a way that trying again won't change.
        """
        grammars = check_batch(images, prompts, grammars)
        futures = [self._pool.submit(self._one, *work) for work in zip(images, prompts, grammars, strict=True)]
        found: list[Generation] = []
        refusal: SgrlError | None = None
        try:
            for future in futures:
                try:
                    found.append(future.result())
                except SgrlError as error:  # answers that came before are not lost
                    found.append(Generation("", 0, 0.0, "error", error=str(error)))
                    refusal = error
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        if refusal and all(one.error for one in found):
            raise refusal
        return found

    def _one(self, image, prompt, grammar: str | None) -> Generation:
        body = self._body | {"messages": messages(prompt, image)}
        if grammar:
            body["structured_outputs"] = {"grammar": grammar}  # vLLM's field
        data = json.dumps({key: value for key, value in body.items() if value is not None}).encode()
        wait = FIRST_PAUSE
        for attempt in range(1, self._attempts + 1):
            start = time.perf_counter()
            with self._lock:
                self.requests += 1
                self.retries += attempt > 1
            try:
                return generation(self._send(data), time.perf_counter() - start)
            except RefusedPrompt as error:
                return Generation("", 0, time.perf_counter() - start, "refused", error=str(error))
            except _Passing as error:
                problem = str(error)
                after = error.after
            if attempt < self._attempts:
                # Up to a half more, so that requests that failed together don't come back together.
                self._pause(min(after or wait * (1 + random.random() / 2), LONGEST_PAUSE))
                wait = min(wait * 2, LONGEST_PAUSE)
        logger.warning("%s gave no answer in %d attempts: %s", self._url, self._attempts, problem)
        return Generation("", 0, time.perf_counter() - start, "error", error=problem)

    def _send(self, data: bytes) -> object:
        request = urllib.request.Request(self._url, data, self._headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                text = response.read(MAX_ANSWER)
        except urllib.error.HTTPError as error:
            with error:
                said = _message(error.read(65536))
            if error.code in PASSING or error.code >= 500:
                raise _Passing(f"status {error.code}: {said}", _seconds(error.headers.get("Retry-After"))) from None
            hint = f"; is the key in the variable {self._key_variable} right?" if error.code in (401, 403) else ""
            kind = RefusedPrompt if error.code in REFUSED else SgrlError
            raise kind(f"{self._url} refuses the request (status {error.code}): {said}{hint}") from None
        except (OSError, http.client.HTTPException) as error:  # URLError, TimeoutError, ConnectionError are OSErrors
            raise _Passing(f"{type(error).__name__}: {error}") from None
        try:
            return json.loads(text)
        except ValueError:
            raise _Passing(f"an answer that is not JSON: {text[:80]!r}") from None

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class _Passing(Exception):
    """A failure after which the same request is worth another attempt, `after` seconds if the server says so."""

    def __init__(self, message: str, after: float | None = None):
        super().__init__(message)
        self.after = after


def messages(prompt: Sequence[Mapping], image) -> list[dict]:
    """A chat as the interface wants it, the image (losslessly, as PNG) before the text of the first user turn."""
    found = [dict(message) for message in prompt]
    if image is not None:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        for message in found:
            if message["role"] == "user":
                text = {"type": "text", "text": message["content"]}
                message["content"] = [{"type": "image_url", "image_url": {"url": url}}, text]
                break
    return found


def generation(answer: object, seconds: float) -> Generation:
    """A response's JSON as a Generation. Raises `_Passing` for what is no chat completion."""
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"] or ""  # null where the model only thought
        if not isinstance(text, str):
            raise TypeError(f"the content is a {type(text).__name__}")
        usage = answer.get("usage") or {}
        tokens, prompt_tokens = int(usage.get("completion_tokens") or 0), int(usage.get("prompt_tokens") or 0)
        reason = "length" if choice.get("finish_reason") == "length" else "stop"
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise _Passing(f"an answer that is no chat completion ({problem}): {str(answer)[:80]}") from None
    pieces, logprobs = _pieces(choice, text)
    return Generation(text, tokens, seconds, reason, prompt_tokens, pieces, logprobs)


def _pieces(choice: Mapping, text: str) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The tokens and their log-probabilities, if the server gives them and they are the text."""
    try:
        entries = choice["logprobs"]["content"]
        pieces = [str(entry["token"]) for entry in entries]
        logprobs = [float(entry["logprob"]) for entry in entries]
    except (KeyError, TypeError, ValueError):
        return (), ()
    if "".join(pieces) != text:
        # Special tokens at the end are not in the text, and a character may be spread over tokens: bytes tell.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces = [decoder.decode(bytes(entry.get("bytes") or ())) for entry in entries]
        if not "".join(pieces).startswith(text):
            return (), ()
        ends = [min(end, len(text)) for end in itertools.accumulate(map(len, pieces))]
        pieces = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return tuple(pieces), tuple(logprobs)


def _message(body: bytes) -> str:
    """The server's words in an error's body."""
    text = body.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
        found = found.get("error", found)
        text = str(found.get("message", found) if isinstance(found, dict) else found)
    except (ValueError, AttributeError):
        pass
    return text[:300] or "no message"


def _seconds(text: str | None) -> float | None:
    """A Retry-After of seconds; the form with a date is not waited for."""
    return float(text) if text and text.isascii() and text.isdecimal() and len(text) < 6 else None
