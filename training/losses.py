"""The loss of all five heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.parallel import Processes

HEAD_WEIGHTS = (5.0, 4.0, 3.0, 2.0, 1.0)
"""Weights of the five heads, finest first (released training code)."""

_EPSILON = 1e-5


class DeepSupervisionLoss(nn.Module):
    """Weighted sum over the heads of cross-entropy plus soft Dice (softmax, background included).

    The Dice is that of the whole batch, not the mean of its crops': every second crop is drawn around background,
    and the Dice of a crop without tumour is 0 whatever is called there. The cross-entropy alone, a hundred times
    weaker, would have to teach the network that most windows of a whole body hold no tumour.

    Parameters
    ----------
    weights : sequence of float
        One per head, finest first.
    hard_voxels : float
        Share of each crop's voxels, those of the largest cross-entropy, over which the cross-entropy is the mean;
        1, the released training code's, takes all (Wu, Shen and van den Hengel, *Bridging category-level and
        instance-level semantic image segmentation*, 2016: online bootstrapping). The Dice has hardly a gradient
        where a lesion is missed with confidence, and over all voxels the cross-entropy has none to speak of.
    processes : Processes, optional
        That share the batch; by default there is one.
    """

    def __init__(
        self,
        weights: Sequence[float] = HEAD_WEIGHTS,
        hard_voxels: float = 1.0,
        processes: Processes | None = None,
    ) -> None:
        super().__init__()
        self.weights = tuple(weights)
        self.hard_voxels = hard_voxels
        self.processes = processes or Processes()

    def forward(self, logits: Sequence[Tensor], truth: Tensor) -> Tensor:
        """Return the loss as a float32 scalar; its mean over the processes is the loss of the whole batch.

        Parameters
        ----------
        logits : sequence of Tensor
            (B, 2, H, W, D) each, at the size of the truth.
        truth : Tensor
            (B, 1, H, W, D), 0 or 1.
        """
        target = truth[:, 0].long()
        heads = [head.float() for head in logits]
        overlaps = self._whole_batch(torch.stack([_overlap(head, target) for head in heads]))
        dice = 1 - ((2 * overlaps[:, 0] + _EPSILON) / (overlaps[:, 1] + _EPSILON)).mean(1)
        cross_entropy = torch.stack([self._cross_entropy(head, target) for head in heads])
        weighted = zip(self.weights, cross_entropy + dice, strict=True)
        return torch.stack([weight * loss for weight, loss in weighted]).sum()

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean over each crop's hardest voxels: (B, 2, H, W, D) and (B, H, W, D)."""
        if self.hard_voxels == 1:
            return F.cross_entropy(logits, target)
        losses = F.cross_entropy(logits, target, reduction="none").flatten(1)
        return losses.topk(max(1, round(self.hard_voxels * losses.shape[1])), sorted=False).values.mean()

    def _whole_batch(self, own: Tensor) -> Tensor:
        """Return the sums over all processes, with a gradient whose mean over them is that of the whole batch."""
        scaled = own * self.processes.count
        return scaled + (self.processes.total(own.detach()) - scaled.detach())


def _overlap(logits: Tensor, target: Tensor) -> Tensor:
    """Return, (2, classes), the sums of p t and of p + t over a batch: (B, 2, H, W, D) and (B, H, W, D)."""
    tumour = torch.sigmoid(logits[:, 1] - logits[:, 0])
    wanted = target.to(tumour.dtype)
    both, called, true = (tumour * wanted).sum(), tumour.sum(), wanted.sum()
    voxels = float(target.numel())
    neither = voxels - called - true + both
    shared = torch.stack([neither, both])
    sizes = torch.stack([2 * voxels - called - true, called + true])
    return torch.stack([shared, sizes])
