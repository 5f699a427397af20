"""What a bundle's files say, against what its masks and inputs say: a hash that fits proves nothing by itself."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from algorithm.description import read_description
from algorithm.errors import UserError
from algorithm.images import read_image, read_mask, same_geometry
from algorithm.inference.augmentation import flip_order
from algorithm.jsonfile import read_json
from algorithm.lesions import measure_burden
from algorithm.report import Geometry
from evaluation.handover.bundle import (
    MANIFEST,
    METRICS_CSV,
    METRICS_JSON,
    REQUIREMENTS,
    CaseRecord,
    Manifest,
    report_of,
)
from evaluation.handover.make import score_bundle
from evaluation.scoring.pairs import Pair
from evaluation.scoring.score import CaseScore, report, to_csv, to_json

_METRICS_TOLERANCE = 1e-9
_ADDED_COLUMNS = ("edition", "synthetic")  # since the first release
_REPORT_TOLERANCE = 1e-6  # sums over a lesion's SUV, on another processor

_Row = list[float | str]


def misplaced_files(manifest: Manifest, bundle: Path) -> Iterator[str]:
    """Say which files a bundle should not hold, or should and does not list; `manifest` lists the others."""
    expected = {*_of_cases(manifest), REQUIREMENTS}
    for weights in manifest.weights:
        expected |= {weights, Path(weights).with_suffix(".safetensors").as_posix()}
    if any(case.truth is not None for case in manifest.cases):
        expected |= {METRICS_JSON, METRICS_CSV}
    for path in sorted(expected - set(manifest.files)):
        yield f"the manifest does not list {path}, which a bundle of these cases must hold"
    for path in sorted(set(manifest.files) - expected):
        yield f"the manifest lists {path}, which is no part of a bundle of these cases"
    for found in sorted(bundle.rglob("*")):
        name = found.relative_to(bundle).as_posix()
        if found.is_symlink() or not (found.is_file() or found.is_dir()):
            yield f"{name} in the bundle is not a regular file"
        elif found.is_file() and name not in manifest.files and name != MANIFEST:
            yield f"{name} lies in the bundle, but the manifest does not list it"


def changed_metrics(manifest: Manifest, bundle: Path, folder: Path) -> Iterator[str]:
    """Score the masks again and say where ``metrics.json`` or ``metrics.csv`` says otherwise."""
    pairs, results = score_bundle(bundle, folder, manifest.cases, manifest.edition)
    if not pairs:
        return
    rules = f"is not what the masks score by the rules of edition {manifest.edition}"
    try:
        content = read_json(bundle / METRICS_JSON)
        if not close(content, _metrics(pairs, results, manifest.edition, content), _METRICS_TOLERANCE):
            yield f"{METRICS_JSON} {rules}"
    except UserError as error:
        yield str(error)
    try:
        table = (bundle / METRICS_CSV).read_text(encoding="utf-8")
        given, expected = _rows(table), _rows(to_csv(results, manifest.edition))
        expected = _without_added(expected, given)
        if not close(given, expected, _METRICS_TOLERANCE):
            yield f"{METRICS_CSV} {rules}"
    except (UnicodeDecodeError, csv.Error) as error:
        yield f"{METRICS_CSV} is no table: {error}"


def _metrics(pairs: list[Pair], results: list[CaseScore], edition: str, given: Any) -> Any:
    """Return the content of ``metrics.json``; an older bundle's does not tell synthetic cases from patients."""
    listed = given.get("results") if isinstance(given, dict) else None
    older = isinstance(listed, list) and not any(isinstance(each, dict) and "synthetic" in each for each in listed)
    if older:
        results = [dataclasses.replace(each, synthetic=False) for each in results]
    content = json.loads(to_json(report(results, pairs, edition)))
    for each in content["results"] if older else ():
        del each["synthetic"]
    return content


def _without_added(expected: list[_Row], given: list[_Row]) -> list[_Row]:
    """Return a table without the columns that an older bundle's does not have yet."""
    older = {name for name in _ADDED_COLUMNS if given and name not in given[0]}
    kept = [place for place, name in enumerate(expected[0]) if name not in older]
    return [[row[place] for place in kept] for row in expected]


def changed_reports(manifest: Manifest, bundle: Path, folder: Path) -> Iterator[str]:
    """Measure the masks again and say where a run report says otherwise.

    Compared is what follows from the mask, the PET, the weights and the settings. Times, memory and notes are the
    word of whoever made the bundle.
    """
    descriptions = [read_description(bundle / path) for path in manifest.weights]
    weights = [{"name": each.name, "sha256": each.sha256} for each in descriptions]
    passes = sum(len(flip_order(manifest.settings.flips, each.flip_dimensions)) for each in descriptions)
    for case in manifest.cases:
        try:
            given = read_json(bundle / report_of(case))
            expected = _report(case, bundle, folder)
        except UserError as error:
            yield f"the run report or mask of case {case.name} cannot be compared: {error}"
            continue
        expected |= {"weights": weights, "precision": manifest.settings.precision, "error": None}
        expected |= {"passes": passes, "passes_planned": passes}
        for key, value in expected.items():
            if not isinstance(given, dict) or key not in given:
                yield f"the run report of case {case.name} lacks {key}"
            elif not close(given[key], json.loads(json.dumps(value)), _REPORT_TOLERANCE):
                yield f"the run report of case {case.name} has another {key} than its mask and inputs give"


def close(first: Any, second: Any, tolerance: float) -> bool:
    """Compare JSON contents, numbers up to rounding."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(close(first[key], second[key], tolerance) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(
            close(one, other, tolerance) for one, other in zip(first, second, strict=True)
        )
    if isinstance(first, (int, float)) and isinstance(second, (int, float)):
        return first == second or math.isclose(first, second, rel_tol=tolerance, abs_tol=1e-3 * tolerance)
    return bool(first == second)


def _of_cases(manifest: Manifest) -> Iterator[str]:
    for case in manifest.cases:
        yield case.mask
        yield report_of(case)


def _report(case: CaseRecord, bundle: Path, folder: Path) -> dict[str, Any]:
    """Return what a run report must say of a mask on its PET."""
    mask, pet = read_mask(bundle / case.mask), read_image(folder / case.pet.path, "PET")
    geometry = dataclasses.asdict(Geometry.of(pet))
    if not same_geometry(mask, pet):  # which is told of where the masks are compared
        return {"geometry": geometry}
    burden = measure_burden(sitk.GetArrayViewFromImage(mask), pet)
    return {
        "geometry": geometry,
        "lesions": [dataclasses.asdict(each) for each in burden.lesions],
        "totals": dataclasses.asdict(burden.totals),
        "total_volume_ml": burden.totals.mtv_ml,
    }


def _rows(table: str) -> list[_Row]:
    return [[_number(cell) for cell in row] for row in csv.reader(io.StringIO(table), strict=True)]


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell
