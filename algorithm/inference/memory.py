"""Keep freed memory in the process instead of handing it back to the kernel."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc, malloc.h
_TOP_PAD_BYTES = 64 * 2**20


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
