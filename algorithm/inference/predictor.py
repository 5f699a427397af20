"""Tumour probability of a whole volume: windows, flips and checkpoints, within a budget of time and memory.

Arrays are x, y, z. One float32 probability and one weight volume are all that is accumulated, whatever the number
of flips and checkpoints.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from algorithm.errors import ResourceError
from algorithm.inference.budget import Budget
from algorithm.inference.case_run import CaseRun, Prediction
from algorithm.inference.device import precision_of
from algorithm.inference.execution import Execution, is_out_of_memory, place
from algorithm.inference.focus import Focus
from algorithm.inference.graph import GraphedNetwork
from algorithm.inference.neighbour import giving_way
from algorithm.inference.passes import Network, NetworkInput, Observer
from algorithm.inference.progress import Progress
from algorithm.inference.tuning import Tuning
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
    proved : sequence of collections of str, optional
        By network the types that it proved in all its levels (:class:`algorithm.description.PrecisionProof`); by
        default none did in any.

    Attributes
    ----------
    execution : Execution
        What is tried first for every case.

    Raises
    ------
    ResourceError
        The device's memory does not hold the networks.
    """

    def __init__(
        self,
        networks: Sequence[H2ASeg],
        device: torch.device,
        dtype: torch.dtype,
        proved: Sequence[Collection[str]] | None = None,
    ) -> None:
        self.execution = Execution.fastest(device, dtype)
        self._given = tuple(networks)
        self._proved = tuple(proved) if proved is not None else ((),) * len(self._given)
        self._placed = self._place(self.execution)
        self._graphs: Sequence[GraphedNetwork] = ()

    def use(self, tuning: Tuning) -> None:
        """Compute every case from now on as a tuning says; its threads are set for the whole process.

        Raises
        ------
        ResourceError
            The device's memory does not hold the networks.
        """
        how = Execution.tuned(self.execution.device, tuning)
        self._placed = self._placed_for(how)
        self._graphs = _graphs_of(self._placed, how)
        self.execution = how
        if how.threads is not None:
            torch.set_num_threads(how.threads)

    def predict(
        self,
        inputs: Sequence[NetworkInput],
        budget: Budget,
        *,
        flips: int | None = None,
        focus: Focus | None = None,
        progress: Progress | None = None,
        observer: Observer | None = None,
        window_s: Sequence[float] = (),
    ) -> Prediction:
        """Average the tumour probability of a case; see :class:`algorithm.inference.case_run.CaseRun`.

        Parameters
        ----------
        inputs : sequence of NetworkInput
            The case as each network takes it, all of one size.
        budget : Budget
        flips : int or None
            Exactly so many of the mirrorings along the networks' axes; None: as many as the budget allows.
        focus : Focus or None
            Let the flips after the first take windows where it matters alone; None: all windows.
        progress : Progress, optional
        observer : Observer or None
            Looks on while windows are computed.
        window_s : sequence of float
            How long a window of each network takes, where an earlier attempt timed it.

        Raises
        ------
        TooSlowError
            Not even one pass of each network fits the budget.
        ResourceError
            The device's memory does not hold one window.
        InvalidImageError
            The network's answer is not finite even in float32.
        """
        with giving_way():
            return CaseRun(
                self.networks_in,
                inputs,
                self.execution,
                budget,
                flips=flips,
                focus=focus,
                progress=progress or Progress(),
                observer=observer,
                window_s=window_s,
            ).predict()

    def networks_in(self, how: Execution) -> Sequence[Network]:
        """Return the networks for an execution; other ones than those kept are made for the case that asks."""
        placed = self._placed_for(how)
        if how.cuda_graph and self._graphs and placed is self._placed and how.batch == self.execution.batch:
            return self._graphs
        for each in self._graphs:  # their memory may be what is wanted
            each.forget()
        return _graphs_of(placed, how) or placed

    def _placed_for(self, how: Execution) -> Sequence[H2ASeg]:
        """Return the networks where and how they compute; on a GPU the same for types that are low alike."""
        kept = self.execution
        alike = self._all_low(how.dtype) == self._all_low(kept.dtype)
        same_type = how.dtype == kept.dtype or (kept.device.type == "cuda" and alike)
        return self._placed if same_type and how.channels_last == kept.channels_last else self._place(how)

    def _all_low(self, dtype: torch.dtype) -> list[bool]:
        """Tell of each network whether all its levels may be computed in a type."""
        return [precision_of(dtype) in proved for proved in self._proved]

    def _place(self, how: Execution) -> Sequence[H2ASeg]:
        try:
            placed = [
                place(network, how.device, how.dtype, everywhere=low)
                for network, low in zip(self._given, self._all_low(how.dtype), strict=True)
            ]
            if how.channels_last == (how.device.type == "cuda"):  # not as `place` leaves them
                layout = torch.channels_last_3d if how.channels_last else torch.contiguous_format
                placed = [_laid_out(network, layout) for network in placed]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise ResourceError(
                "the device's memory does not hold the network; free the device, or use --device cpu"
            ) from error
        return placed


def _graphs_of(placed: Sequence[H2ASeg], how: Execution) -> Sequence[GraphedNetwork]:
    """Return networks as CUDA graphs; none where none are wanted."""
    return [GraphedNetwork(network, how.batch) for network in placed] if how.cuda_graph else ()


def _laid_out(network: H2ASeg, layout: torch.memory_format) -> H2ASeg:
    """Bring a network's kernels into a layout."""
    network.to(memory_format=layout)  # type: ignore[call-overload]
    return network
