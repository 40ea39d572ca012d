"""Teach multimodal LLMs to write scene graphs."""

from sgrl import moved as _moved  # noqa: F401  old names of modules can be imported

__version__ = "0.1.0"
