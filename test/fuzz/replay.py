"""Fuzzing without a fuzzer: the stored corpus, and seeded changes of it."""

from __future__ import annotations

import faulthandler
import random
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from test.fuzz.seeds import CORPUS
from test.fuzz.targets import TARGETS, Target, try_once

LONGEST_S = 10.0
"""For one input; more counts as a hang."""


@dataclass(frozen=True)
class Find:
    """An input that neither succeeded nor ended in one sentence."""

    target: str
    data: bytes
    reason: str


def stored(name: str) -> dict[str, bytes]:
    """Return a target's corpus by file name."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / name).iterdir())}


def changed(name: str, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield so many changes of a target's corpus, the same every time; changes are made on top of one another."""
    rng = random.Random(f"{name} {seed}")
    originals = list(stored(name).values())
    data = rng.choice(originals)
    for _ in range(count):
        data = TARGETS[name].mutate(rng.choice(originals) if rng.random() < 0.4 else data, rng)[:8192]
        yield data


def attempt(name: str, data: bytes, folder: Path) -> Find | None:
    """Try an input; a hang that Python cannot interrupt ends the process with its stack trace."""
    target: Target = TARGETS[name]
    faulthandler.dump_traceback_later(10 * LONGEST_S, exit=True, file=sys.__stderr__)
    began = time.monotonic()
    try:
        try_once(target, data, folder)
    except Exception:
        return Find(name, data, traceback.format_exc(limit=-4))
    finally:
        faulthandler.cancel_dump_traceback_later()
    seconds = time.monotonic() - began
    return Find(name, data, f"it took {seconds:.1f} s") if seconds > LONGEST_S else None
