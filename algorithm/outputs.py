"""What this software wrote, recognised again: nothing else is ever replaced or removed.

A file is known by what is in it, not by its name: a mask by a note in its header, a picture by PNG's ``Software``
text, a page by its generator, a table by its headings, JSON by its keys. An empty file holds nothing that could be
lost: it may be replaced, but is not removed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from algorithm.errors import OutputError, UserError
from algorithm.files import check_writable, require_regular, written_whole
from algorithm.jsonfile import read_json

SOFTWARE = "h2aseg"
"""As pictures and pages name what made them."""

MASK_NOTE = f"{SOFTWARE} tumour mask"
"""In a mask's header: NIfTI-1's ``descrip``, and MetaImage's ``ITK_FileNotes``."""

MASK_NAME = "tumour.nii.gz"
"""Of the mask in a folder of a case's results."""

_HEAD = 64 * 2**10  # bytes in which a file's marks lie
_PNG_HEADER_END = 33  # signature and IHDR
_REPORT_BEGINS = '{\n  "software_version": "'
_RECORD_BEGINS = '{\n  "case": "'
_NIFTI_DESCRIP = slice(148, 228)  # nifti1.h


@dataclass(frozen=True)
class Kind:
    """A kind of file that this software writes.

    Attributes
    ----------
    name : str
        For messages, with its article: "a run report".
    knows : callable
        Tells whether a file is one of these; may raise OSError and UserError, which mean no.
    """

    name: str
    knows: Callable[[Path], bool]

    def is_earlier(self, path: Path) -> bool:
        """Tell whether a path is a regular file of this kind."""
        try:
            require_regular(path)
            return path.is_file() and self.knows(path)
        except (OSError, UserError):
            return False


def check_free(path: Path, kind: Kind) -> None:
    """Raise OutputError unless a file may be written: nothing is there, or an earlier output of the same kind.

    Nothing is made, so that it can be asked before the work.
    """
    check_writable(path)
    if path.exists() and path.stat().st_size and not kind.is_earlier(path):
        raise OutputError(
            f"{path} is there already and is not {kind.name} that this software wrote, so it is left as it is; "
            "choose another name or move it away"
        )


def check_all_free(places: Mapping[Path, Kind], inputs: Sequence[Path] = ()) -> None:
    """Raise OutputError unless all these files may be written and none of them is an input; see `check_free`."""
    for path, kind in places.items():
        if is_one_of(path, inputs):
            raise OutputError(f"{path} would overwrite an input; choose another name")
        check_free(path, kind)


def is_one_of(path: Path, others: Sequence[Path]) -> bool:
    """Tell whether a path is one of these files, under whatever name."""
    return any(path.exists() and other.exists() and path.samefile(other) for other in others)


@contextmanager
def written_as(path: Path, kind: Kind) -> Iterator[Path]:
    """Write a file whole (see :func:`algorithm.files.written_whole`), unless something else lies there."""
    check_free(path, kind)
    with written_whole(path) as temporary:
        yield temporary


def remove_earlier(places: Mapping[Path, Kind]) -> None:
    """Remove what earlier runs left in these places; whatever else lies there stays.

    Raises
    ------
    OutputError
        A file cannot be removed.
    """
    for path, kind in places.items():
        if kind.is_earlier(path):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(
                    f"cannot remove the earlier result {path}: {error.strerror or error}; choose another folder"
                ) from error


def json_kind(name: str, *keys: str, beginning: str | None = None) -> Kind:
    """Return a kind of JSON object that has all these keys.

    Parameters
    ----------
    name : str
        For messages.
    *keys : str
    beginning : str, optional
        By which a file is known that is not whole any more.
    """

    def knows(path: Path) -> bool:
        if beginning is not None and _head(path).startswith(beginning.encode()):
            return True
        content = read_json(path)
        return isinstance(content, dict) and content.keys() >= set(keys)

    return Kind(name, knows)


def text_kind(name: str, beginning: str) -> Kind:
    """Return a kind of text file that begins so: a table by its first headings."""
    return Kind(name, lambda path: _head(path).startswith(beginning.encode()))


def png_kind(name: str) -> Kind:
    """Return a kind of picture."""
    text = b"tEXtSoftware\0" + SOFTWARE.encode()
    return Kind(name, lambda path: _head(path).startswith(b"\x89PNG") and text in _head(path))


def html_kind(name: str) -> Kind:
    """Return a kind of page; its head must have the generator."""
    return Kind(name, lambda path: f'<meta name="generator" content="{SOFTWARE}'.encode() in _head(path))


def mark_png(path: Path) -> None:
    """Write PNG's ``Software`` text (PNG specification, 11.3.3.3) into a picture that has none."""
    content = path.read_bytes()
    chunk = b"tEXtSoftware\0" + SOFTWARE.encode()
    marked = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:_PNG_HEADER_END] + marked + content[_PNG_HEADER_END:])


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_HEAD)


def _is_mask(path: Path) -> bool:
    head = _head(path)
    if head.startswith(b"\x1f\x8b"):
        head = zlib.decompressobj(wbits=31).decompress(head, _HEAD)
    if head.startswith(b"ObjectType"):  # MetaImage
        return f"\nITK_FileNotes = {MASK_NOTE}\n".encode() in head
    return head[_NIFTI_DESCRIP].startswith(MASK_NOTE.encode())


def _knows_mask(path: Path) -> bool:
    try:
        return _is_mask(path)
    except zlib.error:
        return False


MASK = Kind("a tumour mask", _knows_mask)
RUN_REPORT = json_kind("a run report", "software_version", "stopped_because", "geometry", beginning=_REPORT_BEGINS)
PICTURE = png_kind("a picture")
PAGE = html_kind("a page")
SEGMENTATION = Kind(
    "a DICOM SEG", lambda path: _head(path)[128:132] == b"DICM" and b"h2aseg-container" in _head(path)
)
CASE_RECORD = json_kind("a case's record", "case", "key", "seconds", "files", beginning=_RECORD_BEGINS)
SOCKET_VALUE = Kind("a JSON value", lambda path: read_json(path) in (True, False))
"""What AutoPET III asks for beside the mask: one truth value."""
