"""Chat templates: programs in a language without access to the machine, but with loops and memory."""

from __future__ import annotations

import os
import re
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgrl.errors import SgrlError
from sgrl.models.foreign import reason
from sgrl.models.vlm.bounded import TooLong, within
from sgrl.models.vlm.parts import placeholder_ids
from sgrl.terminal import printable

if TYPE_CHECKING:
    from transformers import PretrainedConfig, ProcessorMixin

# Limits of a first try of a chat template. Processor time, for a busy machine must not matter; a sound one needs some
# thousandths of a second.
TRY_SECONDS, TRY_BYTES, TRY_WAIT = 3, 2**30, 120
LATER_SECONDS = 20  # of each later use
TRY_TEXT = "Name the objects of the image, and what they do. " * 160  # as long as a prompt with all classes
LONGEST_PROMPT = 20 * len(TRY_TEXT)

# What a chat template begins with once a run has decided: what it does when nobody tells it `enable_thinking`.
_THINKING = "{{%- if enable_thinking is not defined %}}{{% set enable_thinking = {} %}}{{% endif -%}}\n"
_STORED = re.compile(
    r"\{%- if enable_thinking is not defined %\}\{% set enable_thinking = (true|false) %\}\{% endif -%\}\n"
)

_TRIED: set[str] = set()


def render(processor, messages: list[dict], add_generation_prompt: bool = True, **arguments: Any) -> str:
    """The text that the chat template of a processor (or tokenizer) makes of a chat.

    A template may loop for some chats alone, long after it has been tried: it is ended then. What it takes of memory
    is bounded in the first try only (see `try_template`).

    Raises:
        SgrlError: the template fails, or takes more than LATER_SECONDS of a processor.
    """
    try:
        with within(LATER_SECONDS):
            return processor.apply_chat_template(
                messages, add_generation_prompt=add_generation_prompt, tokenize=False, **arguments
            )
    except TooLong:
        raise _failing(f"it does not end within {LATER_SECONDS} s") from None
    except Exception as error:  # a template is a program of its own
        raise _failing(reason(error)) from error


def _failing(said: str) -> SgrlError:
    return SgrlError(f"the model's chat template fails: {said}; take chat_template.jinja of the base model")


def try_template(processor: ProcessorMixin, sees: bool) -> None:
    """Render a chat in a process of its own, once for each template, so that one that never ends is found out.

    sees: whether messages are lists that hold an image.

    Raises:
        SgrlError: it fails, takes more than TRY_SECONDS of a processor or TRY_BYTES of memory, or writes without end.
    """
    template = str(processor.chat_template)
    if template in _TRIED or not hasattr(os, "fork"):
        return
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _try(processor, sees, write)
    os.close(write)
    said = b""
    try:
        while select.select([read], [], [], TRY_WAIT)[0] and (more := os.read(read, 65536)):
            said += more
    finally:
        os.close(read)
        os.kill(child, signal.SIGKILL)  # not reaped yet, so the number is still its own
        os.waitpid(child, 0)
    if not said:
        raise _failing(f"it does not end within {TRY_SECONDS} s")
    if said != b"sound":
        raise _failing(printable(said.decode("utf-8", "replace")))
    _TRIED.add(template)


def _try(processor, sees: bool, write: int) -> None:
    """The other process. It ends here: nothing of the first one's may run twice."""
    said = ""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (TRY_SECONDS, TRY_SECONDS))
        pages = Path("/proc/self/statm")
        if pages.is_file():
            size = int(pages.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (size + TRY_BYTES, size + TRY_BYTES))
        text = [{"type": "image"}, {"type": "text", "text": TRY_TEXT}] if sees else TRY_TEXT
        chat = [{"role": "user", "content": text}]
        switches: tuple[dict[str, bool], ...] = ({"enable_thinking": True}, {"enable_thinking": False}, {})
        for arguments in switches if "enable_thinking" in str(processor.chat_template) else ({},):
            length = len(render(processor, chat, **arguments))
            if length > LONGEST_PROMPT:
                raise _failing(f"it makes {length:,} characters of {len(TRY_TEXT):,}")
        said = "sound"
    except SgrlError as error:
        said = str(error.__cause__ and reason(error.__cause__) or error)
    except BaseException as error:
        said = reason(error)
    finally:
        os.write(write, said.encode("utf-8", "replace")[:4000])
        os._exit(0)


def check_template(
    processor: ProcessorMixin, config: PretrainedConfig, template_kwargs: dict[str, Any], text: str
) -> str:
    """Refuse a chat template that does not give an image and a text exactly one placeholder for the image.

    Args:
        text: of a prompt.

    Returns: what the template makes of them.
    """
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
    rendered = render(processor, [message], **template_kwargs)
    ids = processor.tokenizer(rendered, add_special_tokens=False)["input_ids"]
    found = sum(ids.count(token) for token in placeholder_ids(config, processor))
    if found != 1:
        raise SgrlError(
            f"the chat template gives {found} placeholders for one image, expected 1; take chat_template.jinja and "
            "the tokenizer of the base model, and prompts without the model's special tokens"
        )
    return rendered


################
# Thinking
################


def template_arguments(processor: ProcessorMixin, thinking: bool | None = None) -> dict[str, Any]:
    """What the chat template is told about thinking: the same in SFT, GRPO and inference, nothing if it cannot think.

    Args:
        thinking: None takes what the model was trained with (see `store_thinking`), and no thinking for a model that
            was not trained here.

    Raises:
        SgrlError: for `thinking` with a template that has no such switch.
    """
    template = str(processor.chat_template)
    if "enable_thinking" in template:
        return {"enable_thinking": stored_thinking(template) if thinking is None else thinking}
    if thinking:
        raise SgrlError(
            "thinking: true, but the model's chat template has no `enable_thinking`; remove the line (--thinking)"
        )
    return {}


def stored_thinking(template: str) -> bool:
    """What `store_thinking` wrote into a template; False if nothing."""
    stored = _STORED.match(template)
    return bool(stored and stored[1] == "true")


def store_thinking(processor: ProcessorMixin, template_kwargs: dict[str, Any]) -> None:
    """Make a run's decision the chat template's own default, so that whatever loads the saved folder follows it.

    Args:
        processor: its template, and its tokenizer's, are changed.
        template_kwargs: what `template_arguments` gave; without `enable_thinking` nothing changes.
    """
    if "enable_thinking" in template_kwargs and isinstance(processor.chat_template, str):  # not several by name
        line = _THINKING.format(str(template_kwargs["enable_thinking"]).lower())
        processor.chat_template = line + _STORED.sub("", processor.chat_template, count=1)
        if getattr(processor, "tokenizer", None) is not None:
            processor.tokenizer.chat_template = processor.chat_template
