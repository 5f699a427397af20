"""MetaImage headers (.mha, .mhd): what MetaIO's documentation calls MetaImage tags."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from algorithm.formats.stored import (
    COPY_AGAIN,
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

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # MET_LONG has 4 or 8 bytes, as the writer's machine had it
_MATRIX = ("TransformMatrix", "Rotation", "Orientation")
_SPACING = ("ElementSpacing", "ElementSize")
_BIG_ENDIAN = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
_DATA = "ElementDataFile"
_NAME = re.compile(r"[!-<>-~]+(?: [!-<>-~]+)*")
"""What a line can begin with: ITK writes the keys of other formats too, such as ``dim[0]`` and ``0008|0005``."""


def read_metaimage(path: Path) -> Stored:
    """Read a MetaImage's header; raises FormatError where it is none, or stores voxels as is not read."""
    tags, end = _tags(header_text(path))
    dimensions = whole_numbers(_needed(tags, "NDims"), "NDims", 1)[0]
    if not 2 <= dimensions <= 4:
        raise FormatError(f"its header's NDims must be 3, got {dimensions}", "give one volume per file")
    size = whole_numbers(_needed(tags, "DimSize"), "DimSize", dimensions)
    _check_plain(tags)
    spacing = next((decimals(tags[tag], tag, dimensions) for tag in _SPACING if tag in tags), None)
    check_spacing(spacing)
    for tag in _MATRIX:
        if tag in tags:
            check_matrix(np.array(decimals(tags[tag], tag, dimensions**2)).reshape(dimensions, dimensions).T)
    kind = _needed(tags, "ElementType").removesuffix("_ARRAY")
    if kind not in _TYPES:
        raise FormatError(
            f"its header's ElementType must be one of {', '.join(_TYPES)}, got {shown(kind)}", "convert it"
        )
    big = any(_is_true(tags, tag) for tag in _BIG_ENDIAN)
    compressed = _is_true(tags, "CompressedData")
    packed = (
        whole_numbers(tags["CompressedDataSize"], "CompressedDataSize", 1)[0]
        if (compressed and "CompressedDataSize" in tags)
        else None
    )
    name = tags[_DATA]
    local = name.upper() == "LOCAL"
    return Stored(
        size=size,
        components=whole_numbers(tags.get("ElementNumberOfChannels", "1"), "ElementNumberOfChannels", 1)[0],
        dtype=np.dtype((">" if big else "<") + _TYPES[kind]),
        data=path if local else beside(path, name),
        begin=end if local else 0,
        encoding="zlib" if compressed else "raw",
        image_io="MetaImageIO",
        packed=packed,
    )


def _tags(content: bytes) -> tuple[dict[str, str], int]:
    """Return the tags up to the one that says where the data are, and where the header ends."""
    tags: dict[str, str] = {}
    at = 0
    while True:
        end = content.find(b"\n", at)
        line = content[at : end if end >= 0 else len(content)]
        text = line.decode("latin-1")
        name, mark, value = text.partition("=")
        name, value = name.strip(), value.strip()
        if not mark or not _NAME.fullmatch(name):
            if tags and not line.isascii():
                raise FormatError(f"its header has no {_DATA}")
            what = (
                "is not a MetaImage's header"
                if "NDims" not in tags
                else f"has a line {shown(text)!r} in its header"
            )
            raise FormatError(f"it {what}, of lines like `NDims = 3` up to {_DATA}", COPY_AGAIN)
        if name in tags:
            raise FormatError(f"its header gives {shown(name)} twice", "correct the header")
        tags[name] = value
        if name == _DATA:
            return tags, end + 1 if end >= 0 else len(content)
        if end < 0:
            raise FormatError(f"its header has no {_DATA}")
        at = end + 1


def _check_plain(tags: dict[str, str]) -> None:
    """Refuse what MetaIO offers beyond one file of binary data."""
    if "BinaryData" in tags and not _is_true(tags, "BinaryData"):
        raise FormatError("its voxels are written as text (BinaryData = False)", "write them as binary data")
    name = tags[_DATA]
    if name.upper().startswith("LIST") or "%" in name:
        raise FormatError(
            f"its data are in several files ({_DATA} = {shown(name)})", "write one volume to one file"
        )
    if tags.get("HeaderSize", "0") != "0":
        raise FormatError(
            f"its header's HeaderSize must be 0, got {shown(tags['HeaderSize'])}", "write it as .mha"
        )
    for tag, neutral in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if tag in tags and decimals(tags[tag], tag, 1)[0] != neutral:
            raise FormatError(
                f"its header's {tag} must be {neutral:g}, got {shown(tags[tag])}", "store the values"
            )


def _is_true(tags: dict[str, str], tag: str) -> bool:
    return tags.get(tag, "False")[:1] in ("T", "t", "1")


def _needed(tags: dict[str, str], tag: str) -> str:
    if tag not in tags:
        raise FormatError(f"its header has no {tag}")
    return tags[tag]
