"""Ways in which files break: flipped bits, lost ends, other formats' headers, numbers that nobody meant."""

from __future__ import annotations

import random
import re

Mutation = tuple[str, bytes]
_EXTREMES = ["0", "-1", "1e999", "NaN", "null", "true", "[]", "{}", '"x"', "2147483648", "1e12", "0.5", "-0.0"]
_WORDS = [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x01\x00\x00\x00"]


def mutated(content: bytes, others: list[bytes], is_text: bool, chance: random.Random) -> Mutation:
    """The name of one kind of damage, and ``content`` with it.

    Args:
        others: contents of files of other formats, which lend their beginnings.
        is_text: numbers in it are replaced by extreme ones too.
    """
    kinds = [_flips, _flips_in_the_head, _truncated, _longer, _foreign_head, _foreign, _blank, _repeated, _word]
    if is_text:
        kinds += 3 * [_extreme]
    kind = chance.choice(kinds)
    return kind.__name__.strip("_").replace("_", " "), kind(content, others, chance)


def _flips(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    return _with_flips(content, len(content), chance)


def _flips_in_the_head(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    return _with_flips(content, min(len(content), 64), chance)


def _with_flips(content: bytes, end: int, chance: random.Random) -> bytes:
    broken = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        broken[chance.randrange(end)] ^= 1 << chance.randrange(8)
    return bytes(broken)


def _truncated(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    return content[: chance.choice([chance.randrange(64), chance.randrange(len(content))])]


def _longer(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    place = chance.randrange(len(content) + 1)
    return content[:place] + chance.randbytes(chance.choice([1, 7, 300])) + content[place:]


def _foreign_head(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    other = chance.choice(others)
    length = chance.choice([4, 12, 44, 128])
    return other[:length] + content[chance.choice([0, length]) :]


def _foreign(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    return chance.choice(others)


def _blank(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    end = min(len(content), start + chance.choice([1, 16, 1000]))
    return content[:start] + bytes(end - start) + content[end:]


def _repeated(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    return content[:start] + content[start : start + chance.choice([4, 64, 4096])] * 2 + content[start:]


def _word(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Four bytes of the head become the smallest or the largest number."""
    start = chance.randrange(max(1, min(len(content), 128) - 4))
    return content[:start] + chance.choice(_WORDS) + content[start + 4 :]


def _extreme(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """A value of a text becomes an extreme one."""
    values = list(re.finditer(rb"(?<=[:\[,] )\s*[^\s\[\]{},:]+", content))
    if not values:
        return content[1:]
    found = chance.choice(values)
    return content[: found.start()] + chance.choice(_EXTREMES).encode() + content[found.end() :]
