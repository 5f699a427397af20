"""Writing a file whole or not at all."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from algorithm.errors import OutputError

_unfinished: set[Path] = set()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal digits; raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def written_whole(path: Path, *, instead_of: Sequence[Path] = ()) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` when the block ends well and is removed when it does not.

    The temporary file lies in the parent of the target's folder where that is the same file system, so that the
    target's folder never holds more than the finished file: grand-challenge takes exactly one image per output
    folder. It keeps the target's suffix, by which image writers choose their format.

    Parameters
    ----------
    path : Path
        Target file; its folder is made if need be, an existing file is replaced.
    instead_of : sequence of Path
        Files in the same folder that give way to the new one. At any moment at least one whole file is there, and
        never one more than there was: the new one comes under the first's name and is then renamed.

    Raises
    ------
    OutputError
        The folder or file cannot be written.
    """
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = _staging_folder(folder) / f".partial-{uuid.uuid4().hex[:12]}-{path.name}"
        try:
            _unfinished.add(temporary)
            temporary.touch()  # so that the system's own reason is known: image writers swallow it
            yield temporary
            finished = temporary
            for old in instead_of:
                finished.replace(old)
                finished = old
            finished.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
            _unfinished.discard(temporary)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; choose a folder that can be written to"
        ) from error


def discard_unfinished() -> None:
    """Remove the files that are being written; for a process that ends without unwinding."""
    for temporary in list(_unfinished):
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise OutputError if a file could not be written there; nothing is made, so that it can be asked early."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot write {path}: {folder} is not a folder that this user may write to; choose another"
        )


def _staging_folder(folder: Path) -> Path:
    """Return the parent of ``folder`` if a file there can be renamed into ``folder``, else ``folder`` itself."""
    parent = folder.resolve().parent
    usable = os.access(parent, os.W_OK | os.X_OK) and parent.stat().st_dev == folder.stat().st_dev
    return parent if usable else folder


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder; it is none where nothing can have such a name or nobody may look."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Tell whether a path is a regular file; it is none where nothing can have such a name or nobody may look."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_same_file(a: Path, b: Path) -> bool:
    """Tell whether two paths are one file that is there."""
    try:
        return a.samefile(b)
    except (OSError, ValueError):
        return False
