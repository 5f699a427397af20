"""A network whose kernels a GPU replays from a recording (CUDA graph): the host need not start each of them.

Not measured yet: no GPU was at hand. Where recording fails, tuning drops the candidate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from algorithm.inference.passes import Network
from algorithm.network.weighting import Gains

_WARM_UPS = 3  # before a recording, as torch's documentation of CUDA graphs asks, so that libraries have settled


@dataclass(frozen=True)
class _Recording:
    """Kernels that read two tensors and write a third, at fixed places in the device's memory."""

    graph: torch.cuda.CUDAGraph
    ct: Tensor
    pet: Tensor
    logits: Tensor


class GraphedNetwork:
    """A network on a GPU that records itself for full batches and is replayed for every further one.

    Fewer windows, as at the end of a pass, are computed without a recording. What comes of a replay is overwritten
    by the next; whatever uses it on the same stream comes first.

    Parameters
    ----------
    network : Network
        Placed on the GPU; it is always asked in the same number format.
    batch : int
        Windows of a full batch.
    """

    def __init__(self, network: Network, batch: int) -> None:
        self.network = network
        self._batch = batch
        self._recording: _Recording | None = None

    def finest(self, ct: Tensor, pet: Tensor, gains: list[Gains] | None = None) -> Tensor:
        """Return the finest head's logits; see :meth:`algorithm.network.h2aseg.H2ASeg.finest`."""
        if gains is not None or len(ct) != self._batch:  # gains: what is recorded cannot be looked into
            return self.network.finest(ct, pet, gains)
        if self._recording is None or self._recording.ct.shape != ct.shape:
            self.forget()
            self._recording = self._recorded(ct, pet)
        self._recording.ct.copy_(ct)
        self._recording.pet.copy_(pet)
        self._recording.graph.replay()
        return self._recording.logits

    def forget(self) -> None:
        """Give the recording's memory back."""
        self._recording = None

    def _recorded(self, ct: Tensor, pet: Tensor) -> _Recording:
        fixed_ct, fixed_pet = torch.empty_like(ct).copy_(ct), torch.empty_like(pet).copy_(pet)
        aside = torch.cuda.Stream(ct.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(ct.device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                self.network.finest(fixed_ct, fixed_pet)
        torch.cuda.current_stream(ct.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=aside):  # by default its stream is the current device's
            logits = self.network.finest(fixed_ct, fixed_pet)
        return _Recording(graph, fixed_ct, fixed_pet, logits)
