"""What the system or a library refuses, as a sentence; whatever has none here is a bug of this software."""

from __future__ import annotations

import errno

from algorithm.errors import DeviceError, MissingInputError, OutputError, ResourceError, UserError

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "this user's share of the disk is full"}
_ADVICE = {
    errno.ENOENT: "see whether its disk or folder is still there",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "mend the links",
    errno.EROFS: "choose a place that can be written to",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.EFBIG: "allow larger files (ulimit -f)",
    errno.EIO: "see to the disk or the connection to it",
    errno.ESTALE: "see to the connection to its disk",
    errno.ENOTCONN: "see to the connection to its disk",
}
_LONGEST_NAME = 200

_NO_MEMORY = (
    "can't allocate memory",  # torch on a CPU
    "cannot allocate memory",  # the dynamic linker, and system calls
    "bad_alloc",  # C++
    "failed to allocate memory",  # ITK
    "can't start new thread",  # Python, where the address space or the number of processes is limited
    "out of memory",  # CUDA, after all that could be done with less
    "failed to map segment",
)
_NO_DEVICE = ("cuda error", "cudnn error", "cublas error", "nvml", "unspecified launch failure")


def as_user_error(error: BaseException) -> UserError | None:
    """Return the sentence for what the system or a library refused, or None if it is a bug."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, ImportError, OSError)) and any(words in text for words in _NO_MEMORY)
    ):
        return ResourceError("this process may use no more memory; give it more, or take a smaller case")
    if isinstance(error, OSError) and error.errno is not None:
        return _refused(error)
    if isinstance(error, RuntimeError) and any(words in text for words in _NO_DEVICE):
        return DeviceError(f"the GPU failed ({reason_of(error)}); see to the device, or use --device cpu")
    return None


def reason_of(error: BaseException) -> str:
    """Return the system's own words, or the first line of a library's."""
    words = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
    return words or type(error).__name__


def shortened(name: str) -> str:
    """Return a file's name as refusals of the system tell it."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."


def _refused(error: OSError) -> UserError | None:
    name = "" if error.filename is None else shortened(str(error.filename))
    if isinstance(error, PermissionError):
        return OutputError(f"permission denied for {name or error}; give this user access to it")
    if error.errno in _FULL:
        where = f" while writing {name}" if name else ""
        return OutputError(f"{_FULL[error.errno]}{where}; make room and run the command again")
    if error.errno in _ADVICE or name:
        advice = _ADVICE.get(error.errno or 0, "check the path")
        return MissingInputError(f"cannot use {name or 'a file'}: {reason_of(error)}; {advice}")
    return None
