"""Decoding a file's voxels once its header is known; what is missing or too much is found on the way."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import IO

import numpy as np
from numpy.typing import NDArray

from algorithm.formats.stored import FormatError, Stored, expect

_BLOCK = 2**20
_PACKED_BLOCK = 2**16  # what of it is left after a block is copied, so that it had better be short


def read_values(stored: Stored) -> NDArray[np.generic]:
    """Decode the voxels of a scalar volume.

    Returns
    -------
    array, z, y, x
        Of the stored type in the machine's byte order; float32 or float64 where the header scales the values.

    Raises
    ------
    FormatError
        The data are shorter or longer than the header promises, or damaged.
    OSError, MemoryError
    """
    values = np.empty(stored.length // stored.dtype.itemsize, stored.dtype)
    buffer = memoryview(values.view(np.uint8))  # type: ignore[arg-type]
    try:
        with stored.data.open("rb") as stream:
            if stored.encoding == "gzip-file":
                with gzip.GzipFile(fileobj=stream) as unpacked:
                    _skip(unpacked, stored.begin)
                    _fill(unpacked, buffer)
            else:
                stream.seek(stored.begin)
                if stored.encoding == "gzip":
                    with gzip.GzipFile(fileobj=stream) as unpacked:
                        _fill(unpacked, buffer)
                elif stored.encoding == "zlib":
                    _fill(_Inflated(stream), buffer)
                else:
                    _fill(stream, buffer)
    except (zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(f"its compressed data are damaged ({error})") from error
    except EOFError as error:
        raise FormatError(f"it is cut off: its compressed data end too early ({error})") from error
    if not stored.dtype.isnative:
        values = values.byteswap(inplace=True).view(stored.dtype.newbyteorder())
    return _scaled(values, stored).reshape(stored.size[::-1])


class _Inflated(io.RawIOBase):
    """What a zlib stream holds; MetaImage has such streams, which no reader of the standard library opens."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._inflate = stream, zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._stream.read(_PACKED_BLOCK)
            if not packed:
                raise EOFError("its end is missing")
            unpacked = self._inflate.decompress(packed, len(buffer))
            if unpacked:
                buffer[: len(unpacked)] = unpacked
                return len(unpacked)
        if self._inflate.unused_data or self._stream.read(1):
            raise FormatError("bytes follow after its compressed data", "correct the header or export it again")
        return 0


def _skip(stream: IO[bytes] | gzip.GzipFile, count: int) -> None:
    while count > 0:
        block = stream.read(min(count, _BLOCK))
        if not block:
            raise EOFError("there is a header alone")
        count -= len(block)


def _fill(stream: IO[bytes] | gzip.GzipFile | _Inflated, buffer: memoryview) -> None:
    """Fill a buffer from a stream that must then be at its end, where a compressed one's checksum is tested."""
    filled = 0
    while filled < len(buffer):
        count = stream.readinto(buffer[filled : filled + _BLOCK])  # type: ignore[union-attr]
        if not count:
            break
        filled += count
    expect(filled + len(stream.read(1) or b""), len(buffer))


def _scaled(values: NDArray[np.generic], stored: Stored) -> NDArray[np.generic]:
    """Apply slope and intercept as ITK does: whole numbers become float32, the product is formed in float64."""
    if stored.slope == 1.0 and stored.intercept == 0.0:
        return values
    scaled = values if values.dtype.kind == "f" else values.astype(np.float32)
    for first in range(0, scaled.size, _BLOCK):
        block = scaled[first : first + _BLOCK]
        with np.errstate(over="ignore"):  # what overflows becomes infinite, which no image may hold
            block[:] = block.astype(np.float64) * stored.slope + stored.intercept
    return scaled
