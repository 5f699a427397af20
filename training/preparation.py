"""From folders to what the loop takes: cases found, split, preprocessed, measured and described."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from algorithm.cases import DataSet, Skipped, find_cases
from algorithm.description import AXES, Description, Normalisation
from algorithm.errors import MissingInputError, UsageError
from algorithm.jsonfile import read_json
from algorithm.network.architecture import Architecture
from training.anatomies import leaders_of, person, with_followers
from training.cache import Cache, CachedCase, Spacing, Statistics, build_cache, tumour_statistics
from training.mistakes import Mistakes, read_mistakes
from training.options import DataOptions
from training.parallel import Processes
from training.sampling import Source
from training.splits import (
    Split,
    choose_split,
    is_stored,
    nnunet_folds,
    parse_fold,
    read_split,
    warn_of_differences,
)

log = logging.getLogger(__name__)

_NO_PATIENTS = {
    "nnunet": "the names tell no patients (fdg_PATIENT_..., psma_PATIENT_...)",
    "autopet": "the studies lie in no patient's folder (PATIENT/STUDY below the folder that is given)",
    "csv": "the list tells no patients (its column patient)",
}
"""Why all patients have but one case, by layout; their studies may then come apart in a split."""


@dataclass(frozen=True)
class PreparedData:
    """The preprocessed cases of all data folders.

    Attributes
    ----------
    datasets : tuple of DataSet
        One per folder, in the order given.
    caches : tuple of Cache
        Likewise.
    shares : tuple of float
        Share of the crops that each gives.
    mistakes : mapping
        Where another network erred, by the cases' names.
    """

    datasets: tuple[DataSet, ...]
    caches: tuple[Cache, ...]
    shares: tuple[float, ...]
    mistakes: Mapping[str, Mistakes] = field(default_factory=dict)

    def sources(self, patients: Iterable[str]) -> tuple[Source, ...]:
        """Return the training cases of these patients, by data folder."""
        wanted = set(patients)
        found = []
        for cache, share in zip(self.caches, self.shares, strict=True):
            cases = cache.of(wanted)
            known = [(case, self.mistakes[case.name]) for case in cases if case.name in self.mistakes]
            missed = tuple((case, place) for case, each in known for place in each.missed)
            false = tuple((case, place) for case, each in known for place in each.false)
            found.append(Source(cases, share, missed, false))
        return tuple(found)

    def names(self, patients: Iterable[str]) -> list[dict[str, Any]]:
        """Return each data folder's name with the number of these patients' cases and its share of the crops."""
        sources = self.sources(patients)
        return [
            {"name": dataset.folder.resolve().name, "cases": len(source.cases), "share": source.share}
            | ({"missed": len(source.missed), "false": len(source.false)} if self.mistakes else {})
            for dataset, source in zip(self.datasets, sources, strict=True)
        ]

    def cases(self, patients: Iterable[str]) -> tuple[CachedCase, ...]:
        """Return the cases of these patients from all data folders."""
        wanted = set(patients)
        return tuple(case for cache in self.caches for case in cache.of(wanted))


def prepare(data: DataOptions, *, spacing: Spacing, workers: int, processes: Processes) -> PreparedData:
    """Find and preprocess the cases; log which are skipped and which are tumour-free, and why.

    Raises
    ------
    UserError
        A folder holds no usable case, or the shares do not fit the folders.
    """
    if data.share is not None and (
        len(data.share) != len(data.cases) or not all(0 < share < math.inf for share in data.share)
    ):
        raise UsageError(
            f"--share takes one positive number per --cases, got {len(data.share)} for {len(data.cases)}"
        )
    mistakes = read_mistakes(data.mistakes, spacing) if data.mistakes else {}
    datasets = tuple(find_cases(folder, data.layout) for folder in data.cases)
    check_names(data.cases, datasets)
    caches = []
    for dataset in datasets:
        if not processes.is_first:
            processes.wait()
        cache = build_cache(
            dataset.cases,
            data.cache,
            spacing,
            progress=processes.is_first and log.isEnabledFor(logging.INFO),
            workers=workers if processes.is_first else 1,  # nothing is left to do for the others
        )
        if processes.is_first:
            processes.wait()
        _log_cases(dataset, cache)
        if not cache.cases:
            raise MissingInputError(
                f"none of the cases in {dataset.folder} is usable; the reasons are listed above"
            )
        caches.append(cache)
    shares = tuple(data.share or (len(cache.cases) for cache in caches))
    return PreparedData(datasets, tuple(caches), shares, _of_these(mistakes, caches))


def _of_these(mistakes: Mapping[str, Mistakes], caches: Sequence[Cache]) -> dict[str, Mistakes]:
    """Return the mistakes in cases that are here as they were when the mistakes were made; log how many."""
    hashes = {case.name: case.sha256 for cache in caches for case in cache.cases}
    kept = {name: each for name, each in mistakes.items() if hashes.get(name) == each.sha256}
    if mistakes:
        missed, false = (sum(len(getattr(each, kind)) for each in kept.values()) for kind in ("missed", "false"))
        log.info("mistakes: %d missed lesions and %d false pieces in %d of the cases", missed, false, len(kept))
    if len(kept) < len(mistakes):
        log.warning(
            "%d of the %d cases with listed mistakes are not here, or have changed since; theirs are left out",
            len(mistakes) - len(kept),
            len(mistakes),
        )
    return kept


def split_patients(data: PreparedData, rule: str, seed: int) -> Split:
    """Split the patients of each data folder by the same rule (see ``choose_split``) and join the results.

    For ``fold:K/N`` an nnU-Net ``splits_final.json`` in the folder is used if it has N folds. Synthetic bodies
    have the role of those whose organs they show, in whichever folder these lie, unless a file gives another.
    """
    split = Split(())
    leader = leaders_of(case for cache in data.caches for case in cache.cases)
    for dataset, cache in zip(data.datasets, data.caches, strict=True):
        patients = {case.patient for case in cache.cases}
        leading = {patient for patient in patients if leader[patient] == patient}
        fold, folds = parse_fold(rule) if rule.startswith("fold:") else (0, 0)
        stored = stored_folds(dataset, cache, folds) if folds else []
        if stored:
            split += stored[fold]
        elif is_stored(rule):
            split += choose_split(rule, patients)
        elif len(leading) < folds and leading < {leader[patient] for patient in patients}:
            split += Split(tuple(sorted(leading)))  # the others of the folder follow patients of other folders
        else:
            split += choose_split(rule, leading, seed)
    if is_stored(rule):
        everybody = {case.patient for cache in data.caches for case in cache.cases}
        warn_of_differences(Path(rule), read_split(Path(rule)).patients, everybody, "patients")
    else:
        split = with_followers(split, leader)
    if not split.train:
        raise MissingInputError(f"--split {rule} leaves no training patient; choose another split")
    return split


def stored_folds(dataset: DataSet, cache: Cache, count: int) -> list[Split]:
    """Return the folds of the data folder's own ``splits_final.json``; none if it has none or not so many."""
    path = dataset.folder / "splits_final.json"
    patient_of = {case.name: case.patient for case in cache.cases}
    folds = nnunet_folds(path, patient_of) if path.is_file() else []
    if len(folds) != count:
        return []
    named = {name for fold in read_json(path, "the folds") for name in (*fold["train"], *fold["val"])}
    patients = {patient_of[name] for name in named if name in patient_of}  # with whom all their studies go
    known = {name for name, patient in patient_of.items() if name in named or patient not in patients}
    warn_of_differences(path, named, known, "cases")
    return folds


def describe(
    name: str,
    architecture: Architecture,
    patch: tuple[int, int, int],
    spacing: Spacing,
    training_cases: Sequence[CachedCase],
    *,
    ct: Normalisation | None = None,
    pet: Normalisation | None = None,
    overlap: float = 0.5,
    flip_axes: tuple[str, ...] = AXES,
    provenance: dict[str, Any] | None = None,
) -> Description:
    """Return the description of a checkpoint to be trained on these cases.

    A normalisation that is not given is measured inside the tumours of the training cases: clipping to the 0.5 and
    99.5 percentiles (PET: from SUV 0), then z-score with the mean and standard deviation there. That of the CT is
    the authors' own rule; the PET's keeps SUVs comparable between a limb and a whole body, which a z-score of each
    volume would not.

    Raises
    ------
    MissingInputError
        No training case holds a tumour.
    UsageError
        Patch, spacing or another value makes no sense, or a normalisation looks at more than one voxel.
    """
    check_normalisations(ct, pet)
    measured = {modality: tumour_statistics(training_cases, modality) for modality in ("ct", "pet")}
    ct = ct or _measured("ct", measured["ct"], measured["ct"].low)
    pet = pet or _measured("pet", measured["pet"], 0.0)
    try:
        return Description(
            name=name,
            architecture=architecture,
            patch=patch,
            spacing=spacing,
            ct=ct,
            pet=pet,
            overlap=overlap,
            flip_axes=flip_axes,
            provenance={
                **(provenance or {}),
                "tumour_statistics": {key: vars(value) for key, value in measured.items()},
            },
        )
    except ValueError as error:
        raise UsageError(f"these options do not make a checkpoint: {error}") from error


def _measured(modality: str, inside: Statistics, low: float) -> Normalisation:
    try:
        return Normalisation("z-score-stored", low, inside.high, inside.mean, inside.std)
    except ValueError as error:
        raise UsageError(
            f"the tumours of the training cases give no normalisation of the {modality.upper()}: {error}; give "
            f"--{modality}-normalisation"
        ) from error


def check_normalisations(ct: Normalisation | None, pet: Normalisation | None) -> None:
    """Raise UsageError for a normalisation that looks at more than one voxel."""
    for modality, how in (("ct", ct), ("pet", pet)):
        if how is not None and how.measures_image:
            raise UsageError(
                f"training normalises crops, and {how.kind} would give each crop other values than its volume; "
                f"give --{modality}-normalisation as clip-scale or z-score-stored"
            )


def parse_normalisation(text: str) -> Normalisation:
    """Read a normalisation as given on the command line.

    ``clip-scale:LOW:HIGH`` or ``z-score-stored:LOW:HIGH:MEAN:STD``.

    Raises
    ------
    UsageError
        The text is of neither form.
    """
    kind, *numbers = text.split(":")
    form = {"clip-scale": 2, "z-score-stored": 4}
    if form.get(kind) != len(numbers) or not all(re.fullmatch(r"[-+]?\d+(\.\d*)?", number) for number in numbers):
        raise UsageError(
            f"a normalisation is given as clip-scale:LOW:HIGH or z-score-stored:LOW:HIGH:MEAN:STD, got {text!r}"
        )
    try:
        return Normalisation(kind, *map(float, numbers))  # type: ignore[arg-type]
    except ValueError as error:
        raise UsageError(f"the normalisation {text!r} makes no sense: {error}") from error


def check_names(sources: Sequence[Path], datasets: Sequence[DataSet]) -> None:
    """Raise UsageError if two data sets have patients of one name, who would share a role in every split.

    Or cases of one name, which no list of cases could tell apart. ``sources``: the folder or list of each.
    """
    owner: dict[str, Path] = {}
    for source, dataset in zip(sources, datasets, strict=True):
        patients = {person(case.patient): case.patient for case in dataset.cases}
        for key, patient in patients.items():
            if key in owner:
                raise UsageError(
                    f"both {owner[key]} and {source} hold a patient {patient}; give each patient "
                    "once, or rename the folders of one of them"
                )
        owner |= dict.fromkeys(patients, source)
    first: dict[str, Path] = {}
    for source, dataset in zip(sources, datasets, strict=True):
        for case in dataset.cases:
            if case.name in first:
                raise UsageError(f"both {first[case.name]} and {source} hold a case {case.name}; rename it in one")
        first |= {case.name: source for case in dataset.cases}


def _log_cases(dataset: DataSet, cache: Cache) -> None:
    tumour_free = [case for case in cache.cases if case.tumour_ml == 0]
    skipped: tuple[Skipped, ...] = (*dataset.skipped, *cache.skipped)
    log.info(
        "%s (%s): %d cases of %d patients, %d tumour-free, %d skipped",
        dataset.folder,
        dataset.layout,
        len(cache.cases),
        len({case.patient for case in cache.cases}),
        len(tumour_free),
        len(skipped),
    )
    cases = dataset.cases
    if len(cases) > 1 and dataset.layout in _NO_PATIENTS and all(case.patient == case.name for case in cases):
        log.info("  %s: each case counts as one", _NO_PATIENTS[dataset.layout])
    for case in skipped:
        log.info("  skipped %s: %s", case.name, case.reason)
    for free in tumour_free:
        log.info("  tumour-free %s: trains background only", free.name)
