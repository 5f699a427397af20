"""Several processes that train as one (``torchrun``), and the one process that trains alone."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from algorithm.errors import UsageError

Item = TypeVar("Item")

LONGEST_WAIT = timedelta(days=1)
"""The others wait while the first process preprocesses a data set."""


@dataclass(frozen=True)
class Processes:
    """Place of this process among those that train together."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """Return which crops of a batch are this process's.

        Raises
        ------
        UsageError
            The batch does not divide evenly.
        """
        if batch % self.count:
            raise UsageError(f"--batch {batch} must be a multiple of the {self.count} processes of torchrun")
        own = batch // self.count
        return range(self.rank * own, (self.rank + 1) * own)

    def own(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return which of some items are this process's."""
        return items[self.rank :: self.count]

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network with gradients averaged over the processes."""
        if self.count == 1:
            return network
        # Of one channel's weights its buckets take the channels-last strides for others than they are.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        return DistributedDataParallel(network)

    def total(self, value: Tensor) -> Tensor:
        """Add up a tensor over the processes."""
        if self.count == 1:
            return value
        added = value.clone()
        dist.all_reduce(added)
        return added

    def mean(self, value: Tensor) -> float:
        """Average a scalar over the processes."""
        return float(self.total(value)) / self.count

    def any(self, flag: bool, device: torch.device) -> bool:
        """Tell whether the flag is set in any process; all get the same answer."""
        if self.count == 1:
            return flag
        flags = torch.tensor(float(flag), device=device)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags)

    def gather(self, results: list[Item]) -> list[Item]:
        """Join what all processes made, one result for each item of their :meth:`own`, in the items' order."""
        if self.count == 1:
            return results
        lists: list[Any] = [None] * self.count
        dist.all_gather_object(lists, results)
        return [part[turn] for turn in range(len(lists[0])) for part in lists if turn < len(part)]

    def wait(self) -> None:
        """Return once every process has come here."""
        if self.count > 1:
            dist.barrier()


def is_first_to_be() -> bool:
    """Tell before the group is joined whether this process will be its first, or is alone."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK") == "0"


def join_processes(device: torch.device) -> Processes:
    """Join the group that ``torchrun`` started (NCCL on GPUs, Gloo on CPUs), or be alone.

    Raises
    ------
    UsageError
        The variables are not those of ``torchrun``.
    """
    given = os.environ.get("WORLD_SIZE", "1")
    if given == "1":
        return Processes()
    try:
        count = int(given)
        if device.type == "cuda":
            dist.init_process_group("nccl", timeout=LONGEST_WAIT, device_id=device)
        else:
            dist.init_process_group("gloo", timeout=LONGEST_WAIT)
    except ValueError as error:
        raise UsageError(
            f"WORLD_SIZE={given} is not as torchrun sets it ({error}); start by torchrun, or unset it"
        ) from error
    return Processes(rank=dist.get_rank(), count=count)


def leave_processes() -> None:
    """Leave the group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        gc.collect()  # a network that outlives its group may wait for ever for the group's threads
        dist.destroy_process_group()
