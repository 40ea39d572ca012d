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


# What may be one token. A piece that is not in the vocabulary is spelt in bytes.
_TAG = r"\n?</?answer>"
_TABLES = (
    r"|\n?(?:obj|rel)\[\d+\](?:\{[a-z0-9,]+\})?:"  # a table's header with its number of rows
    r"|\n *\d{1,3}(?=,)"  # a row's first cell: line break, indent and id
    r"|,\d{1,3}(?!\d)"  # a coordinate or an id
    r"|,[A-Za-z][\w-]*"  # a class or a predicate
)
_WORD = r"| ?[A-Za-z]+"  # of a prompt
PIECES = {
    "toon": _TAG + _TABLES + _WORD,
    "toon-lean": _TAG + r"|\n [A-Za-z][\w-]*(?=,)" + _TABLES + _WORD,  # a row begins with a class or a predicate
    "json": (
        _TAG + r'|\n\{"objects": \[|\], "relationships": \['
        r'|(?:, )?\{"(?:id|subject)": "|", "bbox": \[|", "(?:predicate|object)": "|\]\}|"\}'
        r'|(?<=")[A-Za-z][\w-]*(?:\.\d+)?(?=")'  # a class with its number, or a predicate
        r"|(?<=\[)\d{1,3}(?=,)|, \d{1,3}(?!\d)" + _WORD
    ),
}
"""Layout -> the pattern of its pieces."""

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


def scene_graph_pieces(
    objects: Iterable[str], predicates: Iterable[str], image_size: int, codec: str = "toon"
) -> list[str]:
    """The pieces of every graph with these labels, at most `MAX_ROWS` rows and coordinates up to `image_size`."""
    objects, predicates = list(objects), list(predicates)
    counts, numbers = range(MAX_ROWS + 1), range(image_size + 1)
    tags = ["<answer>", "\n</answer>"]
    if codec == "json":
        return [
            *tags,
            *('\n{"objects": [', '], "relationships": ['),
            *('{"id": "', ', {"id": "', '{"subject": "', ', {"subject": "'),
            *('", "bbox": [', '", "predicate": "', '", "object": "', "]}", '"}'),
            *(f"{label}.{row}" for label in objects for row in range(1, MAX_ROWS + 1)),
            *predicates,
            *(f"{before}{number}" for before in ("", ", ") for number in numbers),
        ]
    if codec == "toon-lean":
        return [
            *tags,
            *(f"\nobj[{count}]{{name,x1,y1,x2,y2}}:" for count in counts),
            *(f"\nrel[{count}]{{pred,subj,obj}}:" for count in counts),
            *(f"\n {label}" for label in (*objects, *predicates)),
            *(f",{number}" for number in numbers),
        ]
    return [
        *tags,
        *(f"\nobj[{count}]{{id,name,x1,y1,x2,y2}}:" for count in counts),
        *(f"\nrel[{count}]{{subj,pred,obj}}:" for count in counts),
        *(f"\n  {row}" for row in range(1, MAX_ROWS + 1)),
        *(f",{number}" for number in numbers),
        *(f",{label}" for label in (*objects, *predicates)),
    ]


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
        codec: the layout whose pieces are single tokens, one of `PIECES`.
    """
    pattern = PIECES[codec]
    # dict.fromkeys keeps the first of equal pieces and their order, so that ids do not depend on a hash seed.
    pieces = dict.fromkeys(scene_graph_pieces(objects, predicates, image_size, codec))
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
