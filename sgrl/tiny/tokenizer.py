"""The tokenizer of the tiny model: byte-level, with one token for each piece of a scene graph's text in one layout.

A general tokenizer spends 11 tokens on the row `  1,circle,4,8,40,44`; this one spends 6, one per cell, comma and line
break included, so a toy scene is about 35 tokens long. Any other text, another layout's too, is spelt in words that it
knows and in bytes, so nothing is ever lost or unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sgrl.text import get_codec


@dataclass(frozen=True)
class ChatFormat:
    """How a family of models writes chats with images.

    Attributes:
        tokens: the special tokens; images, videos and turns are marked by them.
        end_of_turn, pad: two of `tokens`.
        names: the attributes of the tokenizer by which the family's processor asks for its tokens.
        template: Jinja; a message's content is a string or a list of parts.
    """

    tokens: tuple[str, ...]
    end_of_turn: str
    pad: str
    names: dict[str, str]
    template: str


MAX_ROWS = 8  # headers and ids up to here are single tokens

QWEN = ChatFormat(
    tokens=(
        *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
    ),
    end_of_turn="<|im_end|>",
    pad="<|endoftext|>",
    names={
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
    },
    template=(
        "{%- for message in messages -%}"
        "{{- '<|im_start|>' + message.role + '\\n' -}}"
        "{%- if message.content is string -%}{{- message.content -}}"
        "{%- else -%}{%- for part in message.content -%}"
        "{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
        "{%- elif part.type == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}"
        "{%- else -%}{{- part.text -}}{%- endif -%}"
        "{%- endfor -%}{%- endif -%}"
        "{{- '<|im_end|>\\n' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    ),
)


def build_tokenizer(
    objects: Iterable[str],
    predicates: Iterable[str],
    image_size: int = 96,
    texts: Iterable[str] = (),
    chat: ChatFormat = QWEN,
    codec: str = "toon",
) -> PreTrainedTokenizerFast:
    """A tokenizer that encodes any text without loss.

    Args:
        objects, predicates: labels as the text of a graph spells them; each is one token, with what stands before it.
        image_size: coordinates from 0 to this (pixels) are single tokens.
        texts: prompts whose words become single tokens too.
        chat: the special tokens and the template.
        codec: the layout whose pieces are single tokens; those of graphs of at most `MAX_ROWS` rows a table.
    """
    layout = get_codec(codec)
    pattern = layout.token_pattern
    # dict.fromkeys keeps the first of equal pieces and their order, so that ids do not depend on a hash seed.
    pieces = dict.fromkeys(layout.tokens(list(objects), list(predicates), image_size, MAX_ROWS))
    for text in (*texts, "user", "assistant"):
        pieces.update(dict.fromkeys(re.findall(pattern, text)))

    to_byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    symbols = [
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        *(to_byte_level.pre_tokenize_str(p)[0][0] for p in pieces),
    ]
    ids = {symbol: i for i, symbol in enumerate(dict.fromkeys((*chat.tokens, *symbols)))}

    # ignore_merges looks a whole piece up first; with no merges the rest falls apart into bytes.
    backend = Tokenizer(models.BPE(vocab=ids, merges=[], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), behavior="isolated"), to_byte_level]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in chat.tokens])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=chat.end_of_turn,
        pad_token=chat.pad,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=chat.names,
    )
    tokenizer.chat_template = chat.template
    return tokenizer
