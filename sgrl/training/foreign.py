"""What other people made: model folders and chat templates. No code of theirs runs, and what is wrong is one line."""

from __future__ import annotations

import json
import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgrl.errors import SgrlError
from sgrl.terminal import printable

if TYPE_CHECKING:
    from transformers import ProcessorMixin

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
LONGEST_REASON = 300  # characters of an error that is handed on

# Limits of a first try of a chat template. Processor time, for a busy machine must not matter; a sound one needs some
# thousandths of a second.
TRY_SECONDS, TRY_BYTES, TRY_WAIT = 3, 2**30, 120
TRY_TEXT = "Name the objects of the image, and what they do. " * 160  # as long as a prompt with all classes
LONGEST_PROMPT = 20 * len(TRY_TEXT)


def load_pretrained(kind: type, path: str, what: str, **kwargs: Any):
    """`kind.from_pretrained(path, **kwargs)`, where a model's own code runs only if `trust_remote_code` is True.

    Args:
        what: is loaded, for the message: "processor of" for one.

    Raises:
        SgrlError: for whatever is wrong; a damaged file fails in as many ways as there are lines that read it.
    """
    kwargs["trust_remote_code"] = bool(kwargs.get("trust_remote_code"))  # None asks a question on the terminal
    try:
        return kind.from_pretrained(path, **kwargs)
    except Exception as error:
        if "trust_remote_code" in str(error):
            said = "it needs code of its own, which is not run"
            change = "take a model of an architecture that transformers has (trust_remote_code: true trains others)"
        else:
            said, change = reason(error), "check `model_name_or_path` or --model, and copy or save the folder again"
        raise SgrlError(f"the {what} {path} cannot be loaded: {said}; {change}") from error


def load_weights(kind: type, path: str, **kwargs: Any):
    """A model by `load_pretrained`: from safetensors, never from pickles, and never with weights made up at random."""
    model, found = load_pretrained(kind, path, "model", use_safetensors=True, output_loading_info=True, **kwargs)
    missing = sorted(found["missing_keys"])
    if missing:
        raise SgrlError(
            f"the weights of {path} lack {len(missing)} tensors that its config.json wants, "
            f"{printable(missing[0], 100)} for one; copy or save the folder again"
        )
    return model


def reason(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {printable(' '.join(str(error).split()), LONGEST_REASON)}"


def check_files(folder: Path) -> None:
    """Refuse a model folder whose config.json or weights cannot be read; their headers are, no weight is.

    Raises:
        SgrlError: names the file.
    """
    from safetensors import SafetensorError, safe_open

    config = read_object(folder / "config.json")
    files = sorted(folder.glob("*.safetensors"))
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if not files and pickles:
        raise SgrlError(
            f"the model folder {folder} has its weights as pickles ({printable(pickles[0], 100)}), which may hold "
            "code and are not loaded; expected *.safetensors: where you trust it, load it with transformers and save "
            "it with save_pretrained"
        )
    if not files:
        kind = printable(config.get("model_type"), 40)
        raise SgrlError(f"the model folder {folder} has no weights (*.safetensors); expected those of a {kind}")
    for file in files:
        try:
            with safe_open(file, "np") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            raise SgrlError(f"the weights {file} cannot be read ({reason(error)}); copy or train them again") from None
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = read_object(index).get("weight_map")
        shards = set(map(str, shards.values())) if isinstance(shards, dict) else {"none"}
        missing = sorted(shards - {file.name for file in files})
        if missing:
            raise SgrlError(
                f"{index} names {len(missing)} files that are not there, {printable(missing[0], 100)} for one; copy "
                "the folder again"
            )


def read_object(path: Path) -> dict:
    """A JSON object of a model folder."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        said = f"it is a {type(found).__name__}"
    except (OSError, ValueError, RecursionError) as error:
        said = reason(error)
    raise SgrlError(f"{path} is no JSON object ({said}); copy or save the folder again")


################
# Chat templates: programs in a language without access to the machine, but with loops and memory
################

_TRIED: set[str] = set()


def render(processor, messages: list[dict], add_generation_prompt: bool = True, **arguments: Any) -> str:
    """The text that the chat template of a processor (or tokenizer) makes of a chat.

    Raises:
        SgrlError: the template fails.
    """
    try:
        return processor.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tokenize=False, **arguments
        )
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
        switches = ({"enable_thinking": True}, {"enable_thinking": False}, {})
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
