"""A model as judge: yes-or-no questions of text, asked once, with every answer kept on disk.

    judge = EngineJudge(lambda: load_engine("vllm", MODEL, max_new_tokens=16), MODEL, Path("answers.jsonl"))
    judge(["Do cup and mug mean the same? Answer with one word, yes or no."])   # [True]

What the questions are is no matter of this module; `rewards.metrics.soft` asks some.
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sgrl.errors import SgrlError
from sgrl.files import named
from sgrl.inference.engine import Engine, Generation
from sgrl.inference.video import generate_apart
from sgrl.progress import Progress
from sgrl.text.answer import without_thoughts

logger = logging.getLogger(__name__)

YES_OR_NO = 'root ::= "yes" | "no"'
"""The grammar that makes any model answer."""

_WORD = re.compile(r"[^\W_]+")
_VERDICTS = {"yes": True, "no": False, "true": True, "false": False}
_SHORT = _VERDICTS | {"1": True, "0": False, "y": True, "n": False}
"""What counts as a whole answer; within a sentence, numbers and letters name steps and options."""

_ABROAD = dict.fromkeys("ja oui sí sì si sim да 是 是的 对 はい 예 네".split(), True)
_ABROAD |= dict.fromkeys("nein non não nao нет 不 不是 否 不对 いいえ 아니요 아니오".split(), False)
"""Beginnings of an answer in the language of the labels."""

_LIST_NUMBER = re.compile(r"\W*\d{1,2}[.):]\s+(?=\S)")
_BOTH = re.compile(r"\b(?:yes|no|true|false) ?(?:or|and|/|\|) ?(?:no|yes|false|true)\b")
_FOLLOWED = re.compile(r"[ \t]*([^\W_]+)|[-'’](?=[^\W_])")
_GOES_ON = frozenset("a an as because but i in it since so that the they these this those we you".split())
"""Words that may follow a verdict without a comma; before others "no" belongs to a noun: "no difference"."""

_UNSAID = re.compile(r"n['’]t\b|\b(?:not|never|cannot|neither|nor|hardly|if|whether|either)\b")
_LOOK_BACK = 40


def verdict(answer: str) -> bool | None:
    """What an answer says, None if it says neither or both.

    Thoughts, cut off or not, and the number of a list are no part of it. JSON says what its values say; other texts
    what they begin with, if that is yes or no (true or false; 1 or 0 only alone), else whichever of them stands by
    itself. "No difference" and "I cannot say yes" are no verdicts.

    >>> verdict("Yes, no doubt."), verdict("<think>yes?</think>The answer is **no**"), verdict("They may be.")
    (True, False, None)
    >>> verdict("1. No"), verdict("Step 1: look"), verdict("There is no difference."), verdict('{"same": true}')
    (False, None, None, True)
    """
    text = without_thoughts(answer).strip().lower()
    words = list(itertools.islice(_WORD.finditer(text), 3))
    if len(words) == 1 and words[0][0] in _SHORT:
        return _SHORT[words[0][0]] if not text.endswith("?") else None
    if (body := text.removeprefix("```json").strip("`\n ")).startswith(("{", "[")):
        try:
            return _only(_verdicts_in(json.loads(body)))
        except (ValueError, RecursionError):
            pass  # cut off, or not JSON
    if number := _LIST_NUMBER.match(text):
        text = text[number.end() :]
    text = _BOTH.sub(" ", text)
    found: set[bool] = set()
    for place, match in enumerate(_WORD.finditer(text)):
        first = place == 0
        if first and match[0] in _ABROAD:
            return _ABROAD[match[0]]
        if match[0] in _VERDICTS and _stands_alone(text, match, first=first):
            if first:
                return _VERDICTS[match[0]]
            found.add(_VERDICTS[match[0]])
    return _only(found)


def _stands_alone(text: str, match: re.Match, first: bool) -> bool:
    """Whether a word is a verdict, not a part of another phrase."""
    followed = _FOLLOWED.match(text, match.end())
    if followed and followed[1] not in _GOES_ON and not (first and match[0] == "yes" and followed[1]):
        return False
    if text[match.end() : match.end() + 1] == "?":
        return False
    before = re.split(r"[.!?;:,\n]", text[max(0, match.start() - _LOOK_BACK) : match.start()])[-1]
    return not _UNSAID.search(before)


def _verdicts_in(value: object) -> set[bool]:
    """The verdicts among the values of a JSON answer."""
    if isinstance(value, dict | list):
        values = value.values() if isinstance(value, dict) else value
        return set().union(*map(_verdicts_in, values))
    word = str(value).strip(" .!*_`").lower()
    return {_SHORT[word]} if word in _SHORT else set()


def _only(found: set[bool]) -> bool | None:
    return next(iter(found)) if len(found) == 1 else None


class EngineJudge:
    """Asks an engine what it has not been asked before.

    Args:
        load: makes the engine; called only if there is something to ask.
        identity: of the model and of all that its answers depend on. Answers of another one are not taken.
        cache: JSONL file of answers, appended to as they come; several runs and judges may share it.
        constrain: decode by a grammar of the two answers (vLLM and transformers, offline or served by vLLM).

    Attributes:
        asked, known: questions put to the model by this object, and those whose answers were on disk.
        tokens, prompt_tokens: of all answers used, also of those on disk.
        unclear: the answers that are neither yes nor no, by question.
    """

    def __init__(self, load: Callable[[], Engine], identity: str, cache: Path, constrain: bool = False):
        self._load = load
        self._engine: Engine | None = None
        self.identity, self.cache, self.constrain = identity, Path(cache), constrain
        self.asked = self.known = self.tokens = self.prompt_tokens = 0
        self.unclear: dict[str, str] = {}

    def __call__(self, questions: Sequence[str]) -> list[bool | None]:
        """True for yes, False for no, None for an answer that is neither, for each of the (distinct) questions.

        Raises:
            SgrlError: some got no answer. What came is on disk, and the same call asks for the others again.
        """
        answers = self._read(set(questions))
        missing = [question for question in questions if question not in answers]
        self.known += len(questions) - len(missing)
        answers |= self._ask(missing) if missing else {}
        verdicts = []
        for question in questions:
            row = answers[question]
            self.tokens += row["tokens"]
            self.prompt_tokens += row["prompt_tokens"]
            verdicts.append(verdict(row["answer"]))
            if verdicts[-1] is None:
                self.unclear[question] = row["answer"]
        return verdicts

    def _ask(self, questions: list[str]) -> dict[str, dict]:
        engine = self._engine = self._engine or self._load()
        answers: dict[str, dict] = {}
        failed: list[str] = []
        # Several batches at once keep the engine busy; what an interruption loses is one such chunk.
        size = 4 * engine.batch_size
        with Progress("judging", len(questions), "question", where=self.cache) as progress:
            for start in range(0, len(questions), size):
                chunk = questions[start : start + size]
                chats = [[{"role": "user", "content": question}] for question in chunk]
                grammars = [YES_OR_NO if self.constrain else None] * len(chunk)
                done = generate_apart(engine, [None] * len(chunk), chats, grammars)
                rows = [self._row(*pair) for pair in zip(chunk, done, strict=True) if pair[1].error is None]
                self._append(rows)
                self.asked += len(rows)
                answers |= {row["question"]: row for row in rows}
                failed += [one.error for one in done if one.error is not None]
                progress.update(len(chunk))
                if not rows:
                    break  # the server is gone
        if failed:
            raise SgrlError(
                f"{len(questions) - len(answers):,} of {len(questions):,} questions got no answer ({failed[0]}); the "
                f"others are in {self.cache}, and the same command goes on there"
            )
        return answers

    def _row(self, question: str, done: Generation) -> dict:
        return {
            **{"judge": self.identity, "question": question, "answer": done.text},
            **{"tokens": done.tokens, "prompt_tokens": done.prompt_tokens},
        }

    def _read(self, questions: set[str]) -> dict[str, dict]:
        """This judge's answers to these questions that are on disk."""
        found: dict[str, dict] = {}
        damaged = 0
        if self.cache.exists():
            with open(self.cache, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    try:
                        row = json.loads(line)
                        if row["judge"] == self.identity and row["question"] in questions:
                            row["answer"] + ""
                            row["tokens"] + row["prompt_tokens"] + 0
                            found[row["question"]] = row
                    except (ValueError, KeyError, TypeError):
                        damaged += bool(line.strip())
        if damaged:
            logger.warning(
                "%s: %d damaged lines were passed over; their questions are asked again.", self.cache, damaged
            )
        return found

    def _append(self, rows: Iterable[dict]) -> None:
        """One write, so that several processes may share the file; it begins a new line after half a one."""
        # ASCII: an answer may hold halves of a character that UTF-8 can't write.
        text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows).encode()
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        with named(self.cache), open(self.cache, "ab+", buffering=0) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    text = b"\n" + text
            if file.write(text) < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Free the model's memory."""
        if self._engine is not None:
            self._engine.close()
