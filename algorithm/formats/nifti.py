"""NIfTI-1 headers (.nii, .nii.gz, .hdr with .img), by nifti1.h of the NIfTI working group."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from algorithm.formats.stored import FormatError, Stored, beside, check_matrix, check_spacing

_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_COMPLEX = (32, 1792, 2048)
_RGB = {128: 3, 2304: 4}
_MAGICS = {b"n+1\0": False, b"ni1\0": True}  # whether the voxels lie in a second file
_HEADER_BYTES = 348
_AGREEMENT_MM = 1.0  # of the two ways to say where the volume lies
_SPACING_AGREEMENT = 1e-3  # of the two ways to say how large a voxel is, relative


@dataclass(frozen=True)
class _Header:
    """The fields that are asked for, by their names in nifti1.h."""

    order: str
    magic: bytes
    dim: tuple[int, ...]
    datatype: int
    bitpix: int
    pixdim: tuple[float, ...]
    vox_offset: float
    slope: float
    intercept: float
    qform: int
    sform: int
    quaternion: tuple[float, ...]
    rows: tuple[float, ...]


def read_nifti(path: Path) -> Stored:
    """Read a NIfTI's header; raises FormatError where it is none, or stores voxels in a way that is not read."""
    name = path.name.lower()
    pair = name.endswith((".hdr", ".img"))
    header_path = _partner(path, ".hdr") if name.endswith(".img") else path
    header = _parse(_first_bytes(header_path), header_path)
    if _MAGICS[header.magic] != pair:
        raise FormatError(
            f"its header's magic {header.magic[:3].decode()!r} does not go with its name", "rename or convert it"
        )
    size, dtype, components = _size(header), *_dtype(header)
    if len(size) == 5 and size[3] == 1:  # vectors lie along the fifth axis
        components = size[4]
        size = size[:3]
    _check_place(header)
    slope, intercept = header.slope, header.intercept
    if slope == 0 and intercept != 0:
        raise FormatError(
            f"its header's scl_slope is 0 and its scl_inter {intercept:g}, which readers understand differently",
            "correct the header",
        )
    slope = slope or 1.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise FormatError(
            f"its header's scl_slope and scl_inter must be finite, got {slope:g} and {intercept:g}",
            "correct the header",
        )
    return Stored(
        size=size,
        components=components,
        dtype=dtype,
        data=_partner(path, ".img") if pair else path,
        begin=_begin(header, pair),
        encoding="gzip-file" if name.endswith(".gz") else "raw",
        image_io="NiftiImageIO",
        slope=slope,
        intercept=intercept,
    )


def _partner(path: Path, suffix: str) -> Path:
    """Return the other file of a pair of .hdr and .img, its suffix in the same letters."""
    return beside(path, path.stem + (suffix.upper() if path.suffix.isupper() else suffix))


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    if compressed != path.name.lower().endswith(".gz"):
        state = "is compressed with gzip" if compressed else "is not compressed with gzip"
        raise FormatError(f"it {state}, which its name denies", "rename it to .nii.gz or .nii, as it is")
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
            return stream.read(_HEADER_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(f"its compressed data are damaged ({error})") from error


def _parse(content: bytes, path: Path) -> _Header:
    """Read the header, in either byte order."""
    for order in "<>":
        (length,) = struct.unpack_from(order + "i", content) if len(content) >= _HEADER_BYTES else (0,)
        if length == 348:
            return _version_1(content, order, path)
        if length == 540:
            raise FormatError("it is NIfTI-2, which is not read", "convert it to NIfTI-1")
    raise FormatError("it does not begin with a NIfTI header of 348 bytes")


def _version_1(content: bytes, order: str, path: Path) -> _Header:
    magic = content[344:348]
    if magic not in (b"n+1\0", b"ni1\0"):
        what = (
            "it is an Analyze 7.5 file, which does not say" if path.suffix.lower() == ".hdr" else "it does not say"
        )
        raise FormatError(f"{what} how the patient lies (NIfTI's magic is {magic!r})", "convert it to NIfTI")
    get = struct.Struct
    dim = get(order + "8h").unpack_from(content, 40)
    datatype, bitpix = get(order + "2h").unpack_from(content, 70)
    floats = get(order + "8f3f").unpack_from(content, 76)
    qform, sform = get(order + "2h").unpack_from(content, 252)
    place = get(order + "18f").unpack_from(content, 256)
    return _Header(
        order, magic, dim, datatype, bitpix, floats[:8], floats[8], floats[9], floats[10],
        qform, sform, place[:6], place[6:],
    )  # fmt: skip


def _size(header: _Header) -> tuple[int, ...]:
    dimensions = header.dim[0]
    if not 1 <= dimensions <= 7:
        raise FormatError(f"its header's number of axes must be 3, got {dimensions}", "correct the header")
    size = list(header.dim[1 : 1 + dimensions])
    while len(size) > 3 and size[-1] == 1:
        size.pop()
    return tuple(size)


def _dtype(header: _Header) -> tuple[np.dtype[np.generic], int]:
    """Return the type of one value and the number of values per voxel."""
    code = header.datatype
    if code in _COMPLEX:
        raise FormatError(f"its voxels are complex numbers (datatype {code})", "store the magnitude")
    components = _RGB.get(code, 1)
    if code not in _TYPES and code not in _RGB:
        known = ", ".join(str(each) for each in _TYPES)
        raise FormatError(f"its header's datatype must be one of {known}, got {code}", "convert it")
    dtype = np.dtype(header.order + _TYPES.get(code, "u1"))
    if header.bitpix != 8 * dtype.itemsize * components:
        raise FormatError(
            f"its header's bitpix must be {8 * dtype.itemsize * components} for datatype {code}, "
            f"got {header.bitpix}",
            "correct the header",
        )
    return dtype, components


def _begin(header: _Header, pair: bool) -> int:
    """Return where the voxels begin: after the header and the four bytes that announce extensions."""
    least = 0 if pair else _HEADER_BYTES + 4
    if not math.isfinite(header.vox_offset) or header.vox_offset < least or header.vox_offset % 1:
        raise FormatError(
            f"its header's vox_offset must be a whole number of at least {least}, got {header.vox_offset:g}",
            "correct the header",
        )
    return int(header.vox_offset)


def _check_place(header: _Header) -> None:
    """Refuse a header that does not say where the volume lies, or says it in two ways that disagree."""
    steps = tuple(float(step) for step in header.pixdim[1:4])
    check_spacing(steps)
    if header.qform <= 0 and header.sform <= 0:
        raise FormatError(
            "its header gives neither qform nor sform, so that left and right of the patient are unknown",
            "set qform or sform",
        )
    by_sform, by_qform = np.array(header.rows).reshape(3, 4), _qform_matrix(header)
    if header.sform > 0:
        lengths = np.linalg.norm(by_sform[:, :3], axis=0)
        check_spacing(tuple(float(length) for length in lengths))
        check_matrix(by_sform[:, :3] / lengths)
        if not np.allclose(lengths, steps, rtol=_SPACING_AGREEMENT, atol=0):
            by_lengths, by_steps = (" x ".join(f"{side:.5g}" for side in sides) for sides in (lengths, steps))
            raise FormatError(
                f"its header's sform and pixdim give two voxel sizes, {by_lengths} and {by_steps} mm",
                "set both alike",
            )
    if not np.isfinite(by_qform).all():
        raise FormatError("its header's qform is not finite", "correct the header")
    if header.qform > 0 and header.sform > 0:
        far = [max(0, side - 1) for side in header.dim[1:4]]
        corners = np.array([[x, y, z, 1] for x in (0, far[0]) for y in (0, far[1]) for z in (0, far[2])], float)
        apart = float(np.abs(corners @ (by_sform - by_qform).T).max())
        if not apart < _AGREEMENT_MM:
            raise FormatError(
                f"its header's qform and sform put the volume at two places, {apart:.1f} mm apart",
                "set both alike",
            )


def _qform_matrix(header: _Header) -> NDArray[np.float64]:
    """Return the 3 x 4 matrix from voxels to mm of a header's quaternion (nifti1.h, method 2)."""
    b, c, d = header.quaternion[:3]
    a = math.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    steps = np.array(header.pixdim[1:4], float)
    steps[2] *= -1.0 if header.pixdim[0] < 0 else 1.0
    return np.column_stack([rotation * steps, header.quaternion[3:6]])
