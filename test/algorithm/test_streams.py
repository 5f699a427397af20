from __future__ import annotations

import os
from pathlib import Path

import pytest

from algorithm.streams import LastingStream

DESCRIPTORS = Path("/proc/self/fd")


class Broken:
    """A stream that takes nothing, with a descriptor or none."""

    def __init__(self, descriptor: int | None) -> None:
        self.descriptor = descriptor

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def fileno(self) -> int:
        if self.descriptor is None:
            raise OSError("no descriptor")
        return self.descriptor


def broken(descriptor: int | None) -> LastingStream:
    return LastingStream(Broken(descriptor))  # type: ignore[arg-type]


@pytest.mark.parametrize("descriptor", [None, -1])  # -1: one that nothing can be sent to
def test_giving_up_keeps_no_descriptor(descriptor: int | None) -> None:
    stream = broken(descriptor)
    before = len(list(DESCRIPTORS.iterdir()))

    assert stream.write("told") == 4

    assert isinstance(stream.failure, BrokenPipeError)
    assert len(list(DESCRIPTORS.iterdir())) == before


def test_what_buffers_still_hold_goes_nowhere(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        before = len(list(DESCRIPTORS.iterdir()))

        broken(file.fileno()).write("told")

        assert (DESCRIPTORS / str(file.fileno())).readlink() == Path(os.devnull)
        assert len(list(DESCRIPTORS.iterdir())) == before
