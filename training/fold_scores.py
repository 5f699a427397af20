"""The scores of a fold's held-back patients: by its network through the product's own path, and by thresholds."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

import algorithm
import evaluation
import training.baselines
from algorithm.cases import Case, Study, read_study
from algorithm.description import read_description
from algorithm.errors import MissingInputError
from algorithm.files import sha256_of
from algorithm.images import write_mask
from algorithm.inference.precision import Precision
from algorithm.inference.progress import Progress
from algorithm.job import InferenceSettings, Segmenter
from algorithm.jsonfile import read_json
from algorithm.weights import load_checkpoint
from evaluation.handover.bundle import folder_sha256
from evaluation.scoring.editions import RULES
from evaluation.scoring.metrics import Scores, measure
from evaluation.scoring.score import to_json, write_text
from training.baselines import BASELINES, Threshold
from training.parallel import Processes
from training.studies import stamps_of

log = logging.getLogger(__name__)

_SILENT = Progress(logging.DEBUG)


@dataclass(frozen=True)
class Row:
    """The scores of one method on one held-back case."""

    case: str
    patient: str
    fold: int
    method: str
    scores: Scores


def score_fold(
    fold: int,
    checkpoint: Path,
    cases: Sequence[Case],
    flips: Sequence[int],
    device: torch.device,
    precision: Precision,
    processes: Processes | None = None,
) -> list[Row]:
    """Segment and score the held-back cases, and the baselines on them; finished scores are read again.

    The processes share the cases; all get all the rows. Masks of all folds are written to
    ``masks/METHOD/CASE.nii.gz`` beside the folds' folders, on the PET's own grid.
    """
    stored = checkpoint.parent / "scores.json"
    key = {
        "checkpoint": read_description(checkpoint).identity,
        "code": [folder_sha256(Path(package.__path__[0])) for package in (algorithm, evaluation)],
        "baselines": sha256_of(Path(training.baselines.__file__)),
        "precision": precision,
        "flips": list(flips),
        "cases": {case.name: [case.truth_on_own_grid, *stamps_of(case.files)] for case in cases},
    }
    if (finished := _finished(stored, key)) is not None:
        return finished
    processes = processes or Processes()
    processes.wait()  # none may find the scores that another is about to write
    segmenter = Segmenter([load_checkpoint(checkpoint)], device.type, precision)
    folder = checkpoint.parent.parent / "masks"
    own: list[list[Row]] = []
    for case in processes.own(cases):
        study = read_study(case)
        masks = {name: _threshold(study, rule) for name, rule in BASELINES.items()}
        for count in flips:
            settings = InferenceSettings(flips=count)
            masks[_method(count)] = segmenter.segment(case.ct, case.pet, settings, progress=_SILENT).mask
        for name, mask in masks.items():
            write_mask(mask, study.pet, folder / file_name(name) / f"{file_name(case.name)}.nii.gz")
        own.append([Row(case.name, case.patient, fold, name, _score(study, mask)) for name, mask in masks.items()])
    rows = [row for of_case in processes.gather(own) for row in of_case]
    for name, scored in itertools.groupby(rows, key=lambda row: row.case):
        log.info("  %s: Dice %s", name, ", ".join(f"{row.method} {row.scores.dice:.3f}" for row in scored))
    if processes.is_first:
        content = {"key": key, "rows": [dataclasses.asdict(row) for row in rows]}
        write_text(stored, to_json(content))
    return rows


def _finished(stored: Path, key: Mapping[str, object]) -> list[Row] | None:
    """Return the scores of a finished fold; None where there are none, of other settings or damaged."""
    if not stored.is_file():
        return None
    try:
        content = read_json(stored, "the scores")
        if content["key"] != key:
            return None
        rows = [Row(**{**row, "scores": _scores(row["scores"])}) for row in content["rows"]]
    except (MissingInputError, KeyError, TypeError, AttributeError) as error:
        log.info("scores are computed anew, because those in %s cannot be used: %s", stored, error)
        return None
    return rows


def _scores(stored: dict[str, float | None]) -> Scores:
    return Scores(**{name: math.nan if value is None else value for name, value in stored.items()})  # type: ignore[arg-type]


def file_name(name: str) -> str:
    """Return a name that a file may have: ``network, 8 flips`` becomes ``network_8_flips``."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_")


def _method(flips: int) -> str:
    return "network" if flips == 1 else f"network, {flips} flips"


def _threshold(study: Study, rule: Threshold) -> NDArray[np.uint8]:
    suv = sitk.GetArrayViewFromImage(study.pet)
    called: NDArray[np.bool_] = suv >= rule(suv, sitk.GetArrayViewFromImage(study.seg) > 0)
    return called.astype(np.uint8)


def _score(study: Study, mask: NDArray[np.uint8]) -> Scores:
    return measure(sitk.GetArrayViewFromImage(study.seg), mask, study.pet.GetSpacing(), RULES["paper"])
