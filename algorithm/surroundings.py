"""What a process may find missing around it: a user's name, a home, somewhere to keep caches, address space.

``docker run --user 12345`` starts a process whose user the system does not know and whose home is ``/``. PyTorch
asks for the user's name when parts of it are imported, matplotlib wants to write into the home.
"""

from __future__ import annotations

import atexit
import os
import pwd
import resource
import shutil
import stat
import tempfile
from pathlib import Path

from algorithm.errors import ResourceError

LEAST_ADDRESS_SPACE = 900 * 2**20
"""Bytes that Python, OpenBLAS, PyTorch and SimpleITK take before any case: with 500 MiB OpenBLAS ends the process
in its own words, with 950 all are loaded (2 cores)."""

_CACHES = {"MPLCONFIGDIR": "matplotlib", "TORCHINDUCTOR_CACHE_DIR": "inductor", "XDG_CACHE_HOME": "cache"}


def settle_in() -> None:
    """Give libraries a user's name and a place for caches where there is none; whatever is set stays."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        for name in ("USER", "LOGNAME"):  # what getpass.getuser asks first
            os.environ.setdefault(name, f"user{os.getuid()}")
    if not _is_home(os.environ.get("HOME", "")):
        folder = _place_for_caches()
        if folder is not None:
            os.environ["HOME"] = str(folder)
            for name, inside in _CACHES.items():
                os.environ.setdefault(name, str(folder / inside))


def check_address_space() -> None:
    """Raise ResourceError where so little address space is allowed that libraries would end the process."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        raise ResourceError(
            f"this process may use {limit / 2**20:.0f} MiB of address space (ulimit -v), and more than "
            f"{LEAST_ADDRESS_SPACE / 2**20:.0f} are needed; raise the limit"
        )


def _is_home(folder: str) -> bool:
    return folder not in ("", "/") and Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _place_for_caches() -> Path | None:
    """Return this user's folder among the temporary ones; one for this process where the name is taken."""
    try:
        folder = Path(tempfile.gettempdir()) / f"h2aseg-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
            folder = Path(tempfile.mkdtemp(prefix="h2aseg-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
    except OSError:  # nowhere to write: libraries do without, or say so
        return None
    return folder
