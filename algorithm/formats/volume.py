"""From an image file to SimpleITK's image: the geometry as ITK reads it, voxels as the length bears out."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from algorithm.errors import MissingInputError
from algorithm.files import walked
from algorithm.formats.metaimage import read_metaimage
from algorithm.formats.nifti import read_nifti
from algorithm.formats.nrrd import read_nrrd
from algorithm.formats.stored import FormatError, Stored, check_length, check_regular, shown, size_text
from algorithm.formats.values import read_values

_READERS: dict[str, Callable[[Path], Stored]] = {
    ".mha": read_metaimage,
    ".mhd": read_metaimage,
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".hdr": read_nifti,
    ".img": read_nifti,
    ".nrrd": read_nrrd,
    ".nhdr": read_nrrd,
}

SUFFIXES = tuple(_READERS)
"""Of the files that are read, in small letters; capitals are read too."""

_POINTER = b"version https://git-lfs"
_NO_COSINE = 1e-30
_ADDRESSED = re.compile(r"\w+ ?\(0x[0-9a-fA-F]+\): ")  # an object of ITK's, as in "NrrdImageIO(0x5558a24e): "
_one_capture = threading.RLock()  # CT and PET are read at the same time, and a process has one descriptor 2
_FORMATS = ", ".join(SUFFIXES[:-1]) + " or " + SUFFIXES[-1]

sitk.ProcessObject.SetGlobalWarningDisplay(False)  # any output on stderr flags a grand-challenge job


def stored_in(path: Path) -> Stored:
    """Tell how a file says that it stores its voxels, which :func:`decode` believes only after looking.

    Raises
    ------
    FormatError
        It is no regular file, of no format that is read, or its header makes no sense.
    """
    check_regular(path)
    name = path.name.lower()
    suffix = next((each for each in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(each)), None)
    if suffix is None:
        raise FormatError(*_unknown(path))
    with path.open("rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise FormatError("it is a Git-LFS pointer, not an image", "run `git lfs pull`")
    return _READERS[suffix](path)


def files_of(image: Path) -> list[Path]:
    """Return the files that an image is made of: all in a folder; or a file, and the one with its voxels.

    A file that is no image is returned alone, of one that is not there nothing.
    """
    if not image.is_file():
        return sorted(_files_below(image))
    try:
        return list(dict.fromkeys((image, stored_in(image).data)))
    except FormatError:
        return [image]


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield a folder's files, behind links to folders as well, up to the first that nobody may look into."""
    with suppress(MissingInputError):
        for place, _, names in walked(folder):
            yield from (place / name for name in names if (place / name).is_file())


def header_of(path: Path, stored: Stored) -> sitk.ImageFileReader:
    """Let ITK read the header; raises FormatError where it cannot, or reads another size than we do."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(stored.image_io)
    try:
        with stderr_captured([]):
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise FormatError(f"its header cannot be read ({itk_reason(error)})") from error
    size = reader.GetSize()
    while len(size) > len(stored.size) and size[-1] == 1:
        size = size[:-1]
    if tuple(size) != stored.size:
        raise FormatError(
            f"its header can be read as {size_text(stored.size)} or as {size_text(tuple(size))} voxels",
            "export it again",
        )
    return reader


def decode(path: Path, stored: Stored, dtype: np.dtype[np.generic] | None = None) -> sitk.Image:
    """Return a scalar volume of three axes; a fourth axis of length 1 is dropped.

    It is of a type given, in which a value that is too large becomes infinite; else of its own.

    Raises
    ------
    FormatError, OSError, MemoryError
        As :func:`algorithm.formats.values.read_values`; and if the data cannot have the length promised.
    """
    check_length(stored)
    header = header_of(path, stored)
    values = read_values(stored)
    if dtype is not None:
        with np.errstate(over="ignore"):
            values = values.astype(dtype, copy=False)
    image = sitk.GetImageFromArray(values[0] if len(stored.size) == 4 else values)
    axes = header.GetDimension()
    # ITK inverts the direction by an SVD, which makes NaN where a product underflows: the CT would be lost.
    direction = [0.0 if abs(cosine) < _NO_COSINE else cosine for cosine in header.GetDirection()]
    try:
        image.SetSpacing(header.GetSpacing()[:3])
        image.SetOrigin(header.GetOrigin()[:3])
        image.SetDirection([direction[row * axes + column] for row in range(3) for column in range(3)])
    except RuntimeError as error:  # a number that we read in another way than ITK does
        raise FormatError(f"its geometry makes no sense ({itk_reason(error)})", "correct the header") from error
    return image


@contextmanager
def stderr_captured(lines: list[str]) -> Iterator[None]:
    """Collect what ITK's C libraries write to file descriptor 2 instead of letting it reach stderr.

    MetaIO complains there, and there only. A pipe, because a container may have no writable folder for a temporary
    file; it does not block: what exceeds its buffer (64 KiB on Linux) is dropped. One thread captures at a time.
    """
    with _one_capture:
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        if sys.stderr is not None:
            sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(write_end, 2)
        os.close(write_end)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            with os.fdopen(read_end, encoding="utf-8", errors="replace") as caught:
                lines.extend(" ".join(line.split()) for line in caught if line.strip())


def itk_reason(error: RuntimeError) -> str:
    """Return ITK's reason on one line: what follows its last "ERROR:" or "Reason:", without C++ addresses."""
    text = " ".join(str(error).split())
    for mark in ("ITK ERROR:", "sitk::ERROR:", "Reason:"):
        text = text.rpartition(mark)[2] or text
    return shown(_ADDRESSED.sub("", text.strip()))


def _unknown(path: Path) -> tuple[str, str]:
    """Say what is wrong with a file of another format."""
    with path.open("rb") as stream:
        is_dicom = stream.read(132)[128:] == b"DICM"
    if is_dicom:
        return "it is a single DICOM file", "convert its series to .nii.gz (a PET to SUV) and give that file"
    return "it is not in an image format that is read", f"give {_FORMATS}"
