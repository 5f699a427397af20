"""The loop itself: a mask, a scribble in its largest error, the next mask, and the score of each."""

from __future__ import annotations

import json
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.cases import Case
from algorithm.errors import GeometryError, MissingInputError, UserError
from algorithm.images import read_image
from evaluation.interactive.scribbles import KINDS, Scribble, clicks, draw
from evaluation.scoring.editions import RULES
from evaluation.scoring.metrics import Scores, measure
from evaluation.scoring.truths import truth_on_pet

Segment = Callable[[Case, Path], NDArray[np.uint8]]
"""Takes a case and its ``lesion-clicks.json`` with all points so far; returns the mask (uint8 z, y, x) on the
PET's grid. A UserError is a failed call. Whatever answers to this can be played against: the network in this
process (:mod:`evaluation.interactive.network`), or a container."""

STEPS = {"IV": 11, "V": 6}
"""Predictions of a case by edition; the first is without scribbles."""

MIXED = "mixed"
KIND_CHOICES = (*KINDS, MIXED)
"""``mixed``: one kind per case, a third of the cases each."""

_FILE_VERSION = {"major": 1, "minor": 0}


@dataclass(frozen=True)
class Step:
    """One prediction of a case.

    Attributes
    ----------
    drawn : tuple of Scribble
        What was added before it; empty at the first step and where nothing was wrong.
    scores : Scores
        A failed call has those of an empty mask, Dice and lesion F1 of 0 also where there is no tumour.
    seconds : float
        Of the call.
    failure : str or None
        Why the call failed.
    """

    drawn: tuple[Scribble, ...]
    scores: Scores
    seconds: float
    failure: str | None = None


@dataclass(frozen=True)
class Played:
    """A case's steps in order, and the kind of line that it got (``click`` in IV)."""

    case: str
    kind: str
    steps: tuple[Step, ...]

    def values(self, metric: str) -> list[float]:
        """Return a field of :class:`evaluation.scoring.metrics.Scores` at each step."""
        return [float(getattr(step.scores, metric)) for step in self.steps]


def kinds_of(cases: Sequence[Case], kind: str, seed: int) -> dict[str, str]:
    """Say which kind of line each case gets, by its name; ``mixed`` deals the kinds out to the shuffled cases."""
    names = [case.name for case in cases]
    if kind != MIXED:
        return dict.fromkeys(names, kind)
    shuffled = np.random.default_rng(seed).permutation(sorted(names)).tolist()
    return {name: list(KINDS)[number % len(KINDS)] for number, name in enumerate(shuffled)}


def play(case: Case, segment: Segment, *, edition: str, kind: str, steps: int, seed: int) -> Played:
    """Play one case to the end.

    Parameters
    ----------
    case : Case
        With a truth.
    segment : callable
    edition : str
        ``V``: one line per step; ``IV``: a tumour and a background click per step. Its rules score the masks.
    kind : str
        A key of :data:`evaluation.interactive.scribbles.KINDS`; not used in IV.
    steps : int
        Predictions, the first one without scribbles.
    seed : int
        With the case's name it decides all that is random, whatever the other cases are.

    Raises
    ------
    MissingInputError
        The case has no truth.
    GeometryError
        The truth does not lie on the PET's grid.
    """
    truth_image = truth_on_pet(case, read_image(case.pet, "PET"))
    if truth_image is None:
        raise MissingInputError(
            f"the case {case.name} has no truth to draw scribbles from; give one or leave it out"
        )
    truth = sitk.GetArrayFromImage(truth_image) > 0
    rng = np.random.default_rng([seed, zlib.crc32(case.name.encode())])
    mask = np.zeros(truth.shape, dtype=bool)
    drawn: list[Scribble] = []
    played: list[Step] = []
    for number in range(steps):
        new = _drawn(truth, mask, edition, kind, rng) if number else []
        drawn += new
        began = time.monotonic()
        answer, failure = _call(segment, case, drawn, truth.shape)
        seconds = time.monotonic() - began
        mask = mask if answer is None else answer
        scored = np.zeros_like(truth) if answer is None else answer
        scores = measure(truth, scored, truth_image.GetSpacing(), RULES[edition], surfaces=False)
        if failure:
            scores = replace(scores, dice=0.0, lesion_f1=0.0)
        played.append(Step(tuple(new), scores, seconds, failure))
    return Played(case.name, kind if edition == "V" else "click", tuple(played))


def clicks_json(drawn: Sequence[Scribble]) -> str:
    """Return ``lesion-clicks.json`` as the organisers' loop writes it.

    All tumour points come before the background's, line after line, and a line's by x, then y: not along the line.
    """
    points = [
        {"point": point, "name": label}
        for label in ("tumor", "background")
        for scribble in drawn
        if scribble.label == label
        for point in sorted(scribble.points.tolist())
    ]
    return json.dumps({"version": _FILE_VERSION, "type": "Multiple points", "points": points})


def _drawn(
    truth: NDArray[np.bool_], mask: NDArray[np.bool_], edition: str, kind: str, rng: np.random.Generator
) -> list[Scribble]:
    if edition == "IV":
        return clicks(truth, mask)
    scribble = draw(truth, mask, kind, rng)
    return [] if scribble is None else [scribble]


def _call(
    segment: Segment, case: Case, drawn: Sequence[Scribble], shape: tuple[int, ...]
) -> tuple[NDArray[np.bool_] | None, str | None]:
    """Return the mask, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lesion-clicks.json"
        path.write_text(clicks_json(drawn), encoding="utf-8")
        try:
            mask = segment(case, path)
            if mask.shape != shape:
                raise GeometryError(
                    f"the mask has {mask.shape} voxels (z, y, x), the truth of {case.name} {shape}"
                )
        except UserError as error:
            return None, str(error)
    return mask > 0, None
