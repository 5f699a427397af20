"""Standard streams that fail nobody: what is printed is worth less than the work that it tells of."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class LastingStream(io.TextIOBase):
    """A text stream whose first failure is kept and whose further text is lost.

    Parameters
    ----------
    stream : file object
        Written to while that works.

    Attributes
    ----------
    failure : Exception or None
        Why nothing can be written any more: the reader went away, the disk is full.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.failure: Exception | None = None

    def write(self, text: str) -> int:
        """Write, or do nothing after a failure."""
        if self.failure is None:
            try:
                return self.stream.write(text)
            except (OSError, ValueError) as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing after a failure."""
        if self.failure is None:
            try:
                self.stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Keep the failure, and send what buffers still hold nowhere: the interpreter flushes them in the end."""
        self.failure = error
        with contextlib.suppress(OSError, ValueError, AttributeError):
            own, nowhere = self.stream.fileno(), os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, own)
            finally:
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def fileno(self) -> int:
        """Return the stream's own descriptor."""
        return self.stream.fileno()

    def isatty(self) -> bool:
        """Tell whether a terminal shows it."""
        return self.stream.isatty()

    def writable(self) -> bool:
        """Text is taken at any time."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's own."""
        return self.stream.encoding


@contextmanager
def lasting_streams() -> Iterator[LastingStream]:
    """Let stdout and stderr fail nobody inside; yield stdout.

    Where the process was started without them, they lead nowhere, so that no file gets their descriptors. What the
    terminal's encoding lacks is written as an escape.
    """
    _hold_descriptors()
    before = sys.stdout, sys.stderr
    streams = [LastingStream(each if each is not None else _nowhere()) for each in before]
    for stream in streams:
        if isinstance(stream.stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stream.stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = streams
    try:
        yield streams[0]
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123  (as long as the process)


def _hold_descriptors() -> None:
    """See to it that descriptors 0, 1 and 2 are taken: a file that got one would be printed into."""
    with contextlib.suppress(OSError):
        descriptor = os.open(os.devnull, os.O_RDWR)
        while descriptor < 3:
            descriptor = os.dup(descriptor)
        os.close(descriptor)
