"""The loss of all five heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn

HEAD_WEIGHTS = (5.0, 4.0, 3.0, 2.0, 1.0)
"""Weights of the five heads, finest first (released training code)."""

SMOOTHING = 100.0
"""Voxels added above and below in the Dice. With next to none (1e-5 is usual) a crop without tumour costs 1
whatever is called there, so that the cross-entropy alone would teach the network, a hundred times more weakly,
that most windows of a whole body hold no tumour."""


class DeepSupervisionLoss(nn.Module):
    """Weighted sum over the heads of cross-entropy plus soft Dice (softmax, background included).

    The Dice of each crop and class is taken on its own and then averaged, so the mean over equal parts of a batch
    is the loss of the whole batch: several processes train as one does.

    Parameters
    ----------
    weights : sequence of float
        One per head, finest first.
    smoothing : float
        Voxels added to the numerator and the denominator of the Dice.
    """

    def __init__(self, weights: Sequence[float] = HEAD_WEIGHTS, smoothing: float = SMOOTHING) -> None:
        super().__init__()
        self.weights = tuple(weights)
        self.criterion = DiceCELoss(
            include_background=True, to_onehot_y=True, softmax=True, smooth_nr=smoothing, smooth_dr=smoothing
        )

    def forward(self, logits: Sequence[Tensor], truth: Tensor) -> Tensor:
        """Return the loss as a float32 scalar.

        Parameters
        ----------
        logits : sequence of Tensor
            (B, 2, H, W, D) each, at the size of the truth.
        truth : Tensor
            (B, 1, H, W, D), 0 or 1.
        """
        target = truth.float()
        heads = zip(self.weights, logits, strict=True)
        return torch.stack([weight * self.criterion(head.float(), target) for weight, head in heads]).sum()
