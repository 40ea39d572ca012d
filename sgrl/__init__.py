"""Teach multimodal LLMs to write scene graphs."""

__version__ = "0.1.0"
