from __future__ import annotations

import errno
import gzip
import math
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithm import images
from algorithm.checks.contract import CHECK_NAMES, Checks
from algorithm.errors import (
    GeometryError,
    InvalidImageError,
    MissingInputError,
    OutputError,
    UnreadableImageError,
)
from test.support.bodies import small_pair

SIZE = (14, 11, 9)
UNCHECKED = Checks.but(CHECK_NAMES)
SUFFIXES = (".mha", ".mhd", ".nii", ".nii.gz", ".nrrd")


def volume(
    low: float,
    high: float,
    *,
    size: tuple[int, int, int] = SIZE,
    spacing: tuple[float, float, float] = (4.07283, 4.07283, 3.0),
    origin: tuple[float, float, float] = (-221.9692, 165.2411, -903.5),
    direction: tuple[float, ...] = (1, 0, 0, 0, -1, 0, 0, 0, 1),
) -> sitk.Image:
    values = np.random.default_rng(7).uniform(low, high, size[::-1]).astype(np.float32)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    return image


def write(image: sitk.Image, path: Path, *, compressed: bool = True) -> Path:
    sitk.WriteImage(image, str(path), useCompression=compressed)
    return path


@pytest.fixture
def ct_path(tmp_path: Path) -> Path:
    return write(small_pair()[0], tmp_path / "ct.mha")


@pytest.fixture
def pet_path(tmp_path: Path) -> Path:
    return write(small_pair()[1], tmp_path / "pet.mha")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reads_every_format(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    written = volume(-1024, 1200)

    read = images.read_image(write(written, tmp_path / f"ct{suffix}"), "CT")

    assert read.GetPixelID() == sitk.sitkFloat32
    assert images.same_geometry(read, written)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(written))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("share", [0.6, 0.98])
@pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "plain"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_cut_off(
    tmp_path: Path, suffix: str, compressed: bool, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(volume(0, 12), tmp_path / f"pet{suffix}", compressed=compressed)
    data = next((other for other in tmp_path.iterdir() if "raw" in other.suffix), path)
    data.write_bytes(data.read_bytes()[: int(share * data.stat().st_size)])

    with pytest.raises(UnreadableImageError, match=rf"cannot read the PET .*pet\{suffix}: .+; copy or export it"):
        images.read_image(path, "PET")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".mha", ".nii.gz", ".nrrd"])
def test_damaged_bytes_inside_compressed_data(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(sitk.Round(volume(0, 12)), tmp_path / f"pet{suffix}")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)

    with pytest.raises(UnreadableImageError, match="cannot read the PET"):
        images.read_image(path, "PET")
    assert capfd.readouterr() == ("", "")


def test_gzip_of_several_members_is_whole(tmp_path: Path) -> None:
    plain = write(volume(0, 12), tmp_path / "pet.nii").read_bytes()
    path = tmp_path / "blocks.nii.gz"
    path.write_bytes(gzip.compress(plain[:1000]) + gzip.compress(plain[1000:]) + gzip.compress(b""))

    read = images.read_image(path, "PET")

    np.testing.assert_array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(volume(0, 12)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
        (b"ObjectType = Image\nNDims = 3\nElementDataFile = LOCAL\n", "DimSize"),
    ],
    ids=["empty", "pointer", "header without size"],
)
def test_file_that_is_no_image(
    tmp_path: Path, content: bytes, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ct.mha"
    path.write_bytes(content)

    with pytest.raises(UnreadableImageError, match=reason) as caught:
        images.read_image(path, "CT")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"there is no CT image at .*none\.mha; check the path"):
        images.read_image(tmp_path / "none.mha", "CT")


def test_two_dimensional_image(tmp_path: Path) -> None:
    path = write(volume(0, 255)[:, :, 0], tmp_path / "ct.mha")

    with pytest.raises(InvalidImageError, match=r"the CT must be 3-D, got 14x11 pixels in .*ct\.mha"):
        images.read_image(path, "CT")


def test_colour_image(tmp_path: Path) -> None:
    channel = volume(0, 255)
    path = write(sitk.Compose(channel, channel, channel), tmp_path / "ct.mha")

    with pytest.raises(InvalidImageError, match="one value per voxel, got 3"):
        images.read_image(path, "CT")


def test_series_of_one_volume_is_squeezed_and_of_two_refused(tmp_path: Path) -> None:
    image = volume(0, 12)
    one = write(sitk.JoinSeries([image]), tmp_path / "one.mha")
    two = write(sitk.JoinSeries([image, image]), tmp_path / "two.nii.gz")

    assert images.same_geometry(images.read_image(one, "PET"), image)
    with pytest.raises(InvalidImageError, match="3-D, got 14x11x9x2"):
        images.read_image(two, "PET")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_value_that_is_not_finite(tmp_path: Path, value: float) -> None:
    image = volume(0, 12)
    image[3, 4, 5] = value
    path = write(image, tmp_path / "pet.mha")

    with pytest.raises(InvalidImageError, match=rf"must be finite, got values from .*({value})"):
        images.read_image(path, "PET")


def test_pair_on_one_grid(ct_path: Path, pet_path: Path) -> None:
    pair = images.read_pet_ct(ct_path, pet_path)

    assert not pair.ct_resampled
    assert (pair.ct_path, pair.pet_path) == (ct_path, pet_path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(pair.ct), sitk.GetArrayFromImage(small_pair()[0]))


def test_ct_on_a_finer_smaller_grid_is_interpolated(tmp_path: Path) -> None:
    """A CT that is linear in space stays so; outside its field of view there is air."""
    pet = volume(0, 12, spacing=(4, 4, 4), origin=(0, 0, 0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    fine = volume(0, 1, size=(60, 45, 18), spacing=(1, 1, 2), origin=(-2, -1, 0), direction=pet.GetDirection())
    left = np.arange(60, dtype=np.float32) - 2
    ramp = sitk.GetImageFromArray(np.broadcast_to(10 * left - 100, (18, 45, 60)).copy())
    ramp.CopyInformation(fine)

    pair = images.read_pet_ct(write(ramp, tmp_path / "ct.nrrd"), write(pet, tmp_path / "pet.nrrd"), UNCHECKED)

    assert pair.ct_resampled
    assert images.same_geometry(pair.ct, pet)
    ct = sitk.GetArrayFromImage(pair.ct)
    np.testing.assert_allclose(ct[:9, :, :], np.broadcast_to(40.0 * np.arange(14) - 100, (9, 11, 14)), atol=1e-3)
    shifted = volume(0, 12, spacing=(4, 4, 4), origin=(0, 0, -20), direction=pet.GetDirection())
    below = images.read_pet_ct(tmp_path / "ct.nrrd", write(shifted, tmp_path / "below.nrrd"), UNCHECKED)
    assert (sitk.GetArrayFromImage(below.ct)[:5] == images.AIR_HU).all()


def test_ct_a_twentieth_of_a_voxel_aside_is_interpolated(tmp_path: Path, pet_path: Path) -> None:
    """What counts as the grid of a mask (:func:`algorithm.images.same_geometry`) is too coarse for values."""
    ct = small_pair()[0]
    ct.SetOrigin((-180.4, -150, -400))
    pair = images.read_pet_ct(write(ct, tmp_path / "ct.mha"), pet_path)

    assert pair.ct_resampled


def test_pair_of_two_places(tmp_path: Path, pet_path: Path) -> None:
    far = small_pair()[0]
    far.SetOrigin((500, 500, 500))

    with pytest.raises(GeometryError, match=r"do not overlap.*origin \(500, 500, 500\).*\(-180, -150, -400\)"):
        images.read_pet_ct(write(far, tmp_path / "far.mha"), pet_path)


def test_rounding_in_the_header_is_the_same_geometry(tmp_path: Path, pet_path: Path) -> None:
    rounded = small_pair()[0]
    rounded.SetOrigin((-180.003, -150.002, -400.001))
    rounded.SetSpacing((8.0001, 8, 8))

    pair = images.read_pet_ct(write(rounded, tmp_path / "ct.nii.gz"), pet_path)

    assert not pair.ct_resampled
    assert pair.ct.GetOrigin() == pair.pet.GetOrigin()


@pytest.mark.parametrize(
    "other",
    [
        {"size": (14, 11, 10)},
        {"spacing": (4.07283, 4.07283, 3.01)},
        {"origin": (-221.65, 165.2411, -903.5)},
        {"direction": (1, 0, 0, 0, 1, 0, 0, 0, 1)},
        {"direction": (math.cos(0.01), -math.sin(0.01), 0, -math.sin(0.01), -math.cos(0.01), 0, 0, 0, 1)},
    ],
    ids=["size", "spacing", "origin", "mirrored", "turned"],
)
def test_other_geometry(other: dict[str, tuple[float, ...]]) -> None:
    image = volume(0, 1)

    assert images.same_geometry(image, volume(5, 6))
    assert not images.same_geometry(image, volume(0, 1, **other))  # type: ignore[arg-type]


def test_geometry_in_words() -> None:
    assert images.geometry_text(volume(0, 1)) == (
        "14x11x9 voxels of 4.07x4.07x3.00 mm at origin (-221.97, 165.24, -903.5), "
        "direction (1, 0, 0, 0, -1, 0, 0, 0, 1)"
    )


@settings(max_examples=25, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(0.2, 9)] * 3),
    origin=st.tuples(*[st.floats(-2000, 2000, allow_subnormal=False)] * 3),
    angle=st.floats(-3, 3).map(lambda angle: round(angle, 9)),
    seed=st.integers(0, 2**32 - 1),
)
def test_mask_keeps_geometry_and_voxels(
    tmp_path_factory: pytest.TempPathFactory,
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
    angle: float,
    seed: int,
) -> None:
    turned = (math.cos(angle), -math.sin(angle), 0, -math.sin(angle), -math.cos(angle), 0, 0, 0, 1)
    pet = volume(0, 12, spacing=spacing, origin=origin, direction=turned)
    mask = np.random.default_rng(seed).integers(0, 2, SIZE[::-1], np.uint8)
    path = tmp_path_factory.mktemp("out") / "images" / "slot" / "case.mha"

    images.write_mask(mask, pet, path)

    stored = sitk.ReadImage(str(path))
    assert stored.GetPixelID() == sitk.sitkUInt8
    assert stored.GetSpacing() == pet.GetSpacing()
    assert stored.GetOrigin() == pet.GetOrigin()
    assert stored.GetDirection() == pet.GetDirection()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(stored), mask)
    assert [entry.name for entry in path.parent.parent.rglob("*")] == ["slot", "case.mha"]


def test_mask_is_compressed_the_same_each_time_and_replaces_the_old(tmp_path: Path) -> None:
    pet = volume(0, 12, size=(50, 50, 50))
    mask = np.zeros((50, 50, 50), np.uint8)
    path = tmp_path / "out" / "case.mha"

    images.write_mask(mask, pet, path)
    first = path.read_bytes()
    images.write_mask(mask, pet, path)

    assert path.read_bytes() == first
    assert len(first) < mask.size / 50


def test_mask_as_nifti(tmp_path: Path) -> None:
    mask = np.ones(SIZE[::-1], np.uint8)

    images.write_mask(mask, volume(0, 12), tmp_path / "mask.nii.gz")

    assert images.same_geometry(images.read_mask(tmp_path / "mask.nii.gz"), volume(0, 12))


def test_mask_never_overwrites_its_input(ct_path: Path) -> None:
    before = ct_path.read_bytes()
    same_file = ct_path.parent / "." / ct_path.name

    with pytest.raises(OutputError, match=r"would overwrite its own input .*ct\.mha"):
        images.write_mask(np.zeros(SIZE[::-1], np.uint8), volume(0, 1), same_file, protect=[ct_path])
    assert ct_path.read_bytes() == before


def test_mask_with_an_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"written as \.mha or \.nii\.gz, got mask\.png"):
        images.write_mask(np.zeros(SIZE[::-1], np.uint8), volume(0, 1), tmp_path / "mask.png")


@pytest.mark.parametrize(
    "mask",
    [np.zeros(SIZE, np.uint8), np.zeros(SIZE[::-1], np.int16), np.full(SIZE[::-1], 2, np.uint8)],
    ids=["axes", "type", "values"],
)
def test_mask_of_the_wrong_kind(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"mask must be uint8 zeros and ones of shape \(9, 11, 14\)"):
        images.write_mask(mask, volume(0, 1), tmp_path / "mask.mha")


def test_mask_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # file modes do not stop root, as whom containers often test

    with pytest.raises(OutputError, match=r"cannot write .*mask\.mha: Permission denied; choose a folder"):
        images.write_mask(np.zeros(SIZE[::-1], np.uint8), volume(0, 1), tmp_path / "mask.mha")


def test_mask_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")

    with pytest.raises(OutputError, match=r"cannot write .*mask\.mha"):
        images.write_mask(np.zeros(SIZE[::-1], np.uint8), volume(0, 1), tmp_path / "taken" / "mask.mha")


@pytest.mark.parametrize("suffix", images.MASK_SUFFIXES)
def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    write_whole = sitk.WriteImage

    def write_half(image: sitk.Image, name: str, **options: bool) -> None:
        write_whole(image, name, **options)
        os.truncate(name, Path(name).stat().st_size // 2)

    monkeypatch.setattr(sitk, "WriteImage", write_half)
    mask = np.random.default_rng(0).integers(0, 2, SIZE[::-1], np.uint8)

    with pytest.raises(OutputError, match=r"could not be stored completely .* MiB are free"):
        images.write_mask(mask, volume(0, 1), tmp_path / "out" / f"mask{suffix}")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["out"]


def test_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "images" / "slot" / "mask.mha"
    seen: list[Path] = []

    def interrupt(*_: object, **__: object) -> None:
        seen.extend(target.parent.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(sitk, "WriteImage", interrupt)

    with pytest.raises(KeyboardInterrupt):
        images.write_mask(np.zeros(SIZE[::-1], np.uint8), volume(0, 1), target, staging=tmp_path)
    assert seen == []
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["images", "slot"]


def test_read_mask_refuses_other_values(tmp_path: Path) -> None:
    path = write(volume(0, 12), tmp_path / "mask.mha")

    with pytest.raises(InvalidImageError, match="a mask holds 0 and 1 only, got "):
        images.read_mask(path)


@pytest.mark.data
def test_real_patient(real_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = real_data / "sts" / "STS_002" / "pet-ct"

    pair = images.read_pet_ct(folder / "CTres.nii.gz", folder / "SUV.nii.gz")
    truth = images.read_mask(folder / "SEG.nii.gz")

    assert not pair.ct_resampled
    assert images.same_geometry(truth, pair.pet)
    assert capfd.readouterr() == ("", "")
