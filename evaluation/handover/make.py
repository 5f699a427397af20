"""Make a hand-over bundle: run the inference on a set of cases and record all that is needed to repeat it.

``python -m evaluation verify`` (:mod:`evaluation.handover.verify`) is its counterpart on the receiver's side.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from algorithm.cases import WHERE_CASES_LIE, Case, list_cases
from algorithm.errors import OutputError, UsageError
from algorithm.files import check_writable, relative_path, sha256_of, written_whole
from algorithm.images import read_image, read_mask, write_mask
from algorithm.inference.precision import PRECISIONS
from algorithm.options import check_passes
from algorithm.report import write_json
from algorithm.weights import find_checkpoints, load_checkpoint
from evaluation.handover.bundle import (
    MANIFEST,
    METRICS_CSV,
    METRICS_JSON,
    REQUIREMENTS,
    BundleSettings,
    CaseRecord,
    File,
    Manifest,
    Predict,
    SegmentedCase,
    code_version,
    device_class,
    exact_requirements,
    image_digest,
    predict,
    resolve,
    system,
    voxels_sha256,
)
from evaluation.scoring.editions import DEFAULT_EDITION, RULES
from evaluation.scoring.pairs import Pair
from evaluation.scoring.score import CaseScore, report, score_pairs, to_csv, to_json, write_text
from evaluation.scoring.truths import truth_on_pet

log = logging.getLogger(__name__)


def make_bundle(
    cases: Sequence[Case],
    folder: Path,
    checkpoints: Sequence[Path],
    settings: BundleSettings,
    out: Path,
    *,
    edition: str = DEFAULT_EDITION,
    image: str | None = None,
    predict: Predict = predict,
) -> Manifest:
    """Segment the cases and write the bundle; its manifest comes last, so that half a bundle is none.

    Parameters
    ----------
    cases : sequence of Case
    folder : Path
        Input folder that all their files lie in; the receiver needs the same files in a folder of his own.
    checkpoints : sequence of Path
        The JSON files; they and their weights are copied into the bundle and used from there.
    settings : BundleSettings
    out : Path
        New or empty folder.
    edition : str
        Whose rules the metrics follow; only cases with truth are scored.
    image : str or None
        Digest of the container image, to be recorded.
    predict : callable
        The inference.

    Raises
    ------
    OutputError
        ``out`` is not empty or cannot be written.
    UserError
        A file lies outside ``folder``, a truth cannot be scored, or as the inference raises.
    """
    inputs = [{key: _input(path, folder) for key, path in _files(case).items()} for case in cases]
    _require_empty(out)
    _require_truths(cases)
    weights = [_copied(path, out / "weights") for path in checkpoints]
    records = []
    for number, (case, files) in enumerate(zip(cases, inputs, strict=True), start=1):
        log.info("case %d of %d: %s", number, len(cases), case.name)
        records.append(_record(case, files, out, predict(case.ct, case.pet, weights, settings)))
    _write_scores(out, folder, records, edition)
    write_text(out / REQUIREMENTS, exact_requirements())
    manifest = Manifest(
        code=code_version(),
        image=image,
        system=system(),
        device_class=device_class(settings.device),
        settings=settings,
        edition=edition,
        weights=tuple(path.relative_to(out).as_posix() for path in weights),
        cases=tuple(records),
        files=_hashes(out),
    )
    write_text(out / MANIFEST, manifest.to_json())
    return manifest


def _hashes(bundle: Path) -> dict[str, str]:
    files = (path for path in sorted(bundle.rglob("*")) if path.is_file())
    return {path.relative_to(bundle).as_posix(): sha256_of(path) for path in files}


def _write_scores(out: Path, folder: Path, records: Sequence[CaseRecord], edition: str) -> None:
    pairs, results = score_bundle(out, folder, records, edition)
    if pairs:
        write_text(out / METRICS_JSON, to_json(report(results, pairs, edition)))
        write_text(out / METRICS_CSV, to_csv(results, edition))


def _record(case: Case, files: dict[str, File], out: Path, result: SegmentedCase) -> CaseRecord:
    """Write a case's mask and report into the bundle, and describe them."""
    mask = out / "masks" / f"{case.name}.mha"
    write_mask(result.mask, read_image(case.pet, "PET"), mask)
    write_json(out / "reports" / f"{case.name}.json", result.report)
    return CaseRecord(
        name=case.name,
        synthetic=case.synthetic,
        subset=case.group,
        ct=files["ct"],
        pet=files["pet"],
        truth=files.get("truth"),
        truth_on_own_grid=case.truth_on_own_grid,
        mask=mask.relative_to(out).as_posix(),
        voxels_sha256=voxels_sha256(read_mask(mask)),
    )


def score_bundle(
    bundle: Path, folder: Path, cases: Sequence[CaseRecord], edition: str
) -> tuple[list[Pair], list[CaseScore]]:
    """Score a bundle's masks against the truth in the input folder, where cases have one."""
    pairs = [
        Pair(
            case.name,
            folder / case.truth.path,
            bundle / case.mask,
            case.subset,
            case.truth_on_own_grid,
            case.synthetic,
        )
        for case in cases
        if case.truth is not None
    ]
    return pairs, list(score_pairs(pairs, RULES[edition]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m evaluation handover``."""
    parser.description = "Segment a set of cases and bundle all that a third party needs to repeat it."
    parser.add_argument(
        "--cases",
        "--input",
        type=Path,
        required=True,
        metavar="CASES",
        help=f"What to segment: {WHERE_CASES_LIE}; images in files, no DICOM.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="New folder for the bundle.")
    parser.add_argument(
        "--weights", type=Path, help="Checkpoint or folder of them; the installed ones if left out."
    )
    parser.add_argument("--image", help="Container image whose digest is recorded: a name, or sha256:....")
    parser.add_argument(
        "--edition", choices=RULES, default=DEFAULT_EDITION, help="Whose rules the metrics follow."
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="Where to compute.")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="What to compute in.")
    parser.add_argument("--flips", type=int, default=1, help="Passes that are averaged.")
    parser.add_argument(
        "--overlap", type=float, help="Overlap of neighbouring windows; each checkpoint's own if left out."
    )


def main(args: argparse.Namespace) -> int:
    """Write the bundle; returns the exit code."""
    check_passes(args.flips, args.overlap)
    _require_empty(args.out)
    device, precision = resolve(args.device, args.precision)
    settings = BundleSettings(device, precision, args.flips, args.overlap, threads=torch.get_num_threads())
    folder = args.cases if args.cases.is_dir() else args.cases.parent
    manifest = make_bundle(
        list_cases(args.cases),
        folder,
        find_checkpoints(args.weights),
        settings,
        args.out,
        edition=args.edition,
        image=image_digest(args.image) if args.image else None,
    )
    count = len(manifest.cases)
    masks = "one mask" if count == 1 else f"{count} masks"
    print(f"wrote {args.out} with {masks}; manifest sha256 {sha256_of(args.out / MANIFEST)}")
    return 0


def _files(case: Case) -> dict[str, Path]:
    files = {"ct": case.ct, "pet": case.pet}
    return files if case.truth is None else {**files, "truth": case.truth}


def _input(path: Path, folder: Path) -> File:
    relative = relative_path(path, folder)
    if ".." in relative.parts:
        raise UsageError(f"the input {path} lies outside {folder}; put all inputs of a hand-over into one folder")
    if path.is_dir():
        raise UsageError(
            f"a hand-over takes images in files, got the DICOM folder {path}; convert it to .nii.gz first"
        )
    return File(relative.as_posix(), sha256_of(path))


def _require_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists already and is not an empty folder; choose a new one for the bundle")
    check_writable(out / MANIFEST)


def _require_truths(cases: Sequence[Case]) -> None:
    """Read every truth once before the inference, all of which a score that fails at the end would lose."""
    for case in cases:
        if case.truth is not None:
            truth_on_pet(case, read_image(case.pet, "PET"))


def _copied(checkpoint: Path, folder: Path) -> Path:
    """Copy a checkpoint's two files, after checking that they belong together."""
    load_checkpoint(checkpoint)
    for path in (checkpoint, checkpoint.with_suffix(".safetensors")):
        with written_whole(folder / path.name) as temporary:
            shutil.copyfile(path, temporary)
    return folder / checkpoint.name
