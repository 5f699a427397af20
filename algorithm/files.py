"""Writing a file whole or not at all, one writer at a time, and without leaving anything half written."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from algorithm.errors import MissingInputError, OutputError

_PREFIX = ".partial-"
_LONGEST_TAIL = 40  # characters of the target's name in the temporary one; names end at 255 bytes

_unfinished: set[Path] = set()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal digits; raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def written_whole(path: Path, *, instead_of: Sequence[Path] = (), staging: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` when the block ends well and is removed when it does not.

    The temporary file keeps the target's suffix, in small letters: image writers choose their format by it. Those
    that killed processes left in its folder are removed first.

    Parameters
    ----------
    path : Path
        Target file; its folder is made if need be, an existing file is replaced.
    instead_of : sequence of Path
        Files in the same folder that give way to the new one. At any moment at least one whole file is there, and
        never one more than there was: the new one comes under the first's name and is then renamed.
    staging : Path, optional
        Where the temporary file lies, if that is the same file system; the target's folder by default. Sockets
        need it: grand-challenge takes exactly one file from a folder of images.

    Raises
    ------
    OutputError
        The folder or file cannot be written, or what has this name is no regular file.
    """
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        require_regular(path)
        place = folder if staging is None or not _can_stage(staging, folder) else staging
        sweep(place)
        temporary = place / f"{_PREFIX}{uuid.uuid4().hex[:12]}-{path.name[-_LONGEST_TAIL:].lower()}"
        try:
            _unfinished.add(temporary)
            with _held(temporary):
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


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder; those being written are locked."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name.startswith(_PREFIX):
                with suppress(OSError), path.open("rb") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder of results for one run, so that a second one is refused instead of mixing its files in.

    The folder is made if need be, and removed again where the block fails and leaves it empty. The lock is the
    kernel's, on the folder itself: it leaves no file and ends with the process. File systems without locks are
    taken as they are.

    Raises
    ------
    OutputError
        The folder cannot be made or read, or another run holds it.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OutputError(
            f"cannot write to {folder}: {error.strerror or error}; choose a folder that can be written to"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"another run is writing to {folder} at this moment; wait for its end, or choose another folder"
            ) from None
        except OSError:
            pass
        sweep(folder)
        yield
    except BaseException:
        if made:
            with suppress(OSError):
                folder.rmdir()
        raise
    finally:
        os.close(descriptor)


def require_regular(path: Path) -> None:
    """Raise OutputError if what has this name is anything but a regular file: it must not be replaced.

    A link is refused too: replacing it would leave the file that it stands for as it is, and take the link.
    """
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another name") from error
    if not stat.S_ISREG(mode):
        found = next((name for is_kind, name in _IRREGULAR if is_kind(mode)), "no regular file")
        raise OutputError(f"{path} is {found} and is left as it is; choose the name of a file")


_IRREGULAR = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def check_writable(path: Path) -> None:
    """Raise OutputError if a file could not be written there; nothing is made, so that it can be asked early."""
    require_regular(path)
    folder = path.parent
    try:
        while not folder.exists():
            folder = folder.parent
        usable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another name") from error
    if not usable:
        raise OutputError(
            f"cannot write {path}: {folder} is not a folder that this user may write to; choose another"
        )


def refuse_unreadable(error: OSError) -> NoReturn:
    """Raise MissingInputError for a folder that ``os.walk`` (its ``onerror``) would pass over in silence."""
    raise MissingInputError(f"cannot look into {error.filename}: {error.strerror}; make it readable") from error


def walked(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield what ``os.walk`` does, sorted; links to folders are followed, each folder is entered once.

    Folders go before links to them, so that they keep their own names. What the caller takes from the list of
    folders is not entered.

    Raises
    ------
    MissingInputError
        A folder cannot be looked into.
    """
    entered: set[Path] = set()
    waiting = [folder]
    while waiting:
        for place, folders, names in os.walk(waiting.pop(0), onerror=refuse_unreadable):
            here = Path(place)
            real = here.resolve()
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            folders.sort()
            yield here, folders, sorted(names)
            waiting += (here / name for name in folders if (here / name).is_symlink())


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


def relative_path(path: Path, folder: Path) -> Path:
    """Return the way from a folder to a file, right also where one of them lies behind a link.

    A file below the folder keeps the way by which it was found. Elsewhere ``..`` leads up from where a link ends,
    so links are followed first; the file's own name stays, as its suffix says what it is.
    """
    if path.is_relative_to(folder) and ".." not in (below := path.relative_to(folder)).parts:
        return below
    return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve()))


@contextmanager
def _held(temporary: Path) -> Iterator[None]:
    """Make a temporary file and keep it locked, so that no other process takes it for a killed one's.

    It is made here so that the system's own reason is known where it cannot be: image writers swallow it. It is
    made and opened in one step, as another process may sweep at any time.
    """
    with contextlib.ExitStack() as stack:
        while True:
            stream = stack.enter_context(temporary.open("ab"))
            with suppress(OSError):  # a file system without locks
                fcntl.flock(stream, fcntl.LOCK_EX)
            if os.fstat(stream.fileno()).st_nlink:
                break  # else another process swept it away before it was locked
        yield


def _can_stage(staging: Path, folder: Path) -> bool:
    """Tell whether a file in ``staging`` could be written and renamed into ``folder``."""
    return os.access(staging, os.W_OK | os.X_OK) and staging.stat().st_dev == folder.stat().st_dev
