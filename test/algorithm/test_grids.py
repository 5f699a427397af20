"""Masks on their PET's grid where headers round it, and what is said where they are not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm import images
from test.algorithm.test_images import volume


def whole_body(decimals: int) -> sitk.Image:
    """Return an oblique grid as large as a body, whose cosines are rounded."""
    image = sitk.Image(40, 40, 100, sitk.sitkUInt8)
    image.SetSpacing((20.0, 20.0, 10.0))
    turn, tilt = math.radians(7), math.radians(2)
    about_x = [[1, 0, 0], [0, math.cos(turn), -math.sin(turn)], [0, math.sin(turn), math.cos(turn)]]
    about_z = [[math.cos(tilt), -math.sin(tilt), 0], [math.sin(tilt), math.cos(tilt), 0], [0, 0, 1]]
    image.SetDirection(np.round(np.array(about_z) @ about_x, decimals).ravel().tolist())
    return image


@pytest.mark.parametrize("suffix", images.MASK_SUFFIXES)
def test_mask_lies_on_a_grid_of_rounded_cosines(tmp_path: Path, suffix: str) -> None:
    """NIfTI stores the nearest axes at right angles; the other format the very same."""
    grid = whole_body(4)

    images.write_mask(np.zeros(grid.GetSize()[::-1], np.uint8), grid, tmp_path / f"mask{suffix}")
    mask = images.read_mask(tmp_path / f"mask{suffix}")

    assert images.same_geometry(mask, grid)
    assert (images.corners_apart_mm(mask, grid) == 0) == (suffix == ".mha")
    assert images.corners_apart_mm(mask, grid) < 0.2, "a tenth of a PET's voxel"


def test_grids_that_read_alike_say_how_far_they_are_apart() -> None:
    image, wider = volume(0, 1), volume(0, 1, spacing=(4.07283, 4.07283, 3.004))

    assert images.geometry_text(wider) == images.geometry_text(image)
    assert not images.same_geometry(wider, image)
    assert images.other_geometry_text(wider, image).endswith("1), its corners up to 0.032 mm away")
    assert images.other_geometry_text(wider, volume(0, 1, origin=(0, 0, 0))) == images.geometry_text(wider)
