"""Organs as a second task: a head that names the organ of every voxel while a network trains, dropped at export.

Where a case has an organ map (the synthetic bodies do), the decoder must know what is liver and what is bladder,
not only what is no tumour. AutoPET's winners supervise organs beside lesions (Rokuss et al., "From FDG to PSMA: A
Hitchhiker's Guide to Multitracer, Multicenter Lesion Segmentation in PET/CT Imaging", 2024, arXiv 2409.09478). The
exported network is the published one.
"""

from __future__ import annotations

from collections.abc import Sequence

from monai.losses import DiceCELoss
from torch import Tensor, nn

from algorithm.network.blocks import Conv, PReLU, instance_norm
from algorithm.network.h2aseg import H2ASeg
from training.organ_maps import ORGANS, UNKNOWN
from training.parallel import Processes

_LEVEL = 2
"""Decoder level whose features the head reads: half the resolution, an eighth of the voxels."""


class NetworkWithOrgans(nn.Module):
    """H2ASeg and the organ head, as one module whose parameters train together.

    Parameters
    ----------
    network : H2ASeg
    organs : bool
        Off: the network alone.
    """

    def __init__(self, network: H2ASeg, *, organs: bool) -> None:
        super().__init__()
        self.network = network
        self.head: nn.Module | None = None
        self._features: Tensor | None = None
        if organs:
            channels = 2 * network.architecture.channels[_LEVEL - 1]
            self.head = _OrganHead(channels)
            network.decoder.blocks[str(_LEVEL)].register_forward_hook(self._keep)

    def forward(self, ct: Tensor, pet: Tensor) -> tuple[Sequence[Tensor], Tensor | None]:
        """Return the five heads' logits and those of the organs, (B, 11, H / 2, W / 2, D / 2), or None."""
        logits = self.network(ct, pet)
        if self.head is None:
            return logits, None
        features, self._features = self._features, None
        return logits, self.head(features)

    def _keep(self, block: nn.Module, given: tuple[Tensor, ...], features: Tensor) -> None:
        self._features = features


class _OrganHead(nn.Module):
    """``IN, PReLU, conv`` to the organs' logits, as the network's own heads are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act = PReLU()
        self.conv = Conv(channels, ORGANS + 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv(self.act(instance_norm(x)))
        return logits


class OrganLoss(nn.Module):
    """Cross-entropy plus soft Dice of the organs, over the crops whose organs are known.

    Parameters
    ----------
    processes : Processes, optional
        That share the batch; by default there is one.
    """

    def __init__(self, processes: Processes | None = None) -> None:
        super().__init__()
        self.processes = processes or Processes()
        self.loss = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)

    def forward(self, logits: Tensor, organs: Tensor) -> Tensor:
        """Return the loss as a float32 scalar; 0, with a gradient of 0, where no crop has an organ map.

        The mean over the processes counts each crop with a map alike, whichever process has it.

        Parameters
        ----------
        logits : Tensor
            (B, 11, H / 2, W / 2, D / 2).
        organs : Tensor
            (B, 1, H, W, D) uint8; every second voxel along each axis is compared.
        """
        known = (organs != UNKNOWN).flatten(1).all(1)
        count = known.sum()
        in_all = self.processes.total(count)
        if not bool(count):
            return logits.float().sum() * 0.0
        wanted = organs[known][:, :, ::2, ::2, ::2]
        loss: Tensor = self.loss(logits[known].float(), wanted.long())
        return loss * (self.processes.count * count / in_all)
