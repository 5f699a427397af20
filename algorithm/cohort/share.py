"""Several processes, one cohort: which cases are whose, and where they wait for each other (``torchrun``)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from algorithm.errors import UsageError

Item = TypeVar("Item")

_LONGEST_WAIT = timedelta(days=7)  # for the slowest process's last case


@dataclass(frozen=True)
class Share:
    """Place of this process among those that segment a cohort together.

    Attributes
    ----------
    rank, count : int
        Among all processes; RANK and WORLD_SIZE of torchrun.
    local : int
        Among those of this machine; LOCAL_RANK of torchrun.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes the tables and shows progress."""
        return self.rank == 0

    def own(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return which of some items are this process's: every ``count``-th, so that no two have one in common."""
        return items[self.rank :: self.count]

    def device(self, asked: str) -> str:
        """Return the device for this process: of several GPUs its own, unless the user named one."""
        gpus = torch.cuda.device_count()
        return f"cuda:{self.local % gpus}" if self.count > 1 and asked in ("auto", "cuda") and gpus else asked

    def wait(self) -> None:
        """Wait until all processes have come this far."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined() -> Iterator[Share]:
    """Join the processes that torchrun started, and leave them at the end; alone without torchrun.

    Raises
    ------
    UsageError
        The environment's numbers make no sense.
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield Share()
        return
    try:
        share = Share(*(int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    except ValueError as error:
        raise UsageError(
            f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers ({error}); use torchrun"
        ) from error
    if share.count == 1:
        yield share
        return
    dist.init_process_group("gloo", timeout=_LONGEST_WAIT)
    try:
        yield share
    finally:
        dist.destroy_process_group()
