"""A tiny vision-language model that learns scene graphs on two CPU cores in minutes.

It is the Qwen3-VL architecture of transformers at toy size (0.8 M parameters) with its own tokenizer, saved as an
ordinary model folder: everything that trains, serves or measures a real model does the same with this one.
"""

from sgrl.tiny.model import build_tiny_vlm

__all__ = ["build_tiny_vlm"]
