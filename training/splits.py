"""Which patients train, validate and test; always by patient, never by study."""

from __future__ import annotations

import itertools
import json
import logging
import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from algorithm.errors import MissingInputError, UsageError
from algorithm.jsonfile import read_json
from algorithm.outputs import json_kind, written_as
from training.parallel import is_first_to_be

log = logging.getLogger(__name__)

SPLIT = json_kind("a split", "train", "validation", "test")

PAPER_SHARES = (0.6, 0.2, 0.2)
"""Training, validation and test share of the cases in sorted order (released training code)."""


@dataclass(frozen=True)
class Split:
    """Names of the patients that train, validate and test."""

    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = self.patients
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise UsageError(f"the split names {', '.join(twice)} more than once; a patient has one role")

    @property
    def patients(self) -> tuple[str, ...]:
        """All that it names."""
        return self.train + self.validation + self.test

    def __add__(self, other: Split) -> Split:
        """Return both splits together, for patients of several data sets."""
        return Split(self.train + other.train, self.validation + other.validation, self.test + other.test)


def paper_split(patients: Iterable[str]) -> Split:
    """Split 60/20/20 in sorted order, as the paper's authors did; the shares are rounded to whole patients.

    AutoPET III's FDG and PSMA patients are split apart: in one sorted row no PSMA patient would train.
    """
    split = Split(())
    for _, group in itertools.groupby(sorted(set(patients), key=lambda name: (_tracer(name), name)), key=_tracer):
        ordered = tuple(group)
        first = round(PAPER_SHARES[0] * len(ordered))
        second = first + round(PAPER_SHARES[1] * len(ordered))
        split += Split(ordered[:first], ordered[first:second], ordered[second:])
    return split


def _tracer(patient: str) -> str:
    """Return the tracer that AutoPET III's names begin with, or nothing."""
    match = re.match(r"(fdg|psma)_", patient)
    return match[1] if match else ""


def fold_split(patients: Iterable[str], fold: int, folds: int, seed: int = 0) -> Split:
    """Return one of k folds (from 0): its patients are the test set, all the others train.

    There is no validation set, so nothing can be tuned on the fold that is reported.

    Raises
    ------
    UsageError
        There are fewer patients than folds.
    """
    ordered = sorted(set(patients))
    if not 2 <= folds <= len(ordered):
        raise UsageError(
            f"the number of folds must lie between 2 and the {len(ordered)} patients (synthetic bodies of one "
            f"anatomy count as one), got {folds}"
        )
    shuffled = list(ordered)
    random.Random(seed).shuffle(shuffled)
    held_back = set(shuffled[fold::folds])
    return Split(
        train=tuple(name for name in ordered if name not in held_back),
        test=tuple(name for name in ordered if name in held_back),
    )


def choose_split(rule: str, patients: Iterable[str], seed: int = 0) -> Split:
    """Split patients by a rule as given on the command line.

    Parameters
    ----------
    rule : str
        ``paper`` (60/20/20 in sorted order, tracers apart), ``all`` (everybody trains), ``fold:K/N`` (fold K of N,
        from 0), or the path of a stored split.
    patients : iterable of str
    seed : int
        Of the folds.

    Raises
    ------
    UsageError
        The rule is none of these.
    """
    names = sorted(set(patients))
    if rule == "paper":
        return paper_split(names)
    if rule == "all":
        return Split(train=tuple(names))
    if rule.startswith("fold:"):
        fold, folds = parse_fold(rule)
        return fold_split(names, fold, folds, seed)
    stored = read_split(Path(rule))
    here = set(names)
    return Split(*(tuple(name for name in role if name in here) for role in asdict(stored).values()))


def is_stored(rule: str) -> bool:
    """Tell whether a rule as given on the command line is the path of a stored split."""
    return rule not in ("paper", "all") and not rule.startswith("fold:")


def check_rule(rule: str) -> None:
    """Raise UsageError for a rule that makes no sense with whatever patients, before any are looked for."""
    if rule.startswith("fold:"):
        parse_fold(rule)
    elif is_stored(rule):
        read_split(Path(rule))


def warn_of_differences(path: Path, named: Collection[str], known: Collection[str], what: str) -> None:
    """Warn of those that a file of roles does not name, whom it leaves out, and of its names that are nobody's."""
    if not is_first_to_be():
        return  # the others need not say it again
    lost, unknown = sorted(set(known) - set(named)), sorted(set(named) - set(known))
    if lost:
        log.warning("%d %s have no role in %s and are left out: %s", len(lost), what, path, _first(lost))
    if unknown:
        log.warning("%d names in %s are not among the %s: %s", len(unknown), path, what, _first(unknown))


def _first(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def parse_fold(rule: str) -> tuple[int, int]:
    """Return K and N of ``fold:K/N``.

    Raises
    ------
    UsageError
        N is below 2, or K is not one of 0 to N - 1.
    """
    match = re.fullmatch(r"fold:(\d+)/(\d+)", rule)
    if not match:
        raise UsageError(f"a fold is given as fold:K/N, for example fold:0/5, got {rule!r}")
    fold, folds = int(match[1]), int(match[2])
    if folds < 2:
        raise UsageError(f"a fold is one of at least 2, got {rule!r}")
    if fold >= folds:
        raise UsageError(f"the fold must lie between 0 and {folds - 1}, got {fold}")
    return fold, folds


def read_split(path: Path) -> Split:
    """Read a split stored as JSON: ``{"train": [...], "validation": [...], "test": [...]}``.

    Raises
    ------
    UsageError
        The file is missing or is not of this form.
    """
    try:
        content = read_json(path, "the split")
        if not isinstance(content, dict):
            raise TypeError("it is no object")
        return Split(**{role: _names(role, names) for role, names in content.items()})
    except (MissingInputError, TypeError) as error:
        raise UsageError(
            f"cannot use {path} as a split ({error}); give paper, all, fold:K/N or a JSON file with the lists "
            "train, validation and test"
        ) from error


def _names(role: str, names: object) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{role} must be a list of names, got {names!r:.100}")
    return tuple(names)


def write_split(split: Split, path: Path) -> None:
    """Store a split as JSON, whole."""
    with written_as(path, SPLIT) as temporary:
        temporary.write_text(json.dumps(asdict(split), indent=2) + "\n", encoding="utf-8")


def nnunet_folds(path: Path, patient_of: dict[str, str]) -> list[Split]:
    """Read the folds of an nnU-Net ``splits_final.json``.

    Parameters
    ----------
    path : Path
    patient_of : dict
        Case name to patient; cases of the file that are not here are left out.

    Raises
    ------
    UsageError
        The file is not of this form, or separates the studies of one patient.
    """
    try:
        content = read_json(path, "the folds")
        folds = [(_names("train", fold["train"]), _names("val", fold["val"])) for fold in content]
    except (MissingInputError, TypeError, KeyError) as error:
        raise UsageError(f"cannot read the folds in {path}: {error}; expected nnU-Net's form") from error
    try:
        return [
            Split(
                train=tuple(sorted({patient_of[name] for name in train if name in patient_of})),
                test=tuple(sorted({patient_of[name] for name in held_back if name in patient_of})),
            )
            for train, held_back in folds
        ]
    except UsageError as error:
        raise UsageError(
            f"{path} separates the studies of a patient: {error}; correct the file, or move it away and folds are "
            "drawn by patient"
        ) from error
