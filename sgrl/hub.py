"""Names on the Hugging Face Hub in the place of folders; folders that go there, and their cards."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sgrl.errors import SgrlError
from sgrl.extras import require
from sgrl.files import atomic_path
from sgrl.terminal import printable

if TYPE_CHECKING:
    from huggingface_hub import CardData

CARD = "README.md"

_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)

# The name in the code of a card that loads what the card is about.
_LOADED = re.compile(r'(?<=from_pretrained\()"(?:[^"\\\n]|\\.)*"|(?<= load\()"(?:[^"\\\n]|\\.)*"')


def is_name(path: str | Path) -> bool:
    """Whether this can only be a name on the Hub, owner/name: neither it nor the folder around it is here."""
    name = str(path)
    return bool(_NAME.fullmatch(name)) and not Path(name).exists() and not Path(name).parent.is_dir()


@functools.cache
def dataset_folder(name: str) -> Path:
    """The cached copy of a data set on the Hub, loaded once for each process: its Parquet files.

    Raises:
        SgrlError: it is not there, may not be read, or the Hub cannot be asked.
    """
    hub = require("huggingface_hub", "data", f"{name} does not exist here; asking the Hub for it")
    patterns = ["*.parquet"]
    return Path(
        _asked(name, "data set", lambda: hub.snapshot_download(name, repo_type="dataset", allow_patterns=patterns))
    )


@functools.cache
def check_model(name: str) -> None:
    """Refuse a name of which the Hub has no model, before anything is loaded.

    Raises:
        SgrlError: it is not there, may not be read, holds no config.json, or the Hub cannot be asked.
    """
    hub = require("huggingface_hub", "train", f"{name} does not exist here; asking the Hub for it")
    _asked(name, "model", lambda: hub.hf_hub_download(name, "config.json"))


def _asked(name: str, what: str, ask: Callable[[], str]) -> str:
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    here = f"{name} does not exist here, and"
    try:
        return ask()
    except GatedRepoError:
        raise SgrlError(
            f"{here} the {what} of that name on the Hub is gated: ask for access there, then `hf auth login`"
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise SgrlError(
            f"{here} the Hub has no {what} of that name; check it, or `hf auth login` if it is private"
        ) from None
    except LocalEntryNotFoundError:
        why = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "no network"
        raise SgrlError(
            f"{here} the Hub cannot be asked for a {what} of that name ({why}); check the path, or connect"
        ) from None
    except EntryNotFoundError:
        raise SgrlError(f"{here} what the Hub has of that name holds no config.json: no whole {what}") from None
    except (HfHubHTTPError, OSError) as error:
        reason = printable(" ".join(str(error).split()) or type(error).__name__, 200)
        raise SgrlError(
            f"{here} the Hub did not give the {what} of that name: {reason}; try again, or check the path"
        ) from None


def card(about: CardData, mark: str, parts: Sequence[str]) -> str:
    """The text of a README.md: the head that the Hub reads, `mark` (a comment), and paragraphs."""
    return "\n\n".join([f"---\n{about.to_yaml()}\n---\n{mark}", *parts]) + "\n"


def quoted(name: str | Path) -> str:
    """A path as it stands in the code of a card."""
    return json.dumps(str(name), ensure_ascii=False)


def push(
    folder: str | Path, repository: str, kind: str, private: bool, mark: str, patterns: Mapping[str, list[str]]
) -> str:
    """Upload a folder and return its address. An interrupted upload goes on where it was.

    Args:
        kind: "model" or "dataset".
        mark: a card that has it is ours: its code will load the repository from now on.
        patterns: `allow_patterns` and `ignore_patterns` of the files.

    Raises:
        SgrlError: no such rights, no network.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi()
    try:
        address = api.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
        _readdress(Path(folder, CARD), address.repo_id, mark)
        api.upload_large_folder(
            repo_id=address.repo_id, repo_type=kind, folder_path=folder, print_report=False, **patterns
        )
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SgrlError(
            f"{folder} is complete, but pushing it to {repository} failed: {reason}. Run the command again, which "
            "only pushes; `hf auth login` may be needed"
        ) from None
    return str(address)


def _readdress(path: Path, repository: str, mark: str) -> None:
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    changed = _LOADED.sub(lambda _: quoted(repository), text)
    if mark in text and changed != text:
        with atomic_path(path) as temporary:
            temporary.write_text(changed, encoding="utf-8")
