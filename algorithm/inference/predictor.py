"""Tumour probability of a whole volume: windows, flips and checkpoints, within a budget of time and memory.

Arrays are x, y, z. One float32 probability and one weight volume are all that is accumulated, whatever the number
of flips and checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from algorithm.errors import ResourceError
from algorithm.inference.budget import Budget
from algorithm.inference.case_run import CaseRun, Prediction
from algorithm.inference.execution import Execution, is_out_of_memory, place
from algorithm.inference.neighbour import giving_way
from algorithm.inference.passes import NetworkInput, Observer
from algorithm.inference.progress import Progress
from algorithm.network.h2aseg import H2ASeg


class Predictor:
    """An ensemble of networks on a device, placed there once for as many cases as come.

    No case leaves anything behind for the next: what one has to do otherwise, for want of memory, time or digits,
    is done for it alone. Every prediction of a voxel counts by its place in its window. Networks with equal
    windows so count alike; one with smaller windows or more overlap predicts a voxel more often and counts more.

    Parameters
    ----------
    networks : sequence of H2ASeg
        float32, on the CPU, in eval mode; they are not changed.
    device : torch.device
    dtype : torch.dtype
        From :func:`algorithm.inference.device.choose_dtype`.

    Attributes
    ----------
    execution : Execution
        What is tried first for every case.

    Raises
    ------
    ResourceError
        The device's memory does not hold the networks.
    """

    def __init__(self, networks: Sequence[H2ASeg], device: torch.device, dtype: torch.dtype) -> None:
        self.execution = Execution.fastest(device, dtype)
        self._given = tuple(networks)
        self._placed = self._place(dtype)

    def predict(
        self,
        inputs: Sequence[NetworkInput],
        budget: Budget,
        *,
        flips: int | None = None,
        progress: Progress | None = None,
        observer: Observer | None = None,
    ) -> Prediction:
        """Average the tumour probability of a case; see :class:`algorithm.inference.case_run.CaseRun`.

        Parameters
        ----------
        inputs : sequence of NetworkInput
            The case as each network takes it, all of one size.
        budget : Budget
        flips : int or None
            Exactly so many of the eight mirrorings; None: as many as the budget allows.
        progress : Progress, optional
        observer : Observer or None
            Looks on while windows are computed.

        Raises
        ------
        TooSlowError
            Not even one pass of each network fits the budget.
        ResourceError
            The device's memory does not hold one window.
        DeviceError
            The network's answer is not finite even in float32.
        """
        with giving_way():
            return CaseRun(
                self._networks_in,
                inputs,
                self.execution,
                budget,
                flips=flips,
                progress=progress or Progress(),
                observer=observer,
            ).predict()

    def _networks_in(self, dtype: torch.dtype) -> Sequence[H2ASeg]:
        """Return the networks for a type; other ones than those kept are made for the case that asks.

        On a GPU they are the same for every type: see :func:`place`.
        """
        same = dtype == self.execution.dtype or self.execution.device.type == "cuda"
        return self._placed if same else self._place(dtype)

    def _place(self, dtype: torch.dtype) -> Sequence[H2ASeg]:
        try:
            return [place(network, self.execution.device, dtype) for network in self._given]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise ResourceError(
                "the device's memory does not hold the network; free the device, or use --device cpu"
            ) from error
