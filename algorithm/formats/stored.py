"""How a file stores its voxels, as its header says and its length bears out."""

from __future__ import annotations

import errno
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

MOST_VOXELS = 2**30
"""Ten times the largest whole-body PET/CT known (512 x 512 x 400); no memory is asked for beyond it."""

MOST_HEADER_BYTES = 2**16
"""Of a text header; a NIfTI header has 348 bytes, and extensions that are not read."""

COPY_AGAIN = "copy or export it again"

_HIGHEST_DEFLATION = 1040  # deflate packs 1,032 bytes into one at most; headers of streams come on top
_LONGEST_SHOWN = 200
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

_T = TypeVar("_T")

Encoding = Literal["raw", "zlib", "gzip", "gzip-file"]


class FormatError(Exception):
    """A file is not what its header or its name says.

    Attributes
    ----------
    reason, advice : str
        What is wrong, with the value got, and what to do; halves of one sentence.
    """

    def __init__(self, reason: str, advice: str = COPY_AGAIN) -> None:
        super().__init__(reason)
        self.reason, self.advice = reason, advice


class AbsentError(FormatError):
    """There is no such file."""


@dataclass(frozen=True)
class Stored:
    """How a file stores its voxels.

    Attributes
    ----------
    size : tuple of int
        Voxels along x, y, z and further axes.
    components : int
        Values per voxel.
    dtype : numpy.dtype
        Of one value, byte order included.
    data : Path
        The file that holds them: the header's own, or one beside it.
    begin : int
        Its first byte of data; of what comes out where the whole file is compressed.
    encoding : {"raw", "zlib", "gzip", "gzip-file"}
        ``gzip-file``: the file is compressed from its first byte on, the header too.
    image_io : str
        SimpleITK's reader, which gives the geometry.
    slope, intercept : float
        Value = slope x stored + intercept.
    packed : int or None
        Length of the compressed data in bytes where the header tells it.
    """

    size: tuple[int, ...]
    components: int
    dtype: np.dtype[np.generic]
    data: Path
    begin: int
    encoding: Encoding
    image_io: str
    slope: float = 1.0
    intercept: float = 0.0
    packed: int | None = None

    @property
    def length(self) -> int:
        """Bytes of all voxels, decoded."""
        return math.prod(self.size) * self.components * self.dtype.itemsize


def check_length(stored: Stored) -> None:
    """Raise FormatError where the data cannot have the length that the header promises; nothing is decoded."""
    if min(stored.size) < 1:
        raise FormatError(f"its header gives a size of {size_text(stored.size)} voxels, which is nothing")
    if math.prod(stored.size) * stored.components > MOST_VOXELS:
        raise FormatError(
            f"its header gives {size_text(stored.size)} voxels, and {MOST_VOXELS:,} are read at most",
            "crop or resample it, or check its header",
        )
    there = check_regular(stored.data).st_size
    if stored.encoding == "raw":
        expect(there - stored.begin, stored.length)
        return
    packed = there - (0 if stored.encoding == "gzip-file" else stored.begin)
    if stored.packed is not None and stored.packed != packed:
        raise FormatError(f"its header promises {stored.packed} bytes of compressed data, but it holds {packed}")
    if stored.length > _HIGHEST_DEFLATION * max(packed, 0):
        raise FormatError(
            f"it is cut off: its header promises {stored.length} bytes, and {packed} compressed ones hold fewer"
        )


def expect(found: int, promised: int) -> None:
    """Raise FormatError unless as many bytes of data were found as the header promises."""
    if found < promised:
        raise FormatError(f"it is cut off after {max(found, 0)} of {promised} bytes of data")
    if found > promised:
        raise FormatError(
            f"it holds more data than the {promised} bytes that its header promises, so that the header is wrong",
            "correct the header or export it again",
        )


def check_regular(path: Path) -> os.stat_result:
    """Return a regular file's status without opening it; raises FormatError for anything else."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise FormatError("its name is not valid UTF-8", "rename the file or its folder") from None
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise AbsentError("", "check the path") from None
    except ValueError:  # a null byte, which no file's name has
        raise AbsentError("a file's name cannot hold a null byte", "check the path") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FormatError("its symbolic links lead in a circle", "give the file itself") from None
        if error.errno == errno.ENAMETOOLONG:
            raise AbsentError("its name is longer than a file's can be", "check the path") from None
        raise FormatError(error.strerror or str(error), "make it readable or give another file") from None
    if stat.S_ISDIR(status.st_mode):
        raise FormatError(*_folder(path))
    for is_kind, kind in _KINDS:
        if is_kind(status.st_mode):
            raise FormatError(f"it is {kind}, not a regular file", "give an image file")
    if status.st_size == 0:
        raise FormatError("it is empty (0 bytes)")
    return status


def beside(header: Path, name: str) -> Path:
    """Return the file of detached data that a header names; raises FormatError unless it lies there too."""
    advice = "put the data beside the header and name them there without a folder"
    if not name or Path(name).name != name or name in (".", ".."):
        raise FormatError(f"its header looks for its data elsewhere, at {shown(name)!r}", advice)
    data = header.parent / name
    if data.is_symlink() and data.resolve().parent != header.parent.resolve():
        raise FormatError(f"its data {shown(name)!r} are a link that leads to another folder", advice)
    try:
        check_regular(data)
    except FormatError as error:
        raise FormatError(f"its data {shown(name)!r} cannot be read: {error.reason}", error.advice) from None
    return data


def header_text(path: Path) -> bytes:
    """Return the first bytes of a file with a text header, as many as a header may have."""
    with path.open("rb") as stream:
        return stream.read(MOST_HEADER_BYTES)


def whole_numbers(text: str, field: str, count: int | None = None) -> tuple[int, ...]:
    """Return the whole numbers of a header's field; raises FormatError for anything else, or another count."""
    words = text.split() if text.isprintable() else []
    if not words or not all(word.isascii() and word.lstrip("+-").isdigit() and len(word) <= 12 for word in words):
        raise FormatError(f"its header's {field} must be whole numbers, got {shown(text)!r}", "correct the header")
    return tuple(int(word) for word in _counted(words, field, count))


def decimals(text: str, field: str, count: int | None = None) -> tuple[float, ...]:
    """Return the finite numbers of a header's field; raises FormatError as :func:`whole_numbers`."""
    try:
        numbers = [float(word) for word in text.split()] if text.isprintable() else [math.nan]
    except ValueError:
        numbers = [math.nan]
    if not all(math.isfinite(number) for number in numbers):
        raise FormatError(
            f"its header's {field} must be finite numbers, got {shown(text)!r}", "correct the header"
        )
    return tuple(_counted(numbers, field, count))


def check_spacing(spacing: tuple[float, ...] | None) -> None:
    """Raise FormatError where a header gives no spacing, or one that is not positive."""
    if spacing is None:
        raise FormatError("its header gives no spacing of the voxels", "export it with the spacing in mm")
    if not all(step > 0 and math.isfinite(step) for step in spacing):
        text = ", ".join(f"{step:g}" for step in spacing)
        raise FormatError(f"the spacing of its voxels must be positive, got ({text}) mm", "correct the header")


def check_matrix(columns: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    """Raise FormatError for a direction in which an axis of the grid is lost."""
    if not np.isfinite(columns).all() or abs(np.linalg.det(columns)) < 1e-6:
        text = ", ".join(f"{number:g}" for number in columns.ravel())
        raise FormatError(
            f"the direction of its axes must be three independent vectors, got ({text}), which is singular",
            "correct the header",
        )


def shown(text: object) -> str:
    """Return a name or value as it can be printed anywhere: shortened, on one line, no undecodable bytes."""
    line = " ".join(str(text).encode("utf-8", "backslashreplace").decode().replace("\0", "\\0").split())
    if len(line) <= _LONGEST_SHOWN:
        return line
    return f"{line[: _LONGEST_SHOWN // 2]}...{line[-_LONGEST_SHOWN // 2 :]}"


def size_text(size: tuple[int, ...]) -> str:
    """Write a size as 400x400x326."""
    return "x".join(str(side) for side in size)


def _counted(values: list[_T], field: str, count: int | None) -> list[_T]:
    if count is not None and len(values) != count:
        raise FormatError(f"its header's {field} must be {count} numbers, got {len(values)}", "correct the header")
    return values


def _folder(path: Path) -> tuple[str, str]:
    """Say what is wrong with a folder where a file is needed."""
    try:
        entries = sorted(path.iterdir())[:20]
    except OSError:
        entries = []
    for entry in entries:
        if _is_dicom(entry):
            return (
                "it is a folder of DICOM files, where one image file is needed",
                "convert the series to .nii.gz (a PET to SUV) and give that file",
            )
    return "it is a folder, where one image file is needed", "give the file in it"


def _is_dicom(path: Path) -> bool:
    """Tell whether a regular file has DICOM's mark at byte 128 (PS3.10, 7.1)."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False
