"""Target-aware modality weighting, TAMW (Lu et al., MICCAI 2024, section 2.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from algorithm.network.blocks import upsample, upsampled_mean, weighted_means


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
        """Return the gains that go with these channel means."""
        return torch.tanh(self.fc2(torch.tanh(self.fc1(means.to(self.fc1.weight.dtype)))))


class TargetAwareWeighting(nn.Module):
    """Choose how much CT, PET and decoder count inside and outside the tumour predicted one level deeper.

    The published form makes a foreground copy ``x p`` and a background copy ``x (1 - p)`` of CT and PET, gates
    each by its channel means, and returns ``x + g_fore x p - g_back x (1 - p)``; the decoder feature ``f`` is
    gated unmasked. As ``mean(x (1 - p)) = mean(x) - mean(x p)``, no copy is made here, nor in :func:`apply_gains`.
    """

    def __init__(self, channels: int, deep_channels: int) -> None:
        super().__init__()
        self.fore = ChannelGate(2 * channels + deep_channels)
        self.back = ChannelGate(2 * channels + deep_channels)

    def forward(self, modalities: Tensor, deep: Tensor, tumour: Tensor) -> Gains:
        """Return both gains.

        Parameters
        ----------
        modalities : Tensor
            Encoder features ``[ct, pet]``, ``(B, 2 C, H, W, D)``.
        deep : Tensor
            Decoder feature of the deeper level, ``(B, C', H / 2, W / 2, D / 2)``; upsampling is left to
            :func:`apply_gains`.
        tumour : Tensor
            Upsampled tumour probability of the deeper level, ``(B, 1, H, W, D)``.
        """
        everywhere, inside = _means(modalities, tumour)
        deep_mean = upsampled_mean(deep, 2)
        fore = self.fore(torch.cat([inside, deep_mean], dim=1))
        back = self.back(torch.cat([everywhere - inside, deep_mean], dim=1))
        return Gains(fore, back)


def apply_gains(gains: Gains, modalities: Tensor, deep: Tensor, tumour: Tensor) -> Tensor:
    """Return ``[ct, pet, decoder]`` reweighted, ``(B, 2 C + C', H, W, D)``; arguments as for the gains.

    ``x + g_fore x p - g_back x (1 - p)`` collected is one gain per voxel and channel,
    ``x ((1 - g_back) + (g_fore + g_back) p)``, and ``f (1 + g_fore - g_back)`` for the decoder; that one is the
    same for a whole channel, and is applied before upsampling, on an eighth of the voxels.
    """
    fore, back = gains
    n = modalities.shape[1]
    modality_gain = _plus_product(1 - back[:, :n], fore[:, :n] + back[:, :n], tumour)
    deep_gain = (1 + fore[:, n:] - back[:, n:]).to(deep.dtype)
    weighted_deep = upsample(deep * deep_gain[:, :, None, None, None], 2)
    return torch.cat([modalities * modality_gain, weighted_deep], dim=1)


def _plus_product(constant: Tensor, slope: Tensor, x: Tensor) -> Tensor:
    """Return ``constant + slope x``, (B, C, H, W, D) of x's type, from (B, C), (B, C) and (B, 1, H, W, D)."""
    constant, slope = constant.to(x.dtype), slope.to(x.dtype)
    if x.is_cuda:
        return torch.addcmul(constant[:, :, None, None, None], slope[:, :, None, None, None], x)
    # (B, 1, C) + (B, N, 1) @ (B, 1, C): channels last, as the features are
    rows = torch.baddbmm(constant[:, None], x.flatten(2).transpose(1, 2), slope[:, None])
    return rows.transpose(1, 2).view(x.shape[0], -1, *x.shape[2:])


def _means(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the channel means of ``x`` and of ``x weight``, (B, C) each."""
    if x.is_cuda:  # sums over a million voxels leave the range of float16
        inside = (x * weight).mean((2, 3, 4), dtype=torch.float32)
        return x.mean((2, 3, 4), dtype=torch.float32), inside
    inside = weight.flatten(2)
    means = weighted_means(x, torch.cat([torch.ones_like(inside), inside], dim=1))  # in one reading of x
    return means[:, 0], means[:, 1]
