"""NRRD headers (.nrrd, .nhdr), as teem's definition of the format, version 5, gives them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from algorithm.formats.stored import (
    Encoding,
    FormatError,
    Stored,
    beside,
    check_matrix,
    check_spacing,
    decimals,
    header_text,
    shown,
    whole_numbers,
)

_MAGIC = re.compile(rb"NRRD000[1-5]\r?\n")
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_TYPE_OF = {name: code for code, names in _TYPES.items() for name in names}
_ENCODINGS: dict[str, Encoding] = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}
_VECTOR = re.compile(r"\(([^()]*)\)|none", re.IGNORECASE)
_PIXEL_AXES = (
    "vector",
    "color",
    "complex",
    "matrix",
    "quaternion",
    "point",
    "list",
    "scalar",
    "normal",
    "gradient",
)


def read_nrrd(path: Path) -> Stored:
    """Read a NRRD's header; raises FormatError where it is none, or stores voxels in a way that is not read."""
    fields, end = _fields(header_text(path))
    dimensions = whole_numbers(_needed(fields, "dimension"), "dimension", 1)[0]
    if not 2 <= dimensions <= 4:
        raise FormatError(f"its header's dimension must be 3, got {dimensions}", "give one volume per file")
    size = whole_numbers(_needed(fields, "sizes"), "sizes", dimensions)
    kind, encoding = _needed(fields, "type").lower(), _needed(fields, "encoding").lower()
    if kind not in _TYPE_OF:
        raise FormatError(f"its header's type must be a number's, got {shown(kind)}", "convert it")
    if encoding not in _ENCODINGS:
        raise FormatError(f"its header's encoding must be raw or gzip, got {shown(encoding)}", "write it as raw")
    for skip in ("line skip", "lineskip", "byte skip", "byteskip"):
        if fields.get(skip, "0") != "0":
            raise FormatError(f"its header's {skip} must be 0, got {shown(fields[skip])}", "write it as one .nrrd")
    order = "<"
    if np.dtype(_TYPE_OF[kind]).itemsize > 1:
        endian = _needed(fields, "endian").lower()
        if endian not in ("little", "big"):
            raise FormatError(
                f"its header's endian must be little or big, got {shown(endian)}", "correct the header"
            )
        order = "<" if endian == "little" else ">"
    size, components = _without_pixel_axis(size, fields)
    _check_axes(fields, len(size))
    name = fields.get("data file", fields.get("datafile"))
    if name is not None and (name.upper().startswith("LIST") or "%" in name):
        raise FormatError(f"its data are in several files ({shown(name)})", "write one volume to one file")
    return Stored(
        size=size,
        components=components,
        dtype=np.dtype(order + _TYPE_OF[kind]),
        data=path if name is None else beside(path, name.removeprefix("./")),
        begin=end if name is None else 0,
        encoding=_ENCODINGS[encoding],
        image_io="NrrdImageIO",
    )


def _fields(content: bytes) -> tuple[dict[str, str], int]:
    """Return the fields by their names in small letters, and where the data begin."""
    magic = _MAGIC.match(content)
    if not magic:
        raise FormatError("it does not begin with NRRD0001 to NRRD0005")
    fields: dict[str, str] = {}
    at = magic.end()
    while at < len(content):
        end = content.find(b"\n", at)
        if end < 0:
            end = len(content)
        line = content[at:end].decode("latin-1").strip()
        at = end + 1
        if not line:
            return fields, at
        if line.startswith("#") or ":=" in line:
            continue
        name, mark, value = line.partition(":")
        if not mark:
            raise FormatError(f"its header has a line that is no field: {shown(line)!r}", "correct the header")
        if name.strip().lower() in fields:
            raise FormatError(f"its header gives {shown(name)} twice", "correct the header")
        fields[name.strip().lower()] = value.strip()
    if not {"data file", "datafile"} & set(fields):
        raise FormatError("its header does not end")
    return fields, at


def _without_pixel_axis(size: tuple[int, ...], fields: dict[str, str]) -> tuple[tuple[int, ...], int]:
    """Take the axis of a voxel's components, which comes first, out of the size."""
    kinds = fields.get("kinds", "").lower().split()
    is_pixel = bool(kinds) and (kinds[0].startswith(_PIXEL_AXES) or kinds[0][0].isdigit() or "-" in kinds[0])
    return (size[1:], size[0]) if is_pixel else (size, 1)


def _check_axes(fields: dict[str, str], dimensions: int) -> None:
    if "space directions" in fields:
        found = list(_VECTOR.finditer(fields["space directions"]))
        columns = [
            decimals(each[1].replace(",", " "), "space directions") for each in found if each[1] is not None
        ]
        if len({len(column) for column in columns}) != 1 or len(columns) < dimensions:
            got = shown(fields["space directions"])
            raise FormatError(
                f"its header's space directions must be {dimensions} vectors, got {got}",
                "correct the header" if dimensions <= 3 else "write one volume of three axes",
            )
        if len(columns) == len(columns[0]):
            lengths = [float(np.linalg.norm(column)) for column in columns]
            check_spacing(tuple(lengths))
            check_matrix(np.array(columns).T / lengths)
    else:
        text = fields.get("spacings")
        steps = (
            None
            if text is None
            else tuple(
                float("nan") if word == "nan" else decimals(word, "spacings")[0] for word in text.lower().split()
            )
        )
        check_spacing(None if steps is None else steps[-dimensions:])


def _needed(fields: dict[str, str], name: str) -> str:
    if name not in fields:
        raise FormatError(f"its header has no field {name}")
    return fields[name]
