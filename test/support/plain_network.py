"""The oracle: H2ASeg transcribed line by line from its description, plain and slow, by the released names.

Nothing is shared with :mod:`algorithm.network`: no fused attention, no collected gains, no shared normalisation;
every tensor that the description mentions exists. ``parameters`` maps the 269 released names to tensors; features
are ``(B, C, H, W, D)``.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = (8, 8, 4)


def reference_parameter(name: str, shape: Sequence[int], seed: int) -> Tensor:
    """One tensor of the reference parameters (rule of the facts page)."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = rng.standard_normal(shape)
    if len(shape) >= 2:
        values *= np.sqrt(2.0 / np.prod(shape[1:]))
    elif shape == (1,):
        values = 0.25 + 0.1 * values
    else:
        values *= 0.1
    return torch.from_numpy(values.astype(np.float32))


def reference_parameters(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    return {name: reference_parameter(name, shape, seed) for name, shape in shapes.items()}


def reference_inputs(batch: int, patch: Sequence[int], seed: int) -> tuple[Tensor, Tensor]:
    """CT and PET, each (batch, 1, *patch)."""
    ct, pet = (
        torch.from_numpy(
            np.random.default_rng([seed, which]).standard_normal((batch, 1, *patch)).astype(np.float32)
        )
        for which in (1, 2)
    )
    return ct, pet


class PlainH2ASeg:
    """Call it with ``(ct, pet)``: the five logits, finest first."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.parameters = parameters

    def __call__(self, ct: Tensor, pet: Tensor) -> list[Tensor]:
        features_ct, features_pet = self.encode(ct, pet)
        f = torch.cat([features_ct[4], features_pet[4]], dim=1)
        predictions = [self.head("decoder.output5", f)]
        for level in (4, 3, 2, 1):
            f = self.up(f, 2)
            pred = self.up(predictions[-1], 2)
            weighted = self.tamw(f"decoder.tamw{level}", features_ct[level - 1], features_pet[level - 1], f, pred)
            f = self.residual(f"decoder.conv{level}", weighted, stride=1)
            predictions.append(self.head(f"decoder.output{level}", f))
        size = ct.shape[2:]
        return [self.up(p, size[0] // p.shape[2]) for p in reversed(predictions)]

    def encode(self, ct: Tensor, pet: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        features_ct, features_pet = [], []
        for level in (1, 2, 3, 4, 5):
            if level == 1:
                ct = self.entry("encoder.conv1_ct", ct)
                pet = self.entry("encoder.conv1_pet", pet)
            else:
                ct = self.residual(f"encoder.conv{level}_ct", ct, stride=2)
                pet = self.residual(f"encoder.conv{level}_pet", pet, stride=2)
            if level in (2, 3):
                ct, pet = self.mcsa(f"encoder.sa{level}", ct, pet)
            if level in (4, 5):
                ct, pet = self.bdsa(f"encoder.sa{level}", ct, pet, reduction=1, skip=True)
            features_ct.append(ct)
            features_pet.append(pet)
        return features_ct, features_pet

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        return F.conv3d(
            x, self.parameters[f"{name}.weight"], self.parameters.get(f"{name}.bias"), stride=stride, padding=1
        )

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"])

    def prelu(self, name: str, x: Tensor) -> Tensor:
        slope = self.parameters[f"{name}.weight"]
        return torch.where(x >= 0, x, slope * x)

    def norm(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, eps=1e-5)

    def up(self, x: Tensor, factor: int) -> Tensor:
        return F.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=True)

    def entry(self, name: str, x: Tensor) -> Tensor:
        main = self.conv(f"{name}.conv_block.0", x)
        main = self.prelu(f"{name}.conv_block.2", self.norm(main))
        return self.conv(f"{name}.conv_block.4", main) + self.conv(f"{name}.conv_skip.0", x)

    def residual(self, name: str, x: Tensor, stride: int) -> Tensor:
        main = self.prelu(f"{name}.conv_block.1", self.norm(x))
        main = self.conv(f"{name}.conv_block.2", main, stride)
        main = self.prelu(f"{name}.conv_block.5", self.norm(main))
        main = self.conv(f"{name}.conv_block.6", main)
        skip = self.prelu(f"{name}.conv_skip.1", self.norm(x))
        return main + self.conv(f"{name}.conv_skip.2", skip, stride)

    def head(self, name: str, x: Tensor) -> Tensor:
        return self.conv(f"{name}.conv.2", self.prelu(f"{name}.conv.1", self.norm(x)))

    def attend(self, name: str, kind: str, target: Tensor, source: Tensor, width: int) -> Tensor:
        q = F.conv3d(target, self.parameters[f"{name}.Q_conv_{kind}.weight"]).flatten(2)
        k = F.conv3d(source, self.parameters[f"{name}.K_conv_{kind}.weight"]).flatten(2)
        v = F.conv3d(source, self.parameters[f"{name}.V_conv_{kind}.weight"]).flatten(2)
        attention = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(width), dim=-1)
        return (attention @ v.transpose(1, 2)).transpose(1, 2).reshape(target.shape)

    def directed(self, name: str, target: Tensor, source: Tensor, reduction: int) -> Tensor:
        width = target.shape[1] // reduction
        own = self.attend(name, "target_target", target, target, width)
        cross = self.attend(name, "source_target", target, source, width)
        return F.conv3d((own + cross) / 2, self.parameters[f"{name}.out.weight"])

    def bdsa(self, name: str, ct: Tensor, pet: Tensor, *, reduction: int, skip: bool) -> tuple[Tensor, Tensor]:
        new_ct = self.directed(f"{name}.sa_ct", ct, pet, reduction)
        new_pet = self.directed(f"{name}.sa_pet", pet, ct, reduction)
        return (ct + new_ct, pet + new_pet) if skip else (new_ct, new_pet)

    def mcsa(self, name: str, ct: Tensor, pet: Tensor) -> tuple[Tensor, Tensor]:
        merge = min(WINDOW)
        token_ct, token_pet = (
            F.conv3d(
                x,
                self.parameters[f"{name}.win_merge_{modality}.weight"],
                self.parameters[f"{name}.win_merge_{modality}.bias"],
                stride=merge,
            )
            for modality, x in (("ct", ct), ("pet", pet))
        )
        inter = self.bdsa(f"{name}.inter_window_attention", token_ct, token_pet, reduction=4, skip=False)
        ct = self.prelu(f"{name}.IR_ct1.1", self.norm(self.up(inter[0], merge) + ct))
        pet = self.prelu(f"{name}.IR_pet1.1", self.norm(self.up(inter[1], merge) + pet))
        intra_ct, intra_pet = torch.empty_like(ct), torch.empty_like(pet)
        for here in windows(ct.shape[2:]):
            intra_ct[here], intra_pet[here] = self.bdsa(
                f"{name}.intra_window_attention.sa", ct[here], pet[here], reduction=4, skip=False
            )
        ct = self.prelu(f"{name}.IR_ct2.1", self.norm(intra_ct + ct))
        pet = self.prelu(f"{name}.IR_pet2.1", self.norm(intra_pet + pet))
        return ct, pet

    def gate(self, name: str, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3, 4))
        hidden = torch.tanh(self.linear(f"{name}.fc1", means))
        gain = torch.tanh(self.linear(f"{name}.fc2", hidden))
        return gain[:, :, None, None, None] * x

    def tamw(self, name: str, ct: Tensor, pet: Tensor, f: Tensor, pred: Tensor) -> Tensor:
        p = torch.softmax(pred, dim=1)
        back, fore = p[:, :1], p[:, 1:]
        gated_fore = self.gate(f"{name}.CA_fore", torch.cat([ct * fore, pet * fore, f], dim=1))
        gated_back = self.gate(f"{name}.CA_back", torch.cat([ct * back, pet * back, f], dim=1))
        return torch.cat([ct, pet, f], dim=1) + gated_fore - gated_back


def windows(size: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Index of every attention window of a level of the given size."""
    (height, width, depth), (h, w, d) = size, WINDOW
    for x in range(0, height, h):
        for y in range(0, width, w):
            for z in range(0, depth, d):
                yield (slice(None), slice(None), slice(x, x + h), slice(y, y + w), slice(z, z + d))
