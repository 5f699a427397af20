"""Verify a hand-over bundle: check every file, repeat the inference on the same inputs, compare the masks.

The last line printed is the verdict. Exit code 0: verified; 1: something differs, and each difference was named;
2: it cannot be judged (no bundle, a damaged manifest, an input or truth that is not there, weights that do not
load); 70: a bug of this software, which is no verdict.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from algorithm.errors import InstallationError, MissingInputError, UsageError, UserError
from algorithm.files import sha256_of
from algorithm.images import geometry_text, other_geometry_text, read_image, read_mask, same_geometry
from algorithm.inference.device import choose_device
from evaluation.handover.bundle import (
    BundleSettings,
    CaseRecord,
    Manifest,
    Predict,
    code_version,
    device_class,
    predict,
    resolve,
    voxels_sha256,
)
from evaluation.handover.manifest import read_manifest
from evaluation.handover.recomputed import changed_metrics, changed_reports, misplaced_files
from evaluation.scoring.metrics import dice_of

VERIFIED, DIFFERS = 0, 1
DICE_TOLERANCE = 0.995
"""What masks from another class of devices must reach: the agreement asked of bfloat16 and float32."""

_KINDS = {"weights": "weights file", "masks": "mask", "reports": "run report"}

log = logging.getLogger(__name__)


def verify(
    bundle: Path,
    folder: Path,
    *,
    device: str | None = None,
    tolerance: float = DICE_TOLERANCE,
    masks_alone: bool = False,
    predict: Predict = predict,
) -> int:
    """Verify a bundle, printing each difference and, last, the verdict.

    Parameters
    ----------
    bundle : Path
    folder : Path
        Holds the inputs under the paths that they had when the bundle was made.
    device : str or None
        ``cpu`` or ``cuda``; None: as the bundle was made.
    tolerance : float
        Least Dice, where this device is of another class than the bundle's.
    masks_alone : bool
        Leave the metrics unchecked, for want of the truths.
    predict : callable
        The inference.

    Returns
    -------
    int
        0 verified, 1 something differs.

    Raises
    ------
    MissingInputError
        The bundle, or an input or truth that it names, is not there.
    UserError
        The manifest is damaged, or as the inference raises.
    """
    manifest = read_manifest(bundle)
    _require_inputs(manifest, folder, with_truth=not masks_alone)
    differences = _changes(manifest, bundle, folder, metrics=not masks_alone)
    if differences:
        return _verdict(differences)

    settings = _settings_here(manifest.settings, device)
    here = device_class(settings.device)
    for note in _notes(manifest, here):
        print(f"note: {note}")
    repeated = [_repeat(case, manifest, bundle, folder, settings, predict) for case in manifest.cases]
    same = here == manifest.device_class
    differences = [text for each in repeated if (text := each.difference(same, tolerance)) is not None]
    if differences:
        return _verdict(differences)
    lowest = None if same else min(each.dice for each in repeated)
    _tell_verified(manifest, here, lowest, tolerance, masks_alone=masks_alone)
    return VERIFIED


def _tell_verified(
    manifest: Manifest, here: str, lowest: float | None, tolerance: float, *, masks_alone: bool
) -> None:
    """Print the verdict; ``lowest``: Dice of any mask, where another class of devices made the bundle."""
    count = f"{len(manifest.cases)} mask{'' if len(manifest.cases) == 1 else 's'}"
    count += " (the metrics were not checked)" if masks_alone else ""
    if lowest is None:
        print(f"VERIFIED: {count} repeated bit for bit on {here}")
    else:
        print(
            f"VERIFIED: {count} repeated, Dice at least {lowest:.6f} (tolerance {tolerance:g}) on {here}, "
            f"made on {manifest.device_class}"
        )


@dataclass(frozen=True)
class _Repeated:
    """How a mask compares with the one that this machine makes of the same inputs.

    Attributes
    ----------
    case : str
    voxels, differing : int
        Of the mask, and those that differ.
    dice : float
    grids : str or None
        Why the two cannot be compared: their geometries.
    """

    case: str
    voxels: int = 0
    differing: int = 0
    dice: float = 0.0
    grids: str | None = None

    def difference(self, same: bool, tolerance: float) -> str | None:
        """Say what differs, if anything does; ``same``: on the same class of devices, to the bit."""
        if self.grids is not None:
            return f"the mask of case {self.case} has {self.grids}"
        if same and self.differing:
            return (
                f"the mask of case {self.case} is not repeated: {self.differing} of {self.voxels} voxels differ, "
                f"Dice {self.dice:.6f}"
            )
        if self.dice < tolerance:
            return f"the mask of case {self.case} has a Dice of {self.dice:.6f}, below {tolerance:g}"
        return None


def _repeat(
    case: CaseRecord, manifest: Manifest, bundle: Path, folder: Path, settings: BundleSettings, predict: Predict
) -> _Repeated:
    """Segment a case again and compare."""
    log.info("case %d of %d: %s", manifest.cases.index(case) + 1, len(manifest.cases), case.name)
    weights = [bundle / path for path in manifest.weights]
    repeated = predict(folder / case.ct.path, folder / case.pet.path, weights, settings).mask > 0
    mask, pet = read_mask(bundle / case.mask), read_image(folder / case.pet.path, "PET")
    if not same_geometry(mask, pet):
        return _Repeated(case.name, grids=f"{geometry_text(mask)}, its PET {other_geometry_text(pet, mask)}")
    given = sitk.GetArrayViewFromImage(mask) > 0
    return _Repeated(case.name, given.size, int(np.count_nonzero(given != repeated)), dice_of(given, repeated))


def _settings_here(made: BundleSettings, device: str | None) -> BundleSettings:
    """Return the bundle's settings; another kind of device computes in its own precision.

    Raises
    ------
    DeviceError
        There is no such device here.
    """
    if device is None or device == made.device:
        choose_device(made.device)
        return made
    kind, precision = resolve(device, "auto")
    return dataclasses.replace(made, device=kind, precision=precision)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m evaluation verify``."""
    parser.description = (
        "Check a hand-over bundle and repeat its inference. Exit code 0: verified, 1: differs, 2: cannot be "
        "judged, 70: a bug of this software."
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="Folder that `handover --out` made.")
    parser.add_argument("--input", type=Path, required=True, metavar="DIR", help="Folder with the same inputs.")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="Where to compute; as the bundle was made if left out."
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=DICE_TOLERANCE,
        metavar="DICE",
        help="Least Dice where the device is of another class than the bundle's.",
    )
    parser.add_argument(
        "--masks-alone", action="store_true", help="Leave the metrics unchecked, where the truths are not at hand."
    )


def main(args: argparse.Namespace) -> int:
    """Verify; returns the exit code."""
    if not 0 <= args.tolerance <= 1:
        raise UsageError(f"--tolerance must be a Dice between 0 and 1, got {args.tolerance:g}")
    try:
        return verify(
            args.bundle,
            args.input,
            device=args.device,
            tolerance=args.tolerance,
            masks_alone=args.masks_alone,
        )
    except InstallationError as error:  # of the bundle's weights, or of this machine: either way no verdict
        raise UsageError(f"the bundle cannot be judged here: {error}") from error


def _verdict(differences: list[str]) -> int:
    for difference in differences:
        print(f"difference: {difference}")
    more = f" (and {len(differences) - 1} more, listed above)" if len(differences) > 1 else ""
    print(f"DIFFERS: {differences[0]}{more}")
    return DIFFERS


def _inputs(case: CaseRecord) -> dict[str, tuple[str, str]]:
    files = {"CT": case.ct, "PET": case.pet, "truth": case.truth}
    return {what: (file.path, file.sha256) for what, file in files.items() if file is not None}


def _require_inputs(manifest: Manifest, folder: Path, *, with_truth: bool) -> None:
    for case in manifest.cases:
        for what, (path, _) in _inputs(case).items():
            if (what != "truth" or with_truth) and not (folder / path).is_file():
                instead = ", or give --masks-alone" if what == "truth" else ""
                raise MissingInputError(
                    f"the {what} of case {case.name} is not at {folder / path}; put it there{instead}"
                )


def _changes(manifest: Manifest, bundle: Path, folder: Path, *, metrics: bool) -> list[str]:
    """Say what was changed since the bundle was made."""
    differences = [
        *misplaced_files(manifest, bundle),
        *_changed_files(manifest, bundle),
        *_changed_inputs(manifest, folder),
    ]
    if not differences:  # masks can be read and scored only if they are what was handed over
        differences = [*_changed_voxels(manifest, bundle), *changed_reports(manifest, bundle, folder)]
        differences += changed_metrics(manifest, bundle, folder) if metrics else []
    return differences


def _changed_files(manifest: Manifest, bundle: Path) -> Iterator[str]:
    for path, expected in manifest.files.items():
        kind = _KINDS.get(Path(path).parts[0], "file")
        if not (bundle / path).is_file():
            yield f"the {kind} {path} is missing from the bundle"
        elif (bundle / path).stat().st_size == 0:
            yield f"the {kind} {path} is empty"
        elif (found := sha256_of(bundle / path)) != expected:
            yield f"the {kind} {path} was changed: its sha256 is {found}, the manifest says {expected}"


def _changed_inputs(manifest: Manifest, folder: Path) -> Iterator[str]:
    for case in manifest.cases:
        for what, (path, expected) in _inputs(case).items():
            if (folder / path).is_file() and (found := sha256_of(folder / path)) != expected:
                yield f"the {what} of case {case.name} ({path}) was changed: its sha256 is {found}, was {expected}"


def _changed_voxels(manifest: Manifest, bundle: Path) -> Iterator[str]:
    for case in manifest.cases:
        try:
            found = voxels_sha256(read_mask(bundle / case.mask))
        except UserError as error:
            yield f"the mask of case {case.name} is missing or damaged: {error}"
            continue
        if found != case.voxels_sha256:
            yield f"the voxels of mask {case.mask} were changed: their sha256 is {found}, was {case.voxels_sha256}"


def _notes(manifest: Manifest, here: str) -> Iterator[str]:
    code = code_version()
    if code["sha256"] != manifest.code["sha256"]:
        yield (
            f"the code differs: version {code['version']} (commit {code['commit']}) here, "
            f"{manifest.code['version']} (commit {manifest.code['commit']}) when the bundle was made"
        )
    if here != manifest.device_class:
        yield f"masks are compared by Dice: they were made on {manifest.device_class}, this is {here}"
