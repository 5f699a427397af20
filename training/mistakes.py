"""Where a network erred in cases, as a file: made by ``training.mining``, read by a training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithm.errors import UsageError
from algorithm.jsonfile import read_json
from algorithm.outputs import json_kind, written_as
from algorithm.weights import Checkpoint
from training.cache import Spacing

MISTAKES = json_kind("a list of mistakes", "weights", "spacing", "cases")

Place = tuple[int, int, int]
"""A voxel, x, y, z, of a cached case."""


@dataclass(frozen=True)
class Mistakes:
    """Where a network erred in one case: a voxel of each piece.

    Attributes
    ----------
    sha256 : str
        Of the cached case.
    missed : tuple of Place
        Lesions of which nothing is called.
    false : tuple of Place
        Pieces called that touch no lesion.
    """

    sha256: str
    missed: tuple[Place, ...] = ()
    false: tuple[Place, ...] = ()


def write_mistakes(mistakes: Mapping[str, Mistakes], checkpoint: Checkpoint, path: Path) -> None:
    """Write what was found by case as JSON, whole."""
    how = checkpoint.description
    content = {
        "weights": {"name": how.name, "sha256": how.sha256},
        "spacing": how.spacing,
        "cases": {
            name: {"sha256": each.sha256, "missed": each.missed, "false": each.false}
            for name, each in mistakes.items()
        },
    }
    with written_as(path, MISTAKES) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_mistakes(path: Path, spacing: Spacing) -> dict[str, Mistakes]:
    """Read what :func:`write_mistakes` wrote, for cases of a grid.

    Raises
    ------
    MissingInputError
        The file is missing or no JSON.
    UsageError
        It is no list of mistakes, or one on another grid.
    """
    content = read_json(path, "the mistakes")
    try:
        theirs = tuple(map(float, content["spacing"]))
        found = {str(name): _parsed(each) for name, each in content["cases"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{path} is no list of mistakes; make one with `python -m training mistakes --out {path}`"
        ) from error
    if theirs != tuple(spacing):
        raise UsageError(
            f"the mistakes in {path} lie on a grid of {_mm(theirs)} mm, and the training's is {_mm(spacing)}; "
            "give that --spacing, or make them with a network of this one"
        )
    return found


def _parsed(each: Mapping[str, Any]) -> Mistakes:
    missed, false = (tuple(_place(*place) for place in each[kind]) for kind in ("missed", "false"))
    return Mistakes(str(each["sha256"]), missed, false)


def _place(x: int, y: int, z: int) -> Place:
    return int(x), int(y), int(z)


def _mm(spacing: tuple[float, ...]) -> str:
    return "x".join(f"{side:g}" for side in spacing)
