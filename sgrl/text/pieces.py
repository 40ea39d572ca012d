"""What may be one token of a tokenizer that is made for a layout: see `Codec.token_pattern`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

TAGS = ("<answer>", "\n</answer>")
TAG = r"\n?</?answer>"
WORD = r"| ?[A-Za-z]+"  # of a prompt
ROW_OF_ID = r"|\n *\d{1,3}(?=,)"  # a row's first cell: line break, indent and id
NUMBER = r"|,\d{1,3}(?!\d)"  # a coordinate or an id
LABEL = r"|,[A-Za-z][\w-]*"  # a class or a predicate


def header(relation_table: str) -> str:
    """Pattern of a TOON table's header with its number of rows."""
    return rf"|\n?(?:obj|{relation_table})\[\d+\](?:\{{[a-z0-9,]+\}})?:"


def headers(objects: str, relations: str, rows: int) -> list[str]:
    """The headers of tables of 0 to `rows` rows; `{}` stands for the number."""
    return [f"\n{table.format(count)}" for table in (objects, relations) for count in range(rows + 1)]


def behind(before: str, texts: Iterable[Any]) -> list[str]:
    """Each text, with what stands before it in the same token."""
    return [f"{before}{text}" for text in texts]
