"""Changes that lead deeper into a format than flipped bits: values, keys and lines are exchanged."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

_ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63),
    10**400,
    0.5,
    -0.0,
    1e308,
    1e-320,
    "",
    " ",
    "x" * 300,
    "../x",
    "/etc/passwd",
    "images/ct",
    "a\0b",
    "\ud800",
    "ü",
    "NaN",
    [],
    {},
    [[]],
    [1, 2, 3],
    [1e9, -1, 0.5],
    {"slug": "ct"},
    {"points": []},
)
_ODD_WORDS = (
    b"0",
    b"-1",
    b"1",
    b"2",
    b"3",
    b"4",
    b"1e308",
    b"1e-320",
    b"nan",
    b"inf",
    b"-inf",
    b"4294967296",
    b"65536",
    b"9" * 30,
    b"",
    b" ",
    b"\0",
    b"\xff\xfe",
    b"\n",
    b",",
    b'"',
    b":",
    b"=",
    b"LOCAL",
    b"voxels.raw",
    b"../x",
    b"/dev/zero",
    b"LIST",
    b"%d",
    b"True",
    b"False",
    b"gzip",
    b"raw",
    b"MET_FLOAT",
    b"MET_DOUBLE",
    b"uchar",
    b"double",
    b"none",
)
_KEYS = ("socket", "interface", "slug", "value", "image", "", "format")
_ODD_BYTES = (0, 1, 2, 4, 8, 16, 32, 64, 127, 128, 255)
_DEEPEST = 6


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Overwrite, insert, remove, repeat or cut off bytes."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        length = rng.choice((1, 1, 2, 4, 8, 16))
        match rng.randrange(6):
            case 0 | 1:
                changed[at : at + length] = bytes(rng.choice(_ODD_BYTES) for _ in range(length))
            case 2:
                changed[at:at] = bytes(rng.randrange(256) for _ in range(length))
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length]
            case _:
                changed[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(changed[: rng.randrange(len(changed) + 1)] if rng.random() < 0.05 else changed)


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Exchange words and lines of a text, or of the head of a file that begins with one."""
    if rng.random() < 0.25:
        return mutate_bytes(data, rng)
    lines = data.split(b"\n")
    at = rng.randrange(min(len(lines), 24))
    match rng.randrange(6):
        case 0:
            lines.insert(at, rng.choice(lines[:24]))
        case 1:
            del lines[at]
        case 2:
            lines[at] = lines[at] + b" " + rng.choice(_ODD_WORDS)
        case _:
            mark = rng.choice((b" ", b",", b"="))
            words = lines[at].split(mark)
            words[rng.randrange(len(words))] = rng.choice(_ODD_WORDS)
            lines[at] = mark.join(words)
    return b"\n".join(lines)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Exchange, remove, repeat or bury a value of a JSON text; a text that is none is changed byte by byte."""
    if rng.random() < 0.15:
        return mutate_bytes(data, rng)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, rng)
    for _ in range(rng.randint(1, 3)):
        content = _changed(content, rng, 0)
    return json.dumps(content).encode()


def _changed(value: Any, rng: random.Random, depth: int) -> Any:
    """Return a value with a change in it or in one of its members."""
    if isinstance(value, (dict, list)) and value and depth < _DEEPEST and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        match rng.randrange(8):
            case 0:
                del value[key]
            case 1 if isinstance(value, list):
                value.append(copy.deepcopy(value[key]))
            case 1 if isinstance(value, dict):
                value[rng.choice(_KEYS)] = copy.deepcopy(value[key])
            case _:
                value[key] = _changed(value[key], rng, depth + 1)
        return value
    if rng.random() < 0.1:
        return [copy.deepcopy(value) for _ in range(rng.choice((1, 2, 70)))]
    return copy.deepcopy(rng.choice(_ODD_VALUES))
