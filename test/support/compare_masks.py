"""Compare mask files from a shell script; prints one line and exits with 1 if they do not agree.

python test/support/compare_masks.py identical MASK OTHER        the same geometry and the same voxels
python test/support/compare_masks.py geometry MASK IMAGE         uint8 0/1 on exactly the image's grid
python test/support/compare_masks.py dice MASK OTHER [MINIMUM]   the same geometry, and Dice at least MINIMUM
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray


def read(path: str) -> tuple[sitk.Image, NDArray[Any]]:
    """Return the image and its voxels (z, y, x)."""
    image = sitk.ReadImage(path)
    return image, sitk.GetArrayFromImage(image)


def geometry(image: sitk.Image) -> dict[str, tuple[float, ...]]:
    return {
        "size": image.GetSize(),
        "spacing": image.GetSpacing(),
        "origin": image.GetOrigin(),
        "direction": image.GetDirection(),
    }


def check_same_geometry(image: sitk.Image, other: sitk.Image, *, tolerance: float = 0.0) -> None:
    ours, theirs = geometry(image), geometry(other)
    for name, value in ours.items():
        if not np.allclose(value, theirs[name], rtol=0, atol=tolerance):
            sys.exit(f"{name} differs: {value} and {theirs[name]}")


def identical(mask_path: str, other_path: str) -> None:
    (mask, voxels), (other, other_voxels) = read(mask_path), read(other_path)
    check_same_geometry(mask, other)
    differing = np.count_nonzero(voxels != other_voxels)
    if differing:
        sys.exit(f"{differing} of {voxels.size} voxels differ")
    if not voxels.any():
        sys.exit("both masks are empty, which proves nothing")
    print(f"identical: {voxels.size} voxels, {np.count_nonzero(voxels)} of them tumour")


def on_grid_of(mask_path: str, image_path: str) -> None:
    (mask, voxels), (image, _) = read(mask_path), read(image_path)
    check_same_geometry(mask, image)
    if voxels.dtype != np.uint8 or not np.isin(voxels, (0, 1)).all():
        sys.exit(f"the mask holds {voxels.dtype} values {np.unique(voxels)[:5]}, expected uint8 0 and 1")
    print(f"{image.GetSize()} voxels")


def dice(mask_path: str, other_path: str, minimum: str = "0") -> None:
    (mask, voxels), (other, other_voxels) = read(mask_path), read(other_path)
    check_same_geometry(mask, other, tolerance=1e-4)  # NIfTI keeps its geometry in float32
    both = np.count_nonzero(voxels) + np.count_nonzero(other_voxels)
    if not both:
        sys.exit("both masks are empty, so Dice is undefined")
    value = 2 * np.count_nonzero((voxels > 0) & (other_voxels > 0)) / both
    print(f"Dice {value:.4f}")
    if value < float(minimum):
        sys.exit(f"Dice is below {minimum}")


COMMANDS = {"identical": identical, "geometry": on_grid_of, "dice": dice}

if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]](*sys.argv[2:])
