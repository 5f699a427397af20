"""Where further flips can change the mask: voxels that the first pass leaves undecided, and windows for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from algorithm.inference.cover import cover
from algorithm.inference.windows import Start, plan_axes

# Chosen on four synthetic bodies with the default weights of 0.1; `python -m benchmark flips` measures them again.
_ODDS = 49.0  # a voxel is undecided from the threshold's odds divided by this on: from 0.02 on for 0.5
_MARGIN = 0.25  # share of a window's side


@dataclass(frozen=True)
class Focus:
    """Which voxels further flips are worth, and how much context they need.

    Attributes
    ----------
    low : float
        A voxel is undecided where its probability is at least this.
    margin : float
        Share of a window's side that an undecided voxel keeps from each face that is not the volume's; at most
        0.25. Where the plan's windows overlap by less than twice of it, half of their overlap.
    """

    low: float
    margin: float = _MARGIN

    @classmethod
    def about(cls, threshold: float) -> Focus:
        """Return the focus for masks of a threshold, above 0 and below 1.

        Nothing that the first pass calls tumour is taken for decided, however sure it is: what one flip alone sees
        is seen with certainty too. It costs little, as the borders of a lesion need windows there anyway.
        """
        odds = threshold / (1 - threshold) / _ODDS
        return cls(odds / (1 + odds))

    def undecided(self, probability: Tensor) -> NDArray[np.bool_]:
        """Tell which voxels of a probability, on any device, are undecided."""
        mask: NDArray[np.bool_] = (probability >= self.low).cpu().numpy()
        return mask

    def windows(
        self, undecided: NDArray[np.bool_], patch: tuple[int, int, int], overlap: float
    ) -> tuple[Start, ...]:
        """Return few of the plan's windows that show every undecided voxel with the context that it needs.

        Windows could lie anywhere. But what the network says of a voxel depends on where its window lies, so masks
        of other windows than the plan's differ more from the full average than those of some of its own.

        Parameters
        ----------
        undecided : bool array, x, y, z
        patch : three ints
        overlap : float
            Of neighbouring windows of the plan.
        """
        margins = [int(side * min(self.margin, overlap / 2)) for side in patch]
        return cover(undecided, patch, margins, plan_axes(undecided.shape, patch, overlap))
