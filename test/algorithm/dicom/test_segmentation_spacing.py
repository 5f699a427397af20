"""The distance of slices that a DICOM SEG names is that of the PET's positions, whatever the PET's header says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from algorithm.dicom.segmentation import write_segmentation
from test.support.pet_instances import grid_of, write_enhanced, write_series

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

STEP_MM = 3.0
TILTED = (1, 0, 0, 0, 0.8, -0.6, 0, 0.6, 0.8)


def _measures(folder: Path, files: list[Path], grid) -> pydicom.Dataset:
    labels = np.zeros((7, 9, 11), np.int32)
    labels[2:5, 3:6, 3:6] = 1
    assert write_segmentation(folder / "seg.dcm", labels, grid, files, software_version="0", weights=())
    segmentation = pydicom.dcmread(folder / "seg.dcm")
    return segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), TILTED], ids=["axial", "tilted"])
@pytest.mark.parametrize("said", [5.0, -3.0, 3.0, None])
@pytest.mark.parametrize("order", [range(7), [3, 0, 6, 5, 1, 2, 4]], ids=["in order", "shuffled"])
def test_of_a_series(tmp_path, direction, said, order):
    grid = grid_of((11, 9, 7), (2.5, 4.0, STEP_MM), direction, (-10.0, 20.0, 30.0))
    files = write_series(tmp_path / "pet", grid, order)
    for path in files:
        instance = pydicom.dcmread(path)
        instance.SpacingBetweenSlices, instance.SliceThickness = said, 4.0
        instance.save_as(path)
    measures = _measures(tmp_path, files, grid)
    assert measures.SpacingBetweenSlices == pytest.approx(STEP_MM, abs=1e-5)
    assert measures.SliceThickness == 4.0
    assert list(measures.PixelSpacing) == [4.0, 2.5]


@pytest.mark.parametrize("said", [5.0, -3.0, None])
@pytest.mark.parametrize("order", [range(7), [3, 0, 6, 5, 1, 2, 4]], ids=["in order", "shuffled"])
def test_of_an_enhanced_pet(tmp_path, said, order):
    grid = grid_of((11, 9, 7), (2.5, 4.0, STEP_MM), (1, 0, 0, 0, 1, 0, 0, 0, 1), (-10.0, 20.0, 30.0))
    path = write_enhanced(tmp_path / "pet.dcm", grid, order)
    instance = pydicom.dcmread(path)
    instance.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = said
    instance.save_as(path)
    measures = _measures(tmp_path, [path], grid)
    assert measures.SpacingBetweenSlices == pytest.approx(STEP_MM, abs=1e-5)
