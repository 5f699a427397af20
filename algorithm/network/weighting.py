"""Target-aware modality weighting, TAMW (Lu et al., MICCAI 2024, section 2.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Gains(NamedTuple):
    """Per-channel gains of one TAMW module, each ``(B, channels of [ct, pet, decoder])``."""

    foreground: Tensor
    background: Tensor


class ChannelGate(nn.Module):
    """``tanh(fc2(tanh(fc1(means))))`` with a quarter of the channels in between: ``(B, C)`` to ``(B, C)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // 4)
        self.fc2 = nn.Linear(channels // 4, channels)

    def forward(self, means: Tensor) -> Tensor:
        return torch.tanh(self.fc2(torch.tanh(self.fc1(means))))


class TargetAwareWeighting(nn.Module):
    """Reweight CT and PET by what lies inside and outside the tumour predicted one level deeper.

    The published form makes a foreground copy ``x p`` and a background copy ``x (1 - p)`` of every feature,
    gates each by its channel means, and returns ``x + g_fore x p - g_back x (1 - p)``; the decoder feature is
    gated unmasked. Collected, that is one gain per voxel and channel, ``x ((1 - g_back) + (g_fore + g_back) p)``
    (decoder: ``f (1 + g_fore - g_back)``), and ``mean(x (1 - p)) = mean(x) - mean(x p)``: no copy is made.
    """

    def __init__(self, channels: int, deep_channels: int) -> None:
        super().__init__()
        self.modality_channels = 2 * channels
        self.fore = ChannelGate(2 * channels + deep_channels)
        self.back = ChannelGate(2 * channels + deep_channels)

    def gains(self, modalities: Tensor, deep: Tensor, tumour: Tensor) -> Gains:
        """Return the gates' answers; arguments as in :meth:`forward`."""
        voxels = deep[0, 0].numel()
        ones_and_tumour = torch.cat([torch.ones_like(tumour), tumour], dim=1).flatten(2) / voxels
        # (B, 2, N) @ (B, N, C): the mean of x and of x p in one reading of x
        sums = ones_and_tumour @ modalities.flatten(2).transpose(1, 2)
        everywhere, inside = sums[:, 0], sums[:, 1]
        deep_mean = deep.mean((2, 3, 4))
        fore = self.fore(torch.cat([inside, deep_mean], dim=1))
        back = self.back(torch.cat([everywhere - inside, deep_mean], dim=1))
        return Gains(fore, back)

    def forward(self, modalities: Tensor, deep: Tensor, tumour: Tensor) -> Tensor:
        """Return ``[ct, pet, decoder]`` reweighted.

        Parameters
        ----------
        modalities : Tensor
            Encoder features ``[ct, pet]``, ``(B, 2 C, H, W, D)``.
        deep : Tensor
            Upsampled decoder feature of the deeper level, ``(B, C', H, W, D)``.
        tumour : Tensor
            Upsampled tumour probability of the deeper level, ``(B, 1, H, W, D)``.
        """
        fore, back = (gain[:, :, None, None, None] for gain in self.gains(modalities, deep, tumour))
        n = self.modality_channels
        modality_gain = torch.addcmul(1 - back[:, :n], fore[:, :n] + back[:, :n], tumour)
        return torch.cat([modalities * modality_gain, deep * (1 + fore[:, n:] - back[:, n:])], dim=1)
