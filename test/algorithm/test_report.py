from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.errors import OutputError
from algorithm.postprocessing import Lesion
from algorithm.report import (
    Geometry,
    RunReport,
    WeightsUsed,
    peak_host_memory_mib,
    write_json,
    write_picture,
    write_report,
)

RED = (214, 24, 24)
SIZE = (40, 30, 20)
SPACING = (4.0, 4.0, 2.0)


def report(**changes: object) -> RunReport:
    whole = RunReport(
        software_version="1.2.3",
        edition="III",
        ct="ct.mha",
        pet="pet.mha",
        ct_resampled=False,
        geometry=Geometry(
            (4, 5, 6), (2.0, 2.0, 3.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
        ),
        weights=(WeightsUsed("h2aseg", "ab" * 32),),
        device="cpu",
        precision="float32",
        windows=12,
        passes=3,
        passes_planned=8,
        stopped_because="the next pass would not fit into the time limit",
        seconds={"read": 0.25, "predict": 3.5},
        peak_host_memory_mib=512.0,
        peak_device_memory_mib=None,
        lesions=(Lesion(2.5, 9.0, 6.0, (1.0, 2.0, 3.0)),),
        total_volume_ml=2.5,
    )
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


def scan(direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1)) -> tuple[sitk.Image, NDArray[np.uint8]]:
    """Return a PET with a hot, high spot on the patient's right, and the spot's mask; on an upright grid (LPS)."""
    suv = np.ones(SIZE[::-1], np.float32)
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[14:18, 10:20, 5:12] = 1
    suv[mask > 0] = 20
    pet = sitk.GetImageFromArray(suv)
    pet.SetSpacing(SPACING)
    pet.SetDirection(direction)
    return pet, mask


def drawn(pet: sitk.Image, mask: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    write_picture(path, pet, mask)
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), np.uint8)


def test_report_is_json_with_the_names_of_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "run.json"

    write_report(path, report())

    stored = json.loads(path.read_text())
    assert list(stored) == [field.name for field in dataclasses.fields(RunReport)]
    assert stored["lesions"] == [{"volume_ml": 2.5, "suv_max": 9.0, "suv_mean": 6.0, "centroid_mm": [1, 2, 3]}]
    assert stored["weights"] == [{"name": "h2aseg", "sha256": "ab" * 32}]
    assert stored["geometry"]["spacing_mm"] == [2, 2, 3]
    assert stored["peak_device_memory_mib"] is None
    assert [entry.name for entry in tmp_path.rglob("*")] == ["reports", "run.json"]


def test_report_that_cannot_be_stored_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_report(path, report())
    before = path.read_text()

    with pytest.raises(ValueError):
        write_report(path, report(total_volume_ml=math.nan))
    assert path.read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_json_into_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")

    with pytest.raises(OutputError, match=r"cannot write .*taken/x\.json"):
        write_json(tmp_path / "taken" / "x.json", False)


def test_bare_boolean(tmp_path: Path) -> None:
    write_json(tmp_path / "data-centric-model.json", False)

    assert (tmp_path / "data-centric-model.json").read_text() == "false\n"


def test_geometry_of_an_image() -> None:
    pet, _ = scan()

    assert Geometry.of(pet) == Geometry(SIZE, SPACING, (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


def test_peak_memory_is_that_of_a_python_process() -> None:
    assert 20 < peak_host_memory_mib() < 200_000


def test_picture_has_square_pixels_and_the_spot_at_its_place(tmp_path: Path) -> None:
    picture = drawn(*scan(), tmp_path / "mip.png")

    height, width, colours = picture.shape
    assert colours == 3
    assert width / height == pytest.approx((40 * 4) / (20 * 2), rel=0.01)
    rows, columns = np.nonzero((picture == RED).all(axis=2))
    pixels_per_mm = width / 160
    assert rows.min() == pytest.approx((20 - 18) * 2 * pixels_per_mm, abs=1)
    assert rows.max() == pytest.approx((20 - 14) * 2 * pixels_per_mm, abs=1)
    assert columns.min() == pytest.approx(5 * 4 * pixels_per_mm, abs=1)
    assert columns.max() == pytest.approx(12 * 4 * pixels_per_mm, abs=1)
    assert (picture[(rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2] == 0).all()
    assert (picture[-1, -1] == round(255 * 0.9)).all()


def test_picture_is_the_same_however_the_grid_is_turned(tmp_path: Path) -> None:
    """AutoPET stores the y axis from back to front; a grid may also run from head to foot."""
    pet, mask = scan()
    upright = drawn(pet, mask, tmp_path / "upright.png")
    flipped_pet = sitk.GetImageFromArray(sitk.GetArrayFromImage(pet)[::-1, ::-1].copy())
    flipped_pet.SetSpacing(SPACING)
    flipped_pet.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, -1))

    flipped = drawn(flipped_pet, mask[::-1, ::-1].copy(), tmp_path / "flipped.png")

    np.testing.assert_array_equal(flipped, upright)


def test_picture_without_tumour_has_no_red(tmp_path: Path) -> None:
    pet, mask = scan()

    picture = drawn(pet, np.zeros_like(mask), tmp_path / "mip.png")

    assert (picture[..., 0] == picture[..., 1]).all()


def test_picture_of_one_slice_stays_small(tmp_path: Path) -> None:
    pet, mask = scan()

    picture = drawn(pet[:, :, 15:16], mask[15:16], tmp_path / "mip.png")

    assert picture.shape[:2] == (10, 800)


def test_picture_with_an_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write the picture .*mip\.unknown"):
        write_picture(tmp_path / "mip.unknown", *scan())
    assert list(tmp_path.iterdir()) == []
