"""What the rows and texts of the parts have in common."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.session import Session, times

Row = dict[str, str]

_OF_CASE = ("weights", "size", "spacing", "anatomies")
_OPTIONS_OF = {
    "patch": ("weights", "repetitions"),
    "body": (*_OF_CASE, "windows"),
    "startup": (*_OF_CASE, "repetitions"),
    "growth": (*_OF_CASE, "growing_flips", "growing_checkpoints"),
    "agreement": (*_OF_CASE, "flips", "cases"),
    "flips": (*_OF_CASE, "flips", "bodies"),
    "deadline": (*_OF_CASE, "time_limit"),
    "serving": (*_OF_CASE, "repetitions"),
    "neighbour": (*_OF_CASE, "repetitions", "setting"),
    "scoring": ("size", "lesions"),
    "gpu": (*_OF_CASE, "repetitions", "patch", "precision", "cases", "minutes"),
}


def patches_of(session: Session) -> list[Sequence[int]]:
    """Return the patch of each setting."""
    return [session.settings[setting]["patch"] for setting in session.options.setting]


def own_precision(session: Session, device: str) -> str:
    """Return what the product computes in by itself on a device, of those to compute in."""
    allowed = session.precisions(device)
    return "float16" if "float16" in allowed else allowed[-1]


def body_text(session: Session, settings: Sequence[str] | None = None) -> str:
    """Return the body and the settings, those chosen by default, in lines of Markdown."""
    lines = [f"Body: {session.body['how']}; {times(session.options.size)} voxels."]
    for setting in settings or session.options.setting:
        how = session.settings[setting]
        grid = "the image's own" if how["spacing"] is None else f"{times(how['spacing'])} mm"
        lines.append(
            f"Setting `{setting}`: {how['name']} ({how['weights'] or 'random'}); windows of {times(how['patch'])} "
            f"at {how['overlap']:.0%} overlap, spacing {grid}."
        )
    return "\n".join(f"* {line}" for line in lines)


def command(session: Session, part: str, **chosen: Any) -> str:
    """Return the command that measures a row and those it is compared with; what nobody chose is left out."""
    words = ["python", "-m", "benchmark", part]
    given = {name: getattr(session.options, name) for name in _OPTIONS_OF[part]}
    for name, value in {**given, **chosen}.items():
        if value is not None:
            words.append("--" + name.replace("_", "-"))
            words += map(_from_here, value if isinstance(value, (list, tuple)) else [value])
    return f"`{shlex.join(words)}`"


def _from_here(value: object) -> str:
    """Write a value as it can be repeated elsewhere: a path in the working folder relative to it."""
    path, here = Path(str(value)), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(value)
