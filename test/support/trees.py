"""Small data sets on disk, made for the tests of training: synthetic, in AutoPET's layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

SPACING = (4.0, 4.0, 3.0)


def write_tree(
    root: Path, *names: str, tumour_free: tuple[str, ...] = (), shape: tuple[int, ...] = (24, 36, 40)
) -> Path:
    """Write ``root/NAME/study/{CTres,SUV,SEG}.nii.gz`` (z, y, x): a warm cylinder in air with a hot ball."""
    for number, name in enumerate(names):
        rng = np.random.default_rng(number)
        z, y, x = np.indices(shape)
        middle = np.array(shape) / 2
        body = ((y - middle[1]) / (0.4 * shape[1])) ** 2 + ((x - middle[2]) / (0.4 * shape[2])) ** 2 < 1
        centre = middle + rng.uniform(-0.15, 0.15, 3) * shape
        radius = rng.uniform(10, 20)
        offsets = [(axis - at) * step for axis, at, step in zip((z, y, x), centre, SPACING[::-1], strict=True)]
        ball = (sum(offset**2 for offset in offsets) < radius**2) & (name not in tumour_free)
        ct = np.where(body, 20.0 + 30.0 * ball, -1000.0) + rng.normal(0, 10, shape)
        suv = np.where(body, 1.0 + 6.0 * ball, 0.0) * rng.uniform(0.8, 1.2, shape)
        images = {
            "CTres": ct.clip(-1024, None).astype(np.int16),
            "SUV": suv.astype(np.float32),
            "SEG": ball.astype(np.uint8),
        }
        study = root / name / "study"
        study.mkdir(parents=True)
        for file, values in images.items():
            write_image(study / f"{file}.nii.gz", values)
    return root


def write_image(path: Path, values: NDArray[np.generic], spacing: tuple[float, float, float] = SPACING) -> None:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, path)


def alter(path: Path, change: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> None:
    """Rewrite an image with changed values on the same grid."""
    image = sitk.ReadImage(path)
    changed = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
    changed.CopyInformation(image)
    sitk.WriteImage(changed, path)
