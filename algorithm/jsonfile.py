"""JSON files from outside, read within bounds: what they hold decides nothing before it was looked at."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any, TypeAlias

from algorithm.errors import MissingInputError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

MOST_BYTES = 64 * 2**20
"""Larger files are refused unread: a phase of 10,000 jobs takes a fifth of it."""

_DEEPEST = 50
_MOST_DIGITS = 300  # of a number: what a double can hold


def read_json(path: Path, what: str = "the file", *, most_bytes: int = MOST_BYTES) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path : Path
        A regular file.
    what : str
        What it is, for the errors.
    most_bytes : int
        Its largest size.

    Raises
    ------
    MissingInputError
        It is missing, no regular file, too large, no JSON in UTF-8, nested too deeply, or holds a number or text
        that nothing could mean.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise MissingInputError(f"cannot read {what} {path}: it is no regular file; put the JSON file there")
        if about.st_size > most_bytes:
            raise MissingInputError(
                f"cannot read {what} {path}: it has {about.st_size / 2**20:.0f} MiB, and more than "
                f"{most_bytes / 2**20:.0f} are not taken; check what was put there"
            )
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text, parse_constant=_refuse_constant, parse_float=_float, parse_int=_int)
        _check(content, 0)
    except OSError as error:
        raise MissingInputError(f"cannot read {what} {path}: {error.strerror}; put it there, readable") from error
    except (ValueError, RecursionError) as error:
        raise MissingInputError(f"{what} {path} is not JSON: {_shortened(str(error))}; correct it") from error
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {_shortened(text, 20)} is out of range")
    return number


def _int(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"the number {_shortened(text, 20)} is out of range")
    return int(text)


def _check(value: Any, depth: int) -> None:
    """Raise ValueError for nesting that recursion could not follow, and for text that cannot be printed."""
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
    if isinstance(value, str):
        value.encode()  # a lone surrogate fails here, with UnicodeEncodeError
        if "\0" in value:
            raise ValueError("a text holds a null character")
    elif isinstance(value, dict):
        for key, each in value.items():
            _check(key, depth)
            _check(each, depth + 1)
    elif isinstance(value, list):
        for each in value:
            _check(each, depth + 1)


def _shortened(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
