"""The host's memory: how much there is, how much a case needs, and how to reuse it."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc, malloc.h
_TOP_PAD_BYTES = 64 * 2**20
_BYTES_PER_PET_VOXEL = 30  # pair as float32, its decoded original, mask, labels of the postprocessing
_BYTES_PER_CT_VOXEL = 12  # of a CT on a grid of its own: decoded, as float32, and a copy while it is turned
_BYTES_PER_GRID_VOXEL = 28  # resampled pair, normalised pair, probability, weights, body
_BYTES_PER_FURTHER_INPUT = 20  # of an ensemble: the pair as that network takes it, if no other takes it so
_BYTES_PER_WINDOW_VOXEL = 1400  # activations of one float32 window, measured
_BYTES_OF_PROGRAM = 700 * 2**20  # interpreter, torch and the weights
_SHARE_OF_BATCH = 1 / 16  # of the host's memory: so little that no case is refused for it
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class CaseSize:
    """What decides how much memory a case needs.

    Attributes
    ----------
    pet_voxels : int
    own_ct_voxels : int
        Of a CT on another grid than the PET's; else 0.
    grid_voxels : float
        On the network's grid.
    inputs : int
        Ways in which the networks of an ensemble want the pair prepared.
    window_voxels : int
        Of the largest window.
    """

    pet_voxels: int
    own_ct_voxels: int
    grid_voxels: float
    inputs: int
    window_voxels: int

    @property
    def bytes_needed(self) -> float:
        """Largest resident memory of a process that segments such a case on a CPU."""
        return (
            _BYTES_OF_PROGRAM
            + _BYTES_PER_WINDOW_VOXEL * self.window_voxels
            + _BYTES_PER_PET_VOXEL * self.pet_voxels
            + _BYTES_PER_CT_VOXEL * self.own_ct_voxels
            + (_BYTES_PER_GRID_VOXEL + _BYTES_PER_FURTHER_INPUT * (self.inputs - 1)) * self.grid_voxels
        )


def most_windows_at_once(window_voxels: int) -> int:
    """Return how many windows a CPU may compute at a time without memory that a case could want."""
    limit = host_limit_bytes()
    if limit is None:
        return 1
    return max(1, int(_SHARE_OF_BATCH * limit / (_BYTES_PER_WINDOW_VOXEL * window_voxels)))


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

    The least of what grand-challenge says (``GRAND_CHALLENGE_COMPONENT_MAX_MEMORY_MB``), the control group's
    limit, what is left of the process's address space, and the machine's memory; None where none is known.
    """
    limits = [
        _stated_limit(),
        *(_number_in(path) for path in _CGROUP_LIMITS),
        _address_space(),
        _machine_memory(),
    ]
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


def _address_space() -> int | None:
    """Return what the process may hold if all address space that it has yet to take is memory (``ulimit -v``)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        taken, resident, *_ = map(int, Path("/proc/self/statm").read_text().split())  # pages, proc_pid_statm(5)
    except (OSError, ValueError):
        return limit
    return limit - (taken - resident) * resource.getpagesize()


def _machine_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None
