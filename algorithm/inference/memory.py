"""The host's memory: how much there is, and how to reuse it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc, malloc.h
_TOP_PAD_BYTES = 64 * 2**20
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def reuse_freed_memory() -> bool:
    """Tell glibc's allocator to serve large blocks from its heap and never to give them back.

    By default every feature map is mapped afresh and the kernel fills it with zero pages at first touch, which
    takes several times as long as the arithmetic of an elementwise operation. Call it once, before the first
    large allocation. The peak stays the same; memory once used stays with the process.

    Returns
    -------
    bool
        False where there is no glibc; nothing is changed then.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    accepted = [mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, -1), mallopt(_M_TOP_PAD, _TOP_PAD_BYTES)]
    return all(accepted)


def host_limit_bytes() -> int | None:
    """Return how much memory this process may use.

    The least of what grand-challenge says (``GRAND_CHALLENGE_COMPONENT_MAX_MEMORY_MB``), the control group's limit
    and the machine's memory; None where none of them is known.
    """
    limits = [_stated_limit(), *(_number_in(path) for path in _CGROUP_LIMITS), _machine_memory()]
    known = [limit for limit in limits if limit is not None]
    return min(known, default=None)


def _stated_limit() -> int | None:
    stated = os.environ.get("GRAND_CHALLENGE_COMPONENT_MAX_MEMORY_MB", "")
    return int(stated) * 2**20 if stated.isdigit() else None


def _number_in(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _machine_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None
