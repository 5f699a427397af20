"""Error maps in the manner of the H2ASeg paper's Figure 3.

True positives are red, false negatives blue and false positives yellow, on coronal and sagittal maximum-intensity
projections of the PET (inverted grey) and on the axial slices with the most wrong voxels. Blue boxes mark the
lesions of which nothing was found.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from scipy import ndimage

from algorithm.cases import WHERE_CASES_LIE, Case, case_name, list_cases
from algorithm.errors import GeometryError, MissingInputError, UsageError
from algorithm.images import geometry_text, other_geometry_text, read_image, read_mask, same_geometry
from algorithm.outputs import SOFTWARE, written_as
from algorithm.picture import BLACK_SUV
from algorithm.postprocessing import lesions, voxel_volume_ml
from evaluation.outputs import ERROR_MAP, make_way
from evaluation.scoring.pairs import predictions_in
from evaluation.scoring.truths import read_truth

TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = 1, 2, 3
"""Voxel codes, from good to bad."""

COLOURS = {TRUE_POSITIVE: "#d7191c", FALSE_POSITIVE: "#ffd000", FALSE_NEGATIVE: "#1f3fff"}
NAMES = {TRUE_POSITIVE: "true positive", FALSE_NEGATIVE: "false negative", FALSE_POSITIVE: "false positive"}

SLICES = 4
SLICE_DISTANCE_MM = 20.0

_BOX_MARGIN_MM = 6.0
_FIGURE_HEIGHT_INCH = 6.4
_PIXELS_PER_INCH = 110

Box = tuple[slice, slice, slice]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ErrorMap:
    """A case's PET and errors on axes along the patient's.

    Attributes
    ----------
    pet : float32 array, (z, y, x)
        SUV. z runs from the feet to the head, y from the front to the back, x from right to left (DICOM's LPS),
        whatever the direction matrix of the file is.
    errors : uint8 array, (z, y, x)
        0 or one of ``TRUE_POSITIVE``, ``FALSE_POSITIVE``, ``FALSE_NEGATIVE``.
    misses : tuple of three slices each
        Bounding boxes (z, y, x) of the true lesions (18-connected) that share no voxel with the prediction.
    spacing : tuple of float
        In mm, x, y, z.
    """

    pet: NDArray[np.float32]
    errors: NDArray[np.uint8]
    misses: tuple[Box, ...]
    spacing: tuple[float, float, float]

    def volume_ml(self, code: int) -> float:
        """Return the volume in ml of the voxels with one code."""
        return int(np.count_nonzero(self.errors == code)) * voxel_volume_ml(self.spacing)

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Width, depth and height of the volume."""
        planes, rows, columns = self.errors.shape
        return columns * self.spacing[0], rows * self.spacing[1], planes * self.spacing[2]


def map_errors(pet: sitk.Image, truth: sitk.Image, prediction: sitk.Image) -> ErrorMap:
    """Compare two masks on the PET's grid.

    Parameters
    ----------
    pet : SimpleITK.Image
        SUV; on the grid of both masks.
    truth, prediction : SimpleITK.Image
        uint8; 0 is background.

    Raises
    ------
    GeometryError
        A mask lies on another grid than the PET.
    """
    for mask, what in ((truth, "truth"), (prediction, "prediction")):
        if not same_geometry(mask, pet):
            raise GeometryError(
                f"the {what} ({geometry_text(mask)}) does not lie on the PET's grid "
                f"({other_geometry_text(pet, mask)})"
            )
    upright = [sitk.DICOMOrient(image, "LPS") for image in (pet, truth, prediction)]
    suv, true, predicted = (sitk.GetArrayFromImage(image) for image in upright)
    true, predicted = true > 0, predicted > 0

    errors = np.zeros(true.shape, np.uint8)
    errors[true & predicted] = TRUE_POSITIVE
    errors[predicted & ~true] = FALSE_POSITIVE
    errors[true & ~predicted] = FALSE_NEGATIVE

    labels, count = lesions(true)
    found = np.bincount(labels[predicted & true], minlength=count + 1)
    boxes = ndimage.find_objects(labels)
    misses = tuple(box for lesion, box in enumerate(boxes, start=1) if not found[lesion])
    return ErrorMap(suv.astype(np.float32), errors, misses, upright[0].GetSpacing())


def worst_slices(errors: ErrorMap, count: int = SLICES, distance_mm: float = SLICE_DISTANCE_MM) -> list[int]:
    """Return the z of the axial slices with the most wrong voxels, worst first.

    Slices closer than ``distance_mm`` to a worse one are left out, since they show the same error. Fewer than
    ``count`` are returned where there are no more errors; without any error, the slice with the most tumour, or
    the middle one.
    """
    wrong = np.count_nonzero(errors.errors > TRUE_POSITIVE, axis=(1, 2))
    if not wrong.any():
        tumour = np.count_nonzero(errors.errors, axis=(1, 2))
        return [int(tumour.argmax()) if tumour.any() else len(tumour) // 2]
    chosen: list[int] = []
    for z in np.argsort(-wrong, kind="stable"):
        near = any(abs(int(z) - other) * errors.spacing[2] < distance_mm for other in chosen)
        if wrong[z] and not near:
            chosen.append(int(z))
        if len(chosen) == count:
            break
    return chosen


def draw(errors: ErrorMap, title: str) -> Figure:
    """Draw a case: coronal and sagittal projection, head up, and its worst axial slices, seen from the feet.

    The patient's right is on the left of coronal and axial views, the front on the left of the sagittal one.
    """
    width, depth, height = errors.extent_mm
    slices = worst_slices(errors)
    columns = 1 if len(slices) == 1 else 2
    rows = math.ceil(len(slices) / columns)
    # Every column is as wide as its pictures at full height; a limit keeps long thin crops legible.
    ratios = [max(width / height, 0.3), max(depth / height, 0.3), *([max(width / depth / rows, 0.3)] * columns)]
    figure = Figure(
        figsize=(_FIGURE_HEIGHT_INCH * 0.85 * sum(ratios) + 0.6, _FIGURE_HEIGHT_INCH),
        dpi=_PIXELS_PER_INCH,
        layout="constrained",
    )
    figure.suptitle(_heading(errors, title).replace("$", r"\$"), fontsize=11)  # no mathematics in names
    figure.legend(
        handles=[
            Patch(color=COLOURS[code], label=f"{name} {errors.volume_ml(code):.1f} ml")
            for code, name in NAMES.items()
        ],
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=9,
    )
    grid = figure.add_gridspec(rows, 2 + columns, width_ratios=ratios)
    _draw_projection(figure.add_subplot(grid[:, 0]), errors, axis=1, title="coronal", sides=("R", "L"))
    _draw_projection(figure.add_subplot(grid[:, 1]), errors, axis=2, title="sagittal", sides=("A", "P"))
    for number, z in enumerate(slices):
        row, column = divmod(number, columns)
        _draw_slice(figure.add_subplot(grid[row, 2 + column]), errors, z)
    return figure


def project(codes: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    """Return the most frequent code but 0 along an axis, the worse one of equals.

    The worst code of each ray would hide a well-found lesion behind the thin shell of its edge; what is missed
    entirely has its box anyway.
    """
    worst_first = np.array([FALSE_NEGATIVE, FALSE_POSITIVE, TRUE_POSITIVE], np.uint8)
    counts = np.stack([np.count_nonzero(codes == code, axis=axis) for code in worst_first])
    return np.where(counts.any(axis=0), worst_first[counts.argmax(axis=0)], 0).astype(np.uint8)


def write_picture(errors: ErrorMap, title: str, path: Path) -> None:
    """Write a case's error map as PNG, whole; the same bytes for the same masks."""
    with written_as(path, ERROR_MAP) as temporary:
        draw(errors, title).savefig(temporary, format="png", metadata={"Software": SOFTWARE})


def read_errors(pet: Path, truth: Path, prediction: Path, *, truth_on_own_grid: bool = False) -> ErrorMap:
    """Read a case's PET and masks; raises as :func:`read_truth` and :func:`map_errors`."""
    image = read_image(pet, "PET")
    return map_errors(image, read_truth(truth, image, on_own_grid=truth_on_own_grid), read_mask(prediction))


def _heading(errors: ErrorMap, title: str) -> str:
    misses = len(errors.misses)
    missed = "no lesion missed" if not misses else f"{misses} lesion{'s' if misses > 1 else ''} missed (boxes)"
    return f"{title}: {missed}; PET inverted, SUV 0 to {BLACK_SUV:g}"


def _draw_projection(axes: Axes, errors: ErrorMap, *, axis: int, title: str, sides: tuple[str, str]) -> None:
    """Project along y (axis 1, coronal) or x (axis 2, sagittal); rows are z, drawn upwards."""
    step = errors.spacing[0] if axis == 1 else errors.spacing[1]
    kept = 2 if axis == 1 else 1
    _show(
        axes,
        errors.pet.max(axis=axis),
        project(errors.errors, axis),
        [(box[kept], box[0]) for box in errors.misses],
        (step, errors.spacing[2]),
        origin="lower",
    )
    _label(axes, title, sides)


def _draw_slice(axes: Axes, errors: ErrorMap, z: int) -> None:
    """Draw one axial slice; rows are y, drawn downwards: the front is at the top."""
    _show(
        axes,
        errors.pet[z],
        errors.errors[z],
        [(box[2], box[1]) for box in errors.misses if box[0].start <= z < box[0].stop],
        errors.spacing[:2],
        origin="upper",
    )
    _label(axes, f"axial, {(z + 0.5) * errors.spacing[2]:.0f} mm above the lowest edge", ("R", "L"))


def _show(
    axes: Axes,
    suv: NDArray[np.float32],
    codes: NDArray[np.uint8],
    boxes: Sequence[tuple[slice, slice]],
    step: tuple[float, float],
    *,
    origin: Literal["lower", "upper"],
) -> None:
    """Show a plane (rows, columns) in mm; ``boxes`` and ``step`` are given as (columns, rows)."""
    height, width = codes.shape[0] * step[1], codes.shape[1] * step[0]
    bottom_and_top = (0.0, height) if origin == "lower" else (height, 0.0)
    extent = (0.0, width, *bottom_and_top)
    axes.imshow(suv, cmap="gray_r", vmin=0, vmax=BLACK_SUV, extent=extent, origin=origin, interpolation="bilinear")
    axes.imshow(overlay(codes), extent=extent, origin=origin, interpolation="nearest")
    for columns, rows in boxes:
        left, low = columns.start * step[0] - _BOX_MARGIN_MM, rows.start * step[1] - _BOX_MARGIN_MM
        right, high = columns.stop * step[0] + _BOX_MARGIN_MM, rows.stop * step[1] + _BOX_MARGIN_MM
        axes.add_patch(
            Rectangle(
                (left, low), right - left, high - low, fill=False, color=COLOURS[FALSE_NEGATIVE], linewidth=1.2
            )
        )
    axes.set_xlim(0, width)
    axes.set_ylim(*bottom_and_top)


def overlay(codes: NDArray[np.uint8], opacity: float = 0.85) -> NDArray[np.uint8]:
    """Turn voxel codes ``(rows, columns)`` into colours ``(rows, columns, RGBA)``; code 0 is transparent."""
    palette = np.zeros((4, 4), np.uint8)
    for code, colour in COLOURS.items():
        palette[code] = [*bytes.fromhex(colour[1:]), round(255 * opacity)]
    return palette[codes]


def _label(axes: Axes, title: str, sides: tuple[str, str]) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#999999")
    for text, across, alignment in ((sides[0], 0.015, "left"), (sides[1], 0.985, "right")):
        axes.text(
            across, 0.99, text, transform=axes.transAxes, ha=alignment, va="top", fontsize=9, color="#555555"
        )


@dataclass(frozen=True)
class _Task:
    name: str
    title: str
    pet: Path
    truth: Path
    prediction: Path
    truth_on_own_grid: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m evaluation pictures``."""
    parser.description = "Write an error map (PNG) per case: either of --cases, or of one --pet with its --truth."
    parser.add_argument("--cases", type=Path, help=f"Cases with truth: {WHERE_CASES_LIE}.")
    parser.add_argument("--pet", type=Path, help="PET of a single case.")
    parser.add_argument("--truth", type=Path, help="True mask of a single case.")
    parser.add_argument(
        "--prediction",
        type=Path,
        required=True,
        help="Folder with CASE.mha or of a cohort's results, or the mask of a single case.",
    )
    parser.add_argument("--out", type=Path, required=True, help="Folder for the pictures, CASE.png.")


def main(args: argparse.Namespace) -> int:
    """Write the pictures; returns the exit code."""
    tasks = _tasks(args)
    inputs = [path for task in tasks for path in (task.pet, task.truth, task.prediction)]
    make_way([(args.out / f"{task.name}.png", ERROR_MAP) for task in tasks], inputs)
    for task in tasks:
        path = args.out / f"{task.name}.png"
        errors = read_errors(task.pet, task.truth, task.prediction, truth_on_own_grid=task.truth_on_own_grid)
        write_picture(errors, task.title, path)
        log.info("wrote %s", path)
    return 0


def _tasks(args: argparse.Namespace) -> list[_Task]:
    if args.cases is not None and args.pet is None and args.truth is None:
        if not args.prediction.is_dir():
            raise MissingInputError(f"there is no folder of masks {args.prediction}; give the one with CASE.mha")
        predictions = predictions_in(args.prediction)
        return [_task(case, predictions, args.prediction) for case in list_cases(args.cases)]
    if args.cases is None and args.pet is not None and args.truth is not None:
        name = case_name(args.prediction)
        return [_Task(name, name, args.pet, args.truth, args.prediction)]
    raise UsageError("give either --cases, or --pet and --truth of a single case")


def _task(case: Case, predictions: Mapping[str, Path], folder: Path) -> _Task:
    if case.truth is None:
        raise MissingInputError(f"case {case.name} has no truth to compare with; add it to the case list")
    if case.name not in predictions:
        raise MissingInputError(f"there is no mask {case.name}.mha in {folder}; predict the case or leave it out")
    mask = predictions[case.name]
    return _Task(case.name, case.title, case.pet, case.truth, mask, case.truth_on_own_grid)
