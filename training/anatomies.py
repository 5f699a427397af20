"""Whose organs a case shows: a synthetic body has those of the patient that it was made of.

A body is ``synthetic_0000_ANATOMY`` of the patient ``synthetic_0000``, as synthesis writes it; ANATOMY is named
after the study of a patient.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple

from algorithm.cases import patient_of
from training.cache import Cache, CachedCase
from training.splits import Split

_SET_PREFIX = re.compile(r"(PETCT|fdg)_(?=[0-9a-f]+$)")
"""Of FDG-PET-CT-Lesions' folders and of the same patients' names in AutoPET III."""


def person(patient: str) -> str:
    """Return what a patient is called in every data set that has him."""
    return _SET_PREFIX.sub("", patient)


def leaders_of(cases: Iterable[CachedCase]) -> dict[str, str]:
    """Return of each patient whose role he shares in a split: his own, unless he is a synthetic body.

    A body follows the patient whose organs it shows where he is among the cases, or else the first such body.
    """
    ordered = sorted(cases, key=lambda case: case.patient)
    leader: dict[str, str] = {}
    first: dict[str, str] = {}  # who leads, by the names that an anatomy may have
    for case in ordered:
        if _anatomy_of(case) is None:
            leader[case.patient] = first[case.name] = first[person(case.patient)] = case.patient
    for case in ordered:
        anatomy = _anatomy_of(case)
        if anatomy is not None:
            own = leader.get(case.patient, case.patient)
            leads = first.get(anatomy) or first.setdefault(person(patient_of(anatomy)), own)
            leader.setdefault(case.patient, leads)
    return leader


def with_followers(split: Split, leader: Mapping[str, str]) -> Split:
    """Give those whom a split does not name the role of the patient whom they follow."""
    named = set(split.patients)
    led: dict[str, list[str]] = {}
    for patient, name in leader.items():
        if patient not in named:
            led.setdefault(name, []).append(patient)
    return Split(*(tuple(each for name in role for each in (name, *led.get(name, ()))) for role in astuple(split)))


def split_anatomies(cache: Cache, choose: Callable[[Iterable[str]], Split]) -> Split:
    """Split patients, the synthetic bodies of one patient like himself: each shows the organs of the others."""
    leader = leaders_of(cache.cases)
    return with_followers(choose(set(leader.values())), leader)


def _anatomy_of(case: CachedCase) -> str | None:
    anatomy = f"_{case.name}".partition(f"_{case.patient}_")[2]  # the names of folders above may come before
    return anatomy or None if case.synthetic else None
