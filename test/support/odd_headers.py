"""Headers that lie, contradict themselves or ask for what is not read: one wrong field each."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from test.support.bodies import image_of, small_pair
from test.support.odd_files import pet_file
from test.support.odd_inputs import Odd, pair_with, put

Make = Callable[[Path], Path]
_HUGE = "1000000 1000000 1000000"


def meta(tag: str, value: str | None, *, compressed: bool = False) -> Make:
    """Return a maker of an .mha in which a tag has another value, or is missing."""

    def make(folder: Path) -> Path:
        path = pet_file(folder, compressed=compressed)
        head, data = _split(path.read_bytes(), b"ElementDataFile = LOCAL\n")
        lines = [line for line in head.decode().splitlines() if not line.startswith(f"{tag} =")]
        if value is not None:
            lines.insert(len(lines) - 1 if tag != "ElementDataFile" else len(lines), f"{tag} = {value}")
        path.write_bytes("\n".join([*lines, ""]).encode() + data)
        return path

    return make


def meta_again(line: str) -> Make:
    """Return a maker of an .mha with one line more."""

    def make(folder: Path) -> Path:
        path = pet_file(folder)
        path.write_bytes(path.read_bytes().replace(b"ElementDataFile", line.encode() + b"\nElementDataFile"))
        return path

    return make


def nrrd(field: str, value: str | None, *, compressed: bool = False) -> Make:
    """Return a maker of a .nrrd in which a field has another value, or is missing."""

    def make(folder: Path) -> Path:
        path = pet_file(folder, "pet.nrrd", compressed=compressed)
        head, data = _split(path.read_bytes(), b"\n\n")
        lines = [line for line in head.decode().strip().splitlines() if not line.startswith(f"{field}:")]
        lines += [] if value is None else [f"{field}: {value}"]
        path.write_bytes("\n".join([*lines, "", ""]).encode() + data)
        return path

    return make


def nifti(offset: int, code: str, *values: Any, name: str = "pet.nii") -> Make:
    """Return a maker of a NIfTI-1 in which other numbers stand at a place of the header (nifti1.h)."""

    def make(folder: Path) -> Path:
        path = pet_file(folder, name)
        content = bytearray(path.read_bytes())
        struct.pack_into("<" + code, content, offset, *values)
        path.write_bytes(content)
        return path

    return make


def stored_as(change: Callable[[sitk.Image], sitk.Image], name: str, *, compressed: bool = False) -> Make:
    """Return a maker of a changed PET in a format."""
    return lambda folder: put(change(small_pair()[1]), folder / name, compressed=compressed)


def with_value(value: float, name: str, kind: type[np.floating[Any]] = np.float32) -> Make:
    """Return a maker of a PET that holds one strange number."""

    def change(pet: sitk.Image) -> sitk.Image:
        values = sitk.GetArrayFromImage(pet).astype(kind)
        values[20, 18, 22] = value
        return image_of(values)

    return stored_as(change, name)


def _split(content: bytes, mark: bytes) -> tuple[bytes, bytes]:
    head, found, data = content.partition(mark)
    return head + found, data


def _analyze(folder: Path) -> Path:
    path = pet_file(folder, "pet.hdr")
    path.write_bytes(path.read_bytes()[:344] + bytes(4))
    return path


def _without_img(folder: Path) -> Path:
    path = pet_file(folder, "pet.hdr")
    (folder / "pet.img").unlink()
    return path


def _short_img(folder: Path) -> Path:
    path = pet_file(folder, "pet.hdr")
    data = folder / "pet.img"
    data.write_bytes(data.read_bytes()[:-100])
    return path


def _complex(pet: sitk.Image) -> sitk.Image:
    return sitk.RealAndImaginaryToComplex(pet, pet)


def _colour(pet: sitk.Image) -> sitk.Image:
    grey = sitk.Cast(pet, sitk.sitkUInt8)
    return sitk.Compose(grey, grey, grey)


_NUMBER = "must be whole numbers"
_SPACING = "no spacing of the voxels"
_POSITIVE = "spacing of its voxels must be positive"
_SINGULAR = "which is singular"

_META = (
    Odd(".mha: a dimension of 0", 2, "a size of 46x0x40 voxels, which is nothing",
        pair_with(meta("DimSize", "46 0 40"))),
    Odd(".mha: all dimensions 0", 2, "which is nothing", pair_with(meta("DimSize", "0 0 0", compressed=True))),
    Odd(".mha: negative dimension", 2, "which is nothing", pair_with(meta("DimSize", "46 -38 40"))),
    Odd(".mha: larger than its data", 2, "it is cut off after", pair_with(meta("DimSize", "46 38 41"))),
    Odd(".mha: smaller than its data", 2, "holds more data than", pair_with(meta("DimSize", "46 38 39"))),
    Odd(".mha: larger than its packed data", 2, "it is cut off after",
        pair_with(meta("DimSize", "46 38 41", compressed=True))),
    Odd(".mha: smaller than its packed data", 2, "holds more data",
        pair_with(meta("DimSize", "46 38 39", compressed=True))),
    Odd(".mha: 10^18 voxels", 2, "are read at most", pair_with(meta("DimSize", _HUGE))),
    Odd(".mha: 10^9 voxels, packed", 2, "compressed ones hold fewer",
        pair_with(meta("DimSize", "1000 1000 1000", compressed=True))),
    Odd(".mha: a dimension of 20 digits", 2, _NUMBER, pair_with(meta("DimSize", "4 4 " + "9" * 20))),
    Odd(".mha: broken dimension", 2, _NUMBER, pair_with(meta("DimSize", "46 38 4.5"))),
    Odd(".mha: two dimensions for three", 2, "DimSize must be 3 numbers, got 2",
        pair_with(meta("DimSize", "46 38"))),
    Odd(".mha: no DimSize", 2, "its header has no DimSize", pair_with(meta("DimSize", None))),
    Odd(".mha: no NDims", 2, "its header has no NDims", pair_with(meta("NDims", None))),
    Odd(".mha: NDims in words", 2, _NUMBER, pair_with(meta("NDims", "three"))),
    Odd(".mha: nine axes", 2, "NDims must be 3, got 9", pair_with(meta("NDims", "9"))),
    Odd(".mha: DimSize twice", 2, "gives DimSize twice", pair_with(meta_again("DimSize = 46 38 40"))),
    Odd(".mha: no spacing", 2, _SPACING, pair_with(meta("ElementSpacing", None))),
    Odd(".mha: spacing 0", 2, _POSITIVE, pair_with(meta("ElementSpacing", "8 0 8"))),
    Odd(".mha: negative spacing", 2, _POSITIVE, pair_with(meta("ElementSpacing", "8 -8 8"))),
    Odd(".mha: spacing not a number", 2, "ElementSpacing must be finite numbers",
        pair_with(meta("ElementSpacing", "8 nan 8"))),
    Odd(".mha: infinite spacing", 2, "must be finite numbers", pair_with(meta("ElementSpacing", "8 inf 8"))),
    Odd(".mha: singular direction", 2, _SINGULAR, pair_with(meta("TransformMatrix", "1 0 0 1 0 0 0 0 1"))),
    Odd(".mha: direction of zeros", 2, _SINGULAR, pair_with(meta("TransformMatrix", "0 0 0 0 0 0 0 0 0"))),
    Odd(".mha: direction not a number", 2, "must be finite numbers",
        pair_with(meta("TransformMatrix", "1 0 0 0 x 0 0 0 1"))),
    Odd(".mha: scaled direction", 2, "must have axes of length 1",
        pair_with(meta("TransformMatrix", "2 0 0 0 1 0 0 0 1"))),
    Odd(".mha: sheared direction", 2, "at right angles",
        pair_with(meta("TransformMatrix", "1 0 0 0.6 0.8 0 0 0 1"))),
    Odd(".mha: direction of four numbers", 2, "TransformMatrix must be 9 numbers",
        pair_with(meta("TransformMatrix", "1 0 0 1"))),
    Odd(".mha: unknown type", 2, "ElementType must be one of", pair_with(meta("ElementType", "MET_STRING"))),
    Odd(".mha: doubles for floats", 2, "it is cut off after", pair_with(meta("ElementType", "MET_DOUBLE"))),
    Odd(".mha: shorts for floats", 2, "holds more data than", pair_with(meta("ElementType", "MET_SHORT"))),
    Odd(".mha: two channels", 2, "one value per voxel, got 2", pair_with(stored_as(_complex, "pet.mha"))),
    Odd(".mha: colours", 2, "one value per voxel, got 3", pair_with(stored_as(_colour, "pet.mha"))),
    Odd(".mha: text", 2, "written as text", pair_with(meta("BinaryData", "False"))),
    Odd(".mha: HeaderSize", 2, "HeaderSize must be 0, got 4096", pair_with(meta("HeaderSize", "4096"))),
    Odd(".mha: wrong compressed size", 2, "bytes of compressed data",
        pair_with(meta("CompressedDataSize", "99", compressed=True))),
    Odd(".mha: says raw, is packed", 2, "it is cut off after",
        pair_with(meta("CompressedData", "False", compressed=True))),
    Odd(".mha: says packed, is raw", 2, "compressed data are damaged", pair_with(meta("CompressedData", "True"))),
    Odd(".mha: values scaled by the header", 2, "Slope must be 1, got 2",
        pair_with(meta("ElementToIntensityFunctionSlope", "2"))),
    Odd(".mha: no data", 2, "has no ElementDataFile", pair_with(meta("ElementDataFile", None))),
    Odd(".mha: not a number", 2, "the PET must be finite, got values from nan",
        pair_with(with_value(np.nan, "pet.mha"))),
    Odd(".mha: overflow of doubles", 2, "the PET must be finite",
        pair_with(with_value(1e300, "pet.mha", np.float64))),
    Odd(".mha: one volume of a series", 0, "",
        pair_with(stored_as(lambda pet: sitk.JoinSeries([pet]), "pet.mha"))),
    Odd(".mha: two volumes", 2, "must be 3-D, got 46x38x40x2",
        pair_with(stored_as(lambda p: sitk.JoinSeries([p, p]), "pet.mha"))),
    Odd(".mha: one flat image", 2, "must be 3-D, got 46x38 pixels",
        pair_with(stored_as(lambda pet: pet[:, :, 20], "pet.mha"))),
)  # fmt: skip

_NIFTI = (
    Odd(".nii: vox_offset 0", 2, "vox_offset must be a whole number of at least 352, got 0",
        pair_with(nifti(108, "f", 0.0))),
    Odd(".nii: vox_offset 100", 2, "at least 352, got 100", pair_with(nifti(108, "f", 100.0))),
    Odd(".nii: vox_offset 348", 2, "at least 352, got 348", pair_with(nifti(108, "f", 348.0))),
    Odd(".nii: vox_offset beyond the file", 2, "it is cut off after 0", pair_with(nifti(108, "f", 1e9))),
    Odd(".nii: vox_offset 356", 2, "it is cut off after", pair_with(nifti(108, "f", 356.0))),
    Odd(".nii: vox_offset not a number", 2, "at least 352, got nan", pair_with(nifti(108, "f", np.nan))),
    Odd(".nii: vox_offset negative", 2, "at least 352, got -1", pair_with(nifti(108, "f", -1.0))),
    Odd(".nii: a dimension of 0", 2, "which is nothing", pair_with(nifti(42, "h", 0))),
    Odd(".nii: negative dimension", 2, "which is nothing", pair_with(nifti(44, "h", -38))),
    Odd(".nii: nine axes", 2, "number of axes must be 3, got 9", pair_with(nifti(40, "h", 9))),
    Odd(".nii: no axes", 2, "number of axes must be 3, got 0", pair_with(nifti(40, "h", 0))),
    Odd(".nii: two axes", 2, "must be 3-D, got 46x38", pair_with(nifti(40, "h", 2))),
    Odd(".nii: two volumes", 2, "must be 3-D, got 46x38x20x2", pair_with(nifti(40, "5h", 4, 46, 38, 20, 2))),
    Odd(".nii: larger than its data", 2, "it is cut off after", pair_with(nifti(46, "h", 41))),
    Odd(".nii: 3 x 10^13 voxels", 2, "are read at most", pair_with(nifti(42, "3h", 32767, 32767, 32767))),
    Odd(".nii: datatype 0", 2, "datatype must be one of", pair_with(nifti(70, "h", 0))),
    Odd(".nii: float128", 2, "datatype must be one of", pair_with(nifti(70, "h", 1536))),
    Odd(".nii: complex", 2, "its voxels are complex numbers (datatype 32)", pair_with(nifti(70, "2h", 32, 64))),
    Odd(".nii: colours", 2, "one value per voxel, got 3", pair_with(stored_as(_colour, "pet.nii"))),
    Odd(".nii: bitpix does not fit", 2, "bitpix must be 32 for datatype 16, got 16",
        pair_with(nifti(72, "h", 16))),
    Odd(".nii: doubles for floats", 2, "it is cut off after", pair_with(nifti(70, "2h", 64, 64))),
    Odd(".nii: spacing 0", 2, _POSITIVE, pair_with(nifti(80, "f", 0.0))),
    Odd(".nii: spacing not a number", 2, _POSITIVE, pair_with(nifti(84, "f", np.nan))),
    Odd(".nii: infinite spacing", 2, _POSITIVE, pair_with(nifti(88, "f", np.inf))),
    Odd(".nii: neither qform nor sform", 2, "left and right of the patient are unknown",
        pair_with(nifti(252, "2h", 0, 0))),
    Odd(".nii: qform not a number", 2, "qform is not finite", pair_with(nifti(268, "f", np.nan))),
    Odd(".nii: sform singular", 2, _SINGULAR, pair_with(nifti(280, "8f", 8, 8, 0, 0, 0, 0, 0, 0))),
    Odd(".nii: sform of zeros", 2, _POSITIVE, pair_with(nifti(280, "12f", *[0.0] * 12))),
    Odd(".nii: qform and sform disagree", 2, "at two places, 50.0 mm apart",
        pair_with(nifti(268, "f", 180.0 + 50))),
    Odd(".nii: two voxel sizes", 2, "give two voxel sizes, 8 x 8 x 8 and 8 x 8 x 8.02 mm",
        pair_with(nifti(88, "f", 8.02))),
    Odd(".nii: slope not a number", 2, "scl_slope and scl_inter must be finite",
        pair_with(nifti(112, "f", np.nan))),
    Odd(".nii: infinite intercept", 2, "must be finite, got 1 and inf", pair_with(nifti(112, "2f", 1.0, np.inf))),
    Odd(".nii: slope that overflows", 2, "the PET must be finite", pair_with(nifti(112, "f", 3e38))),
    Odd(".nii: magic missing", 2, "does not say how the patient lies", pair_with(nifti(344, "4s", b"\0\0\0\0"))),
    Odd(".nii: magic of a pair", 2, "does not go with its name", pair_with(nifti(344, "4s", b"ni1\0"))),
    Odd(".nii: intercept without slope", 2, "readers understand differently",
        pair_with(nifti(112, "2f", 0.0, 7.0))),
    Odd(".nii: NIfTI-2", 2, "it is NIfTI-2, which is not read", pair_with(nifti(0, "i", 540))),
    Odd(".nii: length of the header 0", 2, "does not begin with a NIfTI header", pair_with(nifti(0, "i", 0))),
    Odd(".nii: not a number", 2, "the PET must be finite, got values from nan",
        pair_with(with_value(np.nan, "pet.nii"))),
    Odd(".nii.gz: not a number", 2, "the PET must be finite", pair_with(with_value(np.nan, "pet.nii.gz"))),
    Odd(".nii.gz: infinity", 2, "to inf in", pair_with(with_value(np.inf, "pet.nii.gz"))),
    Odd(".nii.gz: minus infinity", 2, "from -inf to", pair_with(with_value(-np.inf, "pet.nii.gz"))),
    Odd(".nii.gz: not a number in doubles", 2, "must be finite",
        pair_with(with_value(np.nan, "p.nii.gz", np.float64))),
    Odd(".nii.gz: not a number in the CT", 2, "the CT must be finite",
        pair_with(with_value(np.nan, "p.nii.gz"), "CT")),
    Odd(".hdr with .img", 0, "", pair_with(lambda folder: pet_file(folder, "pet.hdr"))),
    Odd(".img with .hdr", 0, "", pair_with(lambda folder: pet_file(folder, "pet.hdr").with_suffix(".img"))),
    Odd(".hdr of Analyze 7.5", 2, "it is an Analyze 7.5 file", pair_with(_analyze)),
    Odd(".hdr without .img", 2, "its data 'pet.img' cannot be read", pair_with(_without_img)),
    Odd(".hdr with a short .img", 2, "it is cut off after", pair_with(_short_img)),
)  # fmt: skip

_NRRD = (
    Odd(".nrrd: a dimension of 0", 2, "which is nothing", pair_with(nrrd("sizes", "46 0 40"))),
    Odd(".nrrd: larger than its data", 2, "it is cut off", pair_with(nrrd("sizes", "46 38 41"))),
    Odd(".nrrd: larger than its packed data", 2, "it is cut off after",
        pair_with(nrrd("sizes", "46 38 41", compressed=True))),
    Odd(".nrrd: smaller than its packed data", 2, "holds more data",
        pair_with(nrrd("sizes", "46 38 39", compressed=True))),
    Odd(".nrrd: 10^18 voxels", 2, "are read at most", pair_with(nrrd("sizes", _HUGE))),
    Odd(".nrrd: no sizes", 2, "has no field sizes", pair_with(nrrd("sizes", None))),
    Odd(".nrrd: no spacing", 2, _SPACING, pair_with(nrrd("space directions", None))),
    Odd(".nrrd: singular directions", 2, _SINGULAR,
        pair_with(nrrd("space directions", "(8,0,0) (8,0,0) (0,0,8)"))),
    Odd(".nrrd: directions of zeros", 2, _POSITIVE,
        pair_with(nrrd("space directions", "(0,0,0) (0,8,0) (0,0,8)"))),
    Odd(".nrrd: directions not a number", 2, "must be finite",
        pair_with(nrrd("space directions", "(nan,0,0) (0,8,0) (0,0,8)"))),
    Odd(".nrrd: two directions", 2, "must be 3 vectors", pair_with(nrrd("space directions", "(8,0,0) (0,8,0)"))),
    Odd(".nrrd: sheared directions", 2, "at right angles",
        pair_with(nrrd("space directions", "(8,0,0) (4,8,0) (0,0,8)"))),
    Odd(".nrrd: text", 2, "encoding must be raw or gzip, got ascii", pair_with(nrrd("encoding", "ascii"))),
    Odd(".nrrd: bzip2", 2, "must be raw or gzip, got bzip2", pair_with(nrrd("encoding", "bzip2"))),
    Odd(".nrrd: blocks", 2, "type must be a number's, got block", pair_with(nrrd("type", "block"))),
    Odd(".nrrd: no byte order", 2, "has no field endian", pair_with(nrrd("endian", None))),
    Odd(".nrrd: bytes to skip", 2, "byte skip must be 0, got -1", pair_with(nrrd("byte skip", "-1"))),
    Odd(".nrrd: data elsewhere", 2, "looks for its data elsewhere", pair_with(nrrd("data file", "/dev/zero"))),
    Odd(".nrrd: data in a list", 2, "in several files", pair_with(nrrd("data file", "LIST"))),
    Odd(".nrrd: two axes", 2, "sizes must be 2 numbers, got 3", pair_with(nrrd("dimension", "2"))),
    Odd(".nrrd: colours", 2, "one value per voxel, got 3", pair_with(stored_as(_colour, "pet.nrrd"))),
    Odd(".nrrd: not a number", 2, "the PET must be finite", pair_with(with_value(np.nan, "pet.nrrd"))),
    Odd(".nhdr with its data", 0, "", pair_with(lambda folder: pet_file(folder, "pet.nhdr"))),
)  # fmt: skip

HEADERS = (*_META, *_NIFTI, *_NRRD)
