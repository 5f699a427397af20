"""Fit the guidance's weights: play the loop, note which voxels around each scribble were wrong, regress.

``python -m evaluation.interactive.fit --cases CASES`` prints the weights as they stand in
:mod:`algorithm.guidance.evidence`. In the first round a teacher, who knows the truth, corrects a little around
each scribble; in the later ones the weights fitted so far do: they learn from the masks that they will meet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import optimize, special

from algorithm.cases import Case, list_cases
from algorithm.errors import MissingInputError, UsageError, UserError
from algorithm.guidance.edit import Case as Evidence
from algorithm.guidance.edit import Stroke, edit, in_question, surround
from algorithm.guidance.evidence import FEATURES, Weights, look_around
from algorithm.weights import find_checkpoints, load_checkpoint
from evaluation.interactive.network import InProcess, Seen
from evaluation.interactive.scribbles import KINDS, draw
from evaluation.scoring.truths import read_truth

_SCRIBBLES = 5
_TEACHER_MM = (3.0, 20.0)  # how far around a scribble the teacher corrects, drawn anew each time
_SMALL = 4000  # voxels of truth and mask together; in smaller cases a voxel is worth no more than here
_RIDGE = 1e-3  # on standardised features: keeps weights of features that say the same from running apart
_EVERY = 4  # neighbouring voxels say much the same; every fourth is kept

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Example:
    """The voxels around one scribble.

    Attributes
    ----------
    tumour : bool
        The scribble's label.
    features : float array, (n, features)
    wrong : bool array, (n,)
    worth : float
        What one voxel is worth in Dice: a wrong edit in a small tumour costs more.
    """

    tumour: bool
    features: Floats
    wrong: NDArray[np.bool_]
    worth: float


def examples(
    seen: Seen, truth: NDArray[np.bool_], kind: str, rng: np.random.Generator, weights: Weights | None
) -> Iterable[Example]:
    """Play one case and yield what lies around each of its scribbles.

    Parameters
    ----------
    seen : Seen
    truth : bool array, z, y, x
    kind : str
        Of the lines.
    rng : numpy Generator
    weights : Weights or None
        Who corrects: None is the teacher.
    """
    case = Evidence(seen.probability, seen.suv, seen.ct, np.array(seen.spacing))
    mask, done = seen.mask.copy(), list[Stroke]()
    for _ in range(_SCRIBBLES):
        drawn = draw(truth, mask > 0, kind, rng)
        if drawn is None:
            return
        stroke = Stroke(drawn.label == "tumor", drawn.points)
        box, here = surround(mask, stroke, case)
        asked = in_question(here, np.zeros_like(here.wrong))
        wrong = truth[box] == stroke.tumour
        kept = np.flatnonzero(asked)[::_EVERY]
        features = look_around(here, asked)[::_EVERY]
        volume = max(int(truth.sum()) + int(mask.sum()), _SMALL)
        yield Example(stroke.tumour, features, wrong.flat[kept], 2.0 / volume)
        if weights is None:
            taught = asked & wrong & (here.distance_mm < rng.uniform(*_TEACHER_MM))
            mask[box][taught] = stroke.tumour
        else:
            edit(mask, stroke, done, case, weights)
        done.append(stroke)
        for each in done:
            mask[each.places] = each.tumour


def fit(found: Sequence[Example]) -> Weights:
    """Return the weights of two logistic regressions, rounded to three digits.

    Raises
    ------
    MissingInputError
        There is nothing to learn one of them from.
    """
    weights = []
    for tumour, what in ((True, "tumour that was missed"), (False, "what was called falsely")):
        alike = [each for each in found if each.tumour == tumour and each.wrong.size]
        if not alike:
            raise MissingInputError(
                f"no case gives a scribble on {what}; give more cases, or a network that errs in them"
            )
        weights.append(_regress(alike))
    return Weights(*weights)


def _regress(found: Sequence[Example]) -> tuple[float, ...]:
    features = np.concatenate([each.features for each in found])
    wrong = np.concatenate([each.wrong for each in found]).astype(np.float64)
    worth = np.concatenate([np.full(len(each.wrong), each.worth) for each in found])
    worth /= worth.sum()
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-9
    inputs = np.column_stack([(features - mean) / spread, np.ones(len(features))])

    def loss(weights: Floats) -> tuple[float, Floats]:
        odds = inputs @ weights
        ridge = np.append(np.full(len(FEATURES), _RIDGE), 0.0) * weights
        entropy = worth @ (np.logaddexp(0, odds) - wrong * odds)
        return float(entropy + ridge @ weights / 2), inputs.T @ (worth * (special.expit(odds) - wrong)) + ridge

    best = optimize.minimize(loss, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B").x
    plain = best[:-1] / spread
    constant = best[-1] - plain @ mean
    return tuple(float(f"{value:.3g}") for value in (*plain, constant))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--cases", type=Path, action="append", required=True, help="cases with truth; repeatable")
    parser.add_argument("--weights", type=Path, help="checkpoint (default: the installed one)")
    parser.add_argument("--rounds", type=int, default=3, help="the teacher's included (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=2, help="games per case, kind and round (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep the network's probabilities there")


def run(args: argparse.Namespace) -> int:
    """Fit and print.

    Raises
    ------
    UsageError
        No round or no game is asked for.
    MissingInputError
        No case has a truth, or none of them a mistake to learn from.
    """
    if min(args.rounds, args.repeats) < 1:
        raise UsageError(f"--rounds and --repeats must be at least 1, got {args.rounds} and {args.repeats}")
    cases = [case for source in args.cases for case in list_cases(source) if case.truth is not None]
    if not cases:
        raise MissingInputError(f"no case in {', '.join(map(str, args.cases))} has a truth; give cases with one")
    player = InProcess([load_checkpoint(path) for path in find_checkpoints(args.weights)], cache=args.cache)
    seen = [(player.see(case), _truth(case)) for case in cases]
    weights = fit_rounds(seen, rounds=args.rounds, repeats=args.repeats, seed=args.seed)
    for name, values in (("tumour", weights.tumour), ("background", weights.background)):
        print(f"{name}={values},", flush=True)
    return 0


def fit_rounds(
    cases: Sequence[tuple[Seen, NDArray[np.bool_]]], *, rounds: int, repeats: int, seed: int
) -> Weights:
    """Play all cases with all kinds of lines, round after round, and fit on all that was found so far."""
    found: list[Example] = []
    weights: Weights | None = None
    for each_round in range(rounds):
        for number, (seen, truth) in enumerate(cases):
            for repeat in range(repeats):
                for kind_number, kind in enumerate(KINDS):
                    rng = np.random.default_rng([seed, each_round, number, repeat, kind_number])
                    found += examples(seen, truth, kind, rng, weights)
        weights = fit(found)
        print(f"round {each_round + 1}: {len(found)} scribbles", flush=True)
    if weights is None:
        raise ValueError(f"there must be at least one round, got {rounds}")
    return weights


def _truth(case: Case) -> NDArray[np.bool_]:
    assert case.truth is not None, "the caller keeps only those"
    image = read_truth(case.truth, case.pet, on_own_grid=case.truth_on_own_grid)
    truth: NDArray[np.bool_] = sitk.GetArrayFromImage(image) > 0
    return truth


if __name__ == "__main__":
    options = argparse.ArgumentParser(prog="python -m evaluation.interactive.fit", description=__doc__)
    add_arguments(options)
    try:
        raise SystemExit(run(options.parse_args()))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
