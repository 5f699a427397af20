"""What is accepted is read as other readers read it: ITK's own, nibabel and pynrrd."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from algorithm.errors import UnreadableImageError
from algorithm.formats.volume import itk_reason
from algorithm.images import read_image
from test.support.bodies import image_of

nibabel = pytest.importorskip("nibabel")
nrrd = pytest.importorskip("nrrd")

SUFFIXES = (".mha", ".mhd", ".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr")
KINDS = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""NIfTI's patient axes are right, anterior, superior; ITK's are left, posterior, superior."""


def numbers(kind: str, size: tuple[int, int, int] = (9, 7, 5)) -> NDArray[Any]:
    dtype = np.dtype(kind)
    rng = np.random.default_rng(5)
    if dtype.kind == "f":
        return rng.normal(0, 300, size[::-1]).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(max(info.min, -30_000), min(info.max, 60_000), size[::-1]).astype(dtype)


def oblique(kind: str) -> sitk.Image:
    image = image_of(numbers(kind))
    image.SetSpacing((2.04, 3.5, 5.0))
    image.SetOrigin((-110.25, 64.5, -903.0))
    image.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, -1))
    return image


def values(image: sitk.Image) -> NDArray[Any]:
    return np.asarray(sitk.GetArrayFromImage(image))


def affine(image: sitk.Image) -> NDArray[np.float64]:
    """Return the 4 x 4 matrix from voxels (x, y, z) to mm in LPS."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return matrix


def from_nifti(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Read by nibabel; return values, z, y, x, and the matrix in LPS."""
    volume = nibabel.load(path)
    return np.asarray(volume.dataobj).T, LPS @ volume.affine


@pytest.mark.parametrize("compressed", [False, True], ids=["raw", "packed"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_as_itk_reads_it(suffix: str, kind: str, compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / f"image{suffix}"
    sitk.WriteImage(oblique(kind), str(path), useCompression=compressed and suffix != ".hdr")
    theirs = sitk.ReadImage(str(path), sitk.sitkFloat32)

    ours = read_image(path, "CT")

    np.testing.assert_array_equal(values(ours), values(theirs))
    assert (ours.GetSize(), ours.GetSpacing(), ours.GetOrigin(), ours.GetDirection()) == (
        theirs.GetSize(), theirs.GetSpacing(), theirs.GetOrigin(), theirs.GetDirection()
    )  # fmt: skip


@pytest.mark.parametrize("kind", [*KINDS, ">i2", ">f4", ">f8"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr"])
def test_what_nibabel_writes(suffix: str, kind: str, tmp_path: Path) -> None:
    path, stored = tmp_path / f"image{suffix}", numbers(kind)
    kind_of = nibabel.Nifti1Pair if suffix == ".hdr" else nibabel.Nifti1Image
    header = nibabel.Nifti1Header(endianness=">") if kind.startswith(">") else None
    nibabel.save(kind_of(stored.T, LPS @ affine(oblique("f4")), header=header, dtype=stored.dtype), path)

    ours = read_image(path, "CT")
    theirs, matrix = from_nifti(path)

    np.testing.assert_array_equal(values(ours), theirs.astype(np.float32))
    np.testing.assert_array_equal(values(ours), stored.astype(np.float32))
    np.testing.assert_allclose(affine(ours), matrix, atol=1e-4)


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize(("slope", "intercept"), [(0.0123, -3.5), (2.0, 0.0), (1.0, -1024.0), (0.0, 0.0)])
def test_scaled_values_of_nifti(kind: str, slope: float, intercept: float, tmp_path: Path) -> None:
    """As ITK scales them, to the bit; nibabel rounds differently in the last place."""
    path = tmp_path / "image.nii"
    sitk.WriteImage(oblique(kind), str(path))
    content = bytearray(path.read_bytes())
    struct.pack_into("<2f", content, 112, slope, intercept)
    path.write_bytes(content)

    ours = values(read_image(path, "PET"))

    np.testing.assert_array_equal(ours, values(sitk.ReadImage(str(path), sitk.sitkFloat32)))
    np.testing.assert_allclose(ours, from_nifti(path)[0], rtol=2e-6, atol=2e-4)


@pytest.mark.parametrize("kind", ["i2", "f4", ">i2", ">f4"])
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr"])
def test_what_pynrrd_writes(suffix: str, encoding: str, kind: str, tmp_path: Path) -> None:
    path, stored = tmp_path / f"image{suffix}", numbers(kind)
    matrix = affine(oblique("f4"))
    header = {
        "space": "left-posterior-superior",
        "space directions": matrix[:3, :3].T,
        "space origin": matrix[:3, 3],
        "encoding": encoding,
        "kinds": ["domain"] * 3,
    }
    nrrd.write(str(path), stored.T, header, index_order="F")

    ours = read_image(path, "PET")
    theirs, read = nrrd.read(str(path), index_order="F")

    np.testing.assert_array_equal(values(ours), theirs.T.astype(np.float32))
    np.testing.assert_allclose(affine(ours)[:3, :3], read["space directions"].T, atol=1e-9)
    np.testing.assert_allclose(ours.GetOrigin(), read["space origin"], atol=1e-9)


@pytest.mark.parametrize("key", ["dim[0]", "0008|0005", "ITK_original direction", "a-b", "descrip.1"])
def test_keys_of_other_formats_in_a_metaimage(key: str, tmp_path: Path) -> None:
    image = oblique("u1")
    image.SetMetaData(key, "1")
    sitk.WriteImage(image, str(tmp_path / "image.mha"))
    assert f"{key} = 1".encode() in (tmp_path / "image.mha").read_bytes()
    np.testing.assert_array_equal(values(read_image(tmp_path / "image.mha", "PET")), values(image))


def test_a_nifti_that_itk_writes_as_a_metaimage(tmp_path: Path) -> None:
    sitk.WriteImage(oblique("u1"), str(tmp_path / "image.nii.gz"))
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "image.nii.gz")), str(tmp_path / "image.mha"))
    np.testing.assert_array_equal(values(read_image(tmp_path / "image.mha", "PET")), values(oblique("u1")))


@pytest.mark.parametrize("qform_code", [0, 1])
def test_two_voxel_sizes_in_one_nifti(qform_code: int, tmp_path: Path) -> None:
    """nibabel takes the size from the sform, ITK from pixdim; 1 % of a short volume is 0.2 mm at its corners."""
    image = nibabel.Nifti1Image(numbers("f4").T, LPS @ affine(oblique("f4")))
    image.set_qform(image.affine, qform_code)
    image.header["pixdim"][3] = 5.05
    nibabel.save(image, tmp_path / "pet.nii")

    with pytest.raises(
        UnreadableImageError, match=r"two voxel sizes, 2\.04 x 3\.5 x 5 and 2\.04 x 3\.5 x 5\.05 mm"
    ):
        read_image(tmp_path / "pet.nii", "PET")


def test_list_axis_that_pynrrd_writes_last(tmp_path: Path) -> None:
    matrix = affine(oblique("f4"))
    directions = np.vstack([matrix[:3, :3].T, [np.nan] * 3])
    header = {"space": "left-posterior-superior", "space directions": directions, "space origin": matrix[:3, 3]}
    nrrd.write(str(tmp_path / "pet.nrrd"), numbers("f4").T[..., None], header, index_order="F")

    with pytest.raises(
        UnreadableImageError, match=r"must be 4 vectors, got .* none; write one volume of three axes"
    ):
        read_image(tmp_path / "pet.nrrd", "PET")


def test_reasons_of_itk_have_no_addresses() -> None:
    error = RuntimeError("sitk::ERROR: NrrdImageIO(0x5558a24e12d0): ReadImageInformation: not supported.")

    assert itk_reason(error) == "ReadImageInformation: not supported."


@settings(max_examples=60, deadline=None)
@given(
    turn=st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: sum(x * x for x in q) > 0.1),
    left_handed=st.booleans(),
    spacing=st.tuples(*[st.floats(0.3, 12)] * 3),
    suffix=st.sampled_from([".mha", ".nii.gz", ".nrrd"]),
)
def test_any_direction_puts_voxels_where_nibabel_does(
    turn: tuple[float, ...],
    left_handed: bool,
    spacing: tuple[float, ...],
    suffix: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Right-handed and left-handed; the third format is nibabel's own way to the place."""
    a, b, c, d = np.array(turn) / np.linalg.norm(turn)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    if left_handed:
        rotation[:, 2] *= -1
    image = oblique("i2")
    image.SetDirection(rotation.ravel().tolist())
    image.SetSpacing(spacing)
    folder = tmp_path_factory.mktemp("turned")
    sitk.WriteImage(image, str(folder / f"image{suffix}"))
    sitk.WriteImage(image, str(folder / "other.nii"))

    ours = affine(read_image(folder / f"image{suffix}", "CT"))

    np.testing.assert_allclose(ours, from_nifti(folder / "other.nii")[1], atol=2e-3)
