"""Attention between the CT and PET streams: BDSA and MCSA (Lu et al., MICCAI 2024, section 2.1).

Features are ``(B, C, H, W, D)``; inside attention they are tokens ``(N, T, C)``: N groups (samples or
windows) of T voxels each that attend to one another.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algorithm.network.blocks import PReLU, instance_norm, upsample

LogitObserver = Callable[[Tensor, Tensor, float], None]
"""Takes queries and keys, ``(N, T, C)`` each, and the scale: the logits are ``scale * queries @ keys^T``."""


class DirectedAttention(nn.Module):
    """One direction of BDSA: a target modality attends to itself and to a source modality.

    ``out((softmax(Q K^T / sqrt(d)) V [self] + the same [cross]) / 2)`` with Q, K, V from the target (self),
    or Q from the target and K, V from the source (cross). d = channels / reduction.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        width = channels // reduction
        self.query_self = nn.Linear(channels, width, bias=False)
        self.key_self = nn.Linear(channels, width, bias=False)
        self.value_self = nn.Linear(channels, channels, bias=False)
        self.query_cross = nn.Linear(channels, width, bias=False)
        self.key_cross = nn.Linear(channels, width, bias=False)
        self.value_cross = nn.Linear(channels, channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)


class BidirectionalAttention(nn.Module):
    """Bidirectional spatial attention (BDSA): CT and PET each attend to themselves and to the other.

    Takes and gives a pair of token tensors ``(N, T, C)``. Each modality is projected by one matrix product;
    queries and keys, narrower than the values, get zero columns up to the values' width, which changes no
    scalar product and lets torch take its fused attention kernel (the scale stays that of the narrow width).

    Attributes
    ----------
    follows_autocast : bool
        Compute in autocast's type. Only for networks whose logits stay small: no normalisation goes before, scores
        can reach thousands, and what bfloat16 would round off those decides which voxels attend to one another.
        Off: in the type of the parameters, whatever autocast says.
    observer : LogitObserver or None
        Is shown every pair of queries and keys; training keeps the logits small by it.
    """

    follows_autocast: bool = False
    observer: LogitObserver | None = None

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(channels // reduction)
        self.ct = DirectedAttention(channels, reduction)
        self.pet = DirectedAttention(channels, reduction)

    def forward(self, ct: Tensor, pet: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each modality gathers, without the modality itself."""
        if self.follows_autocast:
            return self._gather(ct, pet)
        with torch.autocast(ct.device.type, enabled=False):
            new_ct, new_pet = self._gather(ct.to(self.ct.out.weight.dtype), pet.to(self.pet.out.weight.dtype))
        return new_ct.to(ct.dtype), new_pet.to(pet.dtype)

    def _gather(self, ct: Tensor, pet: Tensor) -> tuple[Tensor, Tensor]:
        ct_query, ct_cross_query, ct_key, ct_value, key_for_pet, value_for_pet = _project(ct, self.ct, self.pet)
        pet_query, pet_cross_query, pet_key, pet_value, key_for_ct, value_for_ct = _project(pet, self.pet, self.ct)
        new_ct = self._attend(ct_query, ct_key, ct_value)
        new_ct = new_ct + self._attend(ct_cross_query, key_for_ct, value_for_ct)
        new_pet = self._attend(pet_query, pet_key, pet_value)
        new_pet = new_pet + self._attend(pet_cross_query, key_for_pet, value_for_pet)
        return F.linear(new_ct, self.ct.out.weight / 2), F.linear(new_pet, self.pet.out.weight / 2)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self.observer is not None:
            self.observer(query, key, self.scale)
        query, key, value = (tokens.unsqueeze(1) for tokens in (query, key, value))  # one head
        return F.scaled_dot_product_attention(query, key, value, scale=self.scale).squeeze(1)


def _project(tokens: Tensor, as_target: DirectedAttention, as_source: DirectedAttention) -> tuple[Tensor, ...]:
    """Project one modality's tokens ``(N, T, C)`` for all its roles at once: six tensors ``(N, T, C)``."""
    narrow = (as_target.query_self, as_target.query_cross, as_target.key_self, as_source.key_cross)
    query, cross_query, key, cross_key = (_widen(layer.weight) for layer in narrow)
    value, cross_value = as_target.value_self.weight, as_source.value_cross.weight
    weight = torch.cat([query, cross_query, key, value, cross_key, cross_value])
    return F.linear(tokens, weight).chunk(6, dim=-1)


def _widen(weight: Tensor) -> Tensor:
    """Append zero rows to a ``(width, C)`` projection until it is ``(C, C)``."""
    return F.pad(weight, (0, 0, 0, weight.shape[1] - weight.shape[0]))


class GlobalAttention(BidirectionalAttention):
    """BDSA over all voxels of a level, plus the input itself (levels 4 and 5)."""

    def forward(self, ct: Tensor, pet: Tensor) -> tuple[Tensor, Tensor]:
        """Map a pair of (B, C, H, W, D) to a pair of the same size."""
        size = ct.shape[2:]
        new_ct, new_pet = super().forward(_to_tokens(ct), _to_tokens(pet))
        return ct + _from_tokens(new_ct, size), pet + _from_tokens(new_pet, size)


class CooperativeAttention(nn.Module):
    """Modality-cooperative spatial attention (MCSA): between windows first, then inside each (levels 2, 3).

    Between: a strided convolution makes tokens, BDSA, trilinear upsampling, plus the input, IN, PReLU.
    Inside: BDSA in every window of that, plus that, IN, PReLU. Takes and gives a pair ``(B, C, H, W, D)``
    whose sides are multiples of ``window``.
    """

    def __init__(self, channels: int, window: tuple[int, int, int], reduction: int) -> None:
        super().__init__()
        self.window = window
        self.merge = min(window)
        self.merge_ct = nn.Conv3d(channels, channels, self.merge, stride=self.merge)
        self.merge_pet = nn.Conv3d(channels, channels, self.merge, stride=self.merge)
        self.inter = BidirectionalAttention(channels, reduction)
        self.intra = BidirectionalAttention(channels, reduction)
        self.inter_act_ct = PReLU()
        self.inter_act_pet = PReLU()
        self.intra_act_ct = PReLU()
        self.intra_act_pet = PReLU()

    def forward(self, ct: Tensor, pet: Tensor) -> tuple[Tensor, Tensor]:
        """Map a pair of (B, C, H, W, D) to a pair of the same size."""
        between_ct, between_pet = self._between_windows(ct, pet)
        ct = self.inter_act_ct(instance_norm(ct + between_ct))
        pet = self.inter_act_pet(instance_norm(pet + between_pet))
        inside_ct, inside_pet = self._inside_windows(ct, pet)
        ct = self.intra_act_ct(instance_norm(ct + inside_ct))
        pet = self.intra_act_pet(instance_norm(pet + inside_pet))
        return ct, pet

    def _between_windows(self, ct: Tensor, pet: Tensor) -> tuple[Tensor, Tensor]:
        ct, pet = self.merge_ct(ct), self.merge_pet(pet)
        size = ct.shape[2:]
        new_ct, new_pet = self.inter(_to_tokens(ct), _to_tokens(pet))
        return upsample(_from_tokens(new_ct, size), self.merge), upsample(_from_tokens(new_pet, size), self.merge)

    def _inside_windows(self, ct: Tensor, pet: Tensor) -> tuple[Tensor, Tensor]:
        size = ct.shape[2:]
        new_ct, new_pet = self.intra(to_windows(ct, self.window), to_windows(pet, self.window))
        return from_windows(new_ct, self.window, size), from_windows(new_pet, self.window, size)


def _to_tokens(x: Tensor) -> Tensor:
    """``(B, C, H, W, D)`` to ``(B, H W D, C)``."""
    return x.permute(0, 2, 3, 4, 1).flatten(1, 3)


def _from_tokens(tokens: Tensor, size: torch.Size) -> Tensor:
    """``(B, H W D, C)`` to ``(B, C, H, W, D)``."""
    return tokens.reshape(tokens.shape[0], *size, tokens.shape[2]).permute(0, 4, 1, 2, 3)


def to_windows(x: Tensor, window: tuple[int, int, int]) -> Tensor:
    """Cut ``(B, C, H, W, D)`` into ``(B x windows, voxels of a window, C)``."""
    batch, channels, height, width, depth = x.shape
    h, w, d = window
    grid = x.permute(0, 2, 3, 4, 1).reshape(batch, height // h, h, width // w, w, depth // d, d, channels)
    return grid.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, h * w * d, channels)


def from_windows(tokens: Tensor, window: tuple[int, int, int], size: torch.Size) -> Tensor:
    """Undo :func:`to_windows` for features of the given size (H, W, D)."""
    (height, width, depth), (h, w, d) = size, window
    grid = tokens.reshape(-1, height // h, width // w, depth // d, h, w, d, tokens.shape[-1])
    return grid.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, height, width, depth, tokens.shape[-1]).movedim(-1, 1)
