from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm import picture as picture_module
from algorithm.errors import OutputError
from algorithm.lettering import draw_text, text_width
from algorithm.picture import CORONAL, SAGITTAL, Picture, draw, projection, write_picture

RED = (214, 24, 24)
SIZE = (40, 30, 20)
SPACING = (4.0, 4.0, 2.0)


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


def view(picture: Picture, number: int) -> NDArray[np.uint8]:
    """Return the pixels of the coronal (0) or the sagittal view (1)."""
    return picture.pixels[picture.views[number]]


def red_box(pixels: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((pixels == RED).all(axis=2))
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_coronal_view_has_square_pixels_and_the_spot_at_its_place() -> None:
    picture = draw(*scan())

    coronal = view(picture, 0)
    height, width, colours = coronal.shape
    assert colours == 3
    assert width / height == pytest.approx((40 * 4) / (20 * 2), rel=0.01)
    top, bottom, left, right = red_box(coronal)
    pixels_per_mm = width / 160
    assert top == pytest.approx((20 - 18) * 2 * pixels_per_mm, abs=1)
    assert bottom == pytest.approx((20 - 14) * 2 * pixels_per_mm - 0.5, abs=1)
    assert left == pytest.approx(5 * 4 * pixels_per_mm, abs=1)
    assert right == pytest.approx(12 * 4 * pixels_per_mm - 0.5, abs=1)
    assert (coronal[(top + bottom) // 2, (left + right) // 2] == 0).all()
    assert (coronal[-1, -1] == round(255 * 0.9)).all()


@pytest.mark.parametrize("height", range(0, 1300, 37))
def test_a_voxel_smaller_than_a_pixel_is_outlined(height: int) -> None:
    pet = sitk.Image(30, 30, 1300, sitk.sitkFloat32)
    pet.SetSpacing((1.6, 1.6, 1.5))
    mask = np.zeros((1300, 30, 30), np.uint8)
    mask[height, height % 30, (7 * height) % 30] = 1
    picture = draw(pet, mask)
    assert all((view(picture, number) == RED).all(axis=2).any() for number in (0, 1))


def test_sagittal_view_has_the_same_scale_and_the_front_on_the_left() -> None:
    picture = draw(*scan())

    sagittal = view(picture, 1)
    height, width, _ = sagittal.shape
    assert height == view(picture, 0).shape[0]
    assert width * picture.pixel_mm == pytest.approx(30 * 4, abs=1)
    top, _, left, right = red_box(sagittal)
    assert top * picture.pixel_mm == pytest.approx((20 - 18) * 2, abs=1)
    assert left * picture.pixel_mm == pytest.approx(10 * 4, abs=1)  # LPS: y runs from front to back
    assert right * picture.pixel_mm == pytest.approx(20 * 4, abs=1)


def test_grey_scale_runs_from_black_to_white_and_is_named() -> None:
    pet, mask = scan()
    picture = draw(pet, np.zeros_like(mask))

    rows, columns = picture.views[1]
    height = rows.stop - rows.start
    beside = picture.pixels[rows.start :, columns.stop + 2 :, 0]
    scale = next(
        column for column in beside.T if column[0] == 0 and (np.diff(column[:height].astype(int)) >= 0).all()
    )
    assert scale[height - 1] == 255
    assert (picture.pixels[: rows.start - 1, columns.stop + 2 :] < 100).any()  # "SUV"
    assert (picture.pixels[: rows.start - 1, : columns.stop] < 100).any()  # title and names of the views


def test_scale_is_as_long_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(picture_module, "draw_text", lambda pixels, text, *_: written.append(text))
    drawn = draw(*scan())

    (text,) = (text for text in written if text.endswith(" mm"))
    foot = drawn.pixels[max(rows.stop for rows, _ in drawn.views) + 20 :, :, 0]
    row = next(row for row in foot[:, : drawn.views[0][1].stop] if (row < 60).sum() > 50)
    assert (row < 60).sum() * drawn.pixel_mm == pytest.approx(float(text.removesuffix(" mm")), abs=1)
    assert written[0] == "PET, maximum-intensity projections"
    assert {"coronal", "sagittal", "R", "L", "A", "P", "SUV", "0", "5", "10"} <= set(written)
    assert written[-1] == "tumour, 9.0 ml"  # 280 voxels of 32 mm3


def test_picture_is_the_same_however_the_grid_is_turned() -> None:
    """AutoPET stores the y axis from back to front; a grid may also run from head to foot."""
    pet, mask = scan()
    upright = draw(pet, mask).pixels
    flipped_pet = sitk.GetImageFromArray(sitk.GetArrayFromImage(pet)[::-1, ::-1].copy())
    flipped_pet.SetSpacing(SPACING)
    flipped_pet.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, -1))

    flipped = draw(flipped_pet, mask[::-1, ::-1].copy()).pixels

    np.testing.assert_array_equal(flipped, upright)


def test_picture_without_tumour_has_no_red() -> None:
    pet, mask = scan()

    picture = draw(pet, np.zeros_like(mask)).pixels

    assert (picture[..., 0] == picture[..., 1]).all()


def test_picture_of_one_slice_stays_small() -> None:
    pet, mask = scan()

    picture = draw(pet[:, :, 15:16], mask[15:16])

    assert view(picture, 0).shape[:2] == (8, 629)
    assert picture.pixels.shape[0] < 400


def test_projection_is_the_maximum_along_its_axis() -> None:
    pet, _ = scan()
    suv = sitk.GetArrayFromImage(pet)

    for axis, spacing in ((CORONAL, 4.0), (SAGITTAL, 4.0)):
        got = projection(pet, axis)
        assert got.shape == (SIZE[2], (SIZE[0] if axis == CORONAL else SIZE[1]) * spacing / 2)
        np.testing.assert_allclose(got[:, ::2].max(axis=1), suv.max(axis=(1, 2))[::-1])


def test_written_picture_is_what_was_drawn(tmp_path: Path) -> None:
    write_picture(tmp_path / "new" / "mip.png", *scan())

    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "new" / "mip.png")))
    np.testing.assert_array_equal(stored, draw(*scan()).pixels)


class TestLettering:
    @pytest.mark.parametrize("cap_height", [9, 12, 24])
    def test_text_is_as_wide_and_high_as_it_says(self, cap_height: int) -> None:
        pixels = np.full((60, 900, 3), 255, np.uint8)
        text = "HXE 10 mm"

        draw_text(pixels, text, 20, 40, cap_height, (0, 0, 0))

        rows, columns = np.nonzero(pixels[..., 0] < 128)
        assert columns.min() == pytest.approx(20, abs=cap_height / 8)
        assert columns.max() == pytest.approx(20 + text_width(text, cap_height), abs=cap_height / 8)
        assert rows.min() == pytest.approx(40 - cap_height, abs=cap_height / 8)
        assert rows.max() == pytest.approx(40, abs=cap_height / 8)

    def test_every_letter_is_another(self) -> None:
        seen = set()
        letters = string.ascii_letters + string.digits + ".,:-+/()"
        for letter in letters:
            pixels = np.full((40, 40, 3), 255, np.uint8)
            draw_text(pixels, letter, 5, 30, 20, (0, 0, 0))
            seen.add(pixels.tobytes())
        assert len(seen) == len(letters)

    def test_text_that_leaves_the_picture_is_cut(self) -> None:
        pixels = np.full((10, 30, 3), 255, np.uint8)

        draw_text(pixels, "tumour outside", -15, 8, 12, (0, 0, 0))

        assert (pixels < 128).any()


def test_picture_with_an_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write the picture .*mip\.unknown"):
        write_picture(tmp_path / "mip.unknown", *scan())
    assert list(tmp_path.iterdir()) == []
