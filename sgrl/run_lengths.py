"""COCO's compressed run lengths: counts as text, and back."""

from __future__ import annotations

from collections.abc import Sequence


def uncompressed(text: str | bytes) -> list[int]:
    """COCO's compressed counts: five bits a character, each count after the second less the last but one."""
    data = text.encode("ascii") if isinstance(text, str) else text
    counts: list[int] = []
    i = 0
    while i < len(data):
        value = shift = 0
        more = True
        while more:
            bits = data[i] - 48
            if not 0 <= bits < 64:
                raise ValueError(f"character {data[i : i + 1]!r} in counts")
            value |= (bits & 31) << shift
            shift += 5
            i += 1
            more = bool(bits & 32)
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


def compressed(counts: Sequence[int]) -> str:
    """What `uncompressed` reads."""
    letters = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            letters.append(chr((bits | 32 * more) + 48))
    return "".join(letters)
