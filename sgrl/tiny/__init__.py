"""A tiny vision-language model that learns scene graphs on two CPU cores in minutes.

It is the Qwen3-VL architecture of transformers at toy size (0.8 M parameters) with its own tokenizer, saved as an
ordinary model folder: everything that trains, serves or measures a real model does the same with this one. The other
families that the recipes are for, Qwen3.5, Qwen2.5-VL, InternVL and SmolVLM (Idefics3), are built alike (`--family`),
to try out a setting in seconds before a real model is loaded.
"""

from sgrl.tiny.model import Tiny, build_tiny_vlm

__all__ = ["Tiny", "build_tiny_vlm"]
