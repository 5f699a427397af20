"""Two real patients from DICOM: the mask of the NIfTI run, a DICOM SEG that holds it, contours where they belong.

STS_002 and STS_008 of TCIA's Soft-tissue-Sarcoma as the IBSI published them (CC BY 3.0).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from algorithm.__main__ import main
from algorithm.dicom.study import read_pet
from test.conftest import ROOT

PATIENTS = ("STS_002", "STS_008")
QUICK = ("--flips", "1", "--device", "cpu", "--no-html", "--weights", str(ROOT / "weights" / "h2aseg.json"))

pytestmark = [pytest.mark.data, pytest.mark.parametrize("name", PATIENTS)]


@pytest.fixture(scope="module")
def unpacked(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    known: dict[str, Path] = {}

    def unpack(name: str) -> Path:
        if name not in known:
            archive = real_data / "dicom" / "sts" / f"{name}.tar.xz"
            if not archive.is_file():
                pytest.skip(f"there is no {archive}")
            known[name] = tmp_path_factory.mktemp(name)
            with tarfile.open(archive) as tar:
                tar.extractall(known[name], filter="data")
        return known[name]

    return unpack


def array(path: Path) -> NDArray[np.uint8]:
    return sitk.GetArrayFromImage(sitk.ReadImage(path))


def dice(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    return 2 * np.count_nonzero((a > 0) & (b > 0)) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_mask_and_segmentation(name, unpacked, real_data, tmp_path) -> None:
    pair = real_data / "sts" / name / "pet-ct"
    files = (str(pair / "CTres.nii.gz"), str(pair / "SUV.nii.gz"))
    assert main(["predict", str(unpacked(name)), str(tmp_path / "dicom"), *QUICK]) == 0
    assert main(["predict", *files, str(tmp_path / "nifti"), *QUICK]) == 0

    mask = array(tmp_path / "dicom" / "tumour.nii.gz")
    assert mask.any()
    assert dice(mask, array(tmp_path / "nifti" / "tumour.nii.gz")) >= 0.99
    report = json.loads((tmp_path / "dicom" / "report.json").read_text())
    assert report["suv"]["units"] == "GML"
    assert report["ct_resampled"]

    segmentation = pydicom.dcmread(tmp_path / "dicom" / "tumour.seg.dcm")
    grid = sitk.ReadImage(tmp_path / "dicom" / "tumour.nii.gz")
    seen = np.zeros_like(mask)
    frames = segmentation.pixel_array.reshape(-1, segmentation.Rows, segmentation.Columns)
    for frame, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        position = [float(each) for each in groups.PlanePositionSequence[0].ImagePositionPatient]
        seen[grid.TransformPhysicalPointToIndex(position)[2]] |= frame
    np.testing.assert_array_equal(seen, mask)


def test_contours_lie_where_the_released_mask_does(name, unpacked, real_data) -> None:
    """Geometry alone: the RTSTRUCT drawn on the PET, filled on the grid that the PET's headers give."""
    (structures,) = unpacked(name).rglob("PET/mask/*.dcm")
    filled = fill(pydicom.dcmread(structures), read_pet(unpacked(name)).image)

    assert dice(filled, array(real_data / "sts" / name / "pet-ct" / "SEG.nii.gz")) >= 0.95


def fill(structures: pydicom.Dataset, grid: sitk.Image) -> NDArray[np.bool_]:
    """Fill the closed contours of a structure set (z, y, x); a contour inside another is a hole."""
    width, height, depth = grid.GetSize()
    filled = np.zeros((depth, height, width), bool)
    centres = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2)
    for contour in structures.ROIContourSequence[0].ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        corners = np.array([grid.TransformPhysicalPointToContinuousIndex(point.tolist()) for point in points])
        plane = round(float(corners[:, 2].mean()))
        filled[plane] ^= Outline(corners[:, :2]).contains_points(centres).reshape(height, width)
    return filled
