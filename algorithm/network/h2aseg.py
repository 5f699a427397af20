"""H2ASeg: a two-stream PET/CT segmentation network (Lu et al., MICCAI 2024, arXiv 2403.18339)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from algorithm.network.architecture import Architecture
from algorithm.network.attention import BidirectionalAttention, CooperativeAttention, GlobalAttention
from algorithm.network.blocks import EntryBlock, Head, ResidualBlock, as_computed_by, upsample
from algorithm.network.weighting import ChannelGate, Gains, TargetAwareWeighting, apply_gains

LEVELS = (1, 2, 3, 4, 5)
DECODER_LEVELS = (4, 3, 2, 1)


class Encoder(nn.Module):
    """CT and PET streams that attend to each other from level 2 on."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.ct = _stream(architecture)
        self.pet = _stream(architecture)
        self.attention = nn.ModuleDict()
        if architecture.mcsa:
            for level in (2, 3):
                channels = architecture.channels[level - 1]
                self.attention[str(level)] = CooperativeAttention(
                    channels, architecture.window, architecture.reduction
                )
            for level in (4, 5):
                self.attention[str(level)] = GlobalAttention(architecture.channels[level - 1], reduction=1)

    def forward(self, ct: Tensor, pet: Tensor) -> list[Tensor]:
        """Return ``[ct, pet]`` features of levels 1 to 5, each ``(B, 2 C, H, W, D)`` of its level."""
        features = []
        ct, pet = (as_computed_by(self.get_submodule("ct.0.conv1"), image) for image in (ct, pet))
        for level in LEVELS:
            ct, pet = self.ct[level - 1](ct), self.pet[level - 1](pet)
            if level > 1 and self.attention:
                ct, pet = self.attention[str(level)](ct, pet)
            features.append(torch.cat([ct, pet], dim=1))
        return features


def _stream(architecture: Architecture) -> nn.ModuleList:
    channels, dropout = architecture.channels, architecture.dropout
    deeper = [ResidualBlock(channels[i], channels[i + 1], dropout, stride=2) for i in range(4)]
    return nn.ModuleList([EntryBlock(channels[0], dropout), *deeper])


class Decoder(nn.Module):
    """From level 5 to level 1, with a prediction at every level that steers the weighting of the next."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels = architecture.channels
        self.weighting = nn.ModuleDict()
        self.blocks = nn.ModuleDict()
        self.heads = nn.ModuleDict({"5": Head(2 * channels[4])})
        for level in DECODER_LEVELS:
            own, deep = channels[level - 1], 2 * channels[level]
            if architecture.tamw:
                self.weighting[str(level)] = TargetAwareWeighting(own, deep)
            self.blocks[str(level)] = ResidualBlock(2 * own + deep, 2 * own, architecture.dropout)
            self.heads[str(level)] = Head(2 * own)

    def forward(self, features: list[Tensor], gains: list[Gains] | None = None) -> list[Tensor]:
        """Return the logits of levels 5 to 1, each ``(B, 2, H, W, D)`` of its level.

        Where a list is given for ``gains``, the gains of each TAMW module are appended to it (levels 4 to 1).
        """
        deep = features[-1]
        predictions = [self.heads["5"](deep)]
        for level in DECODER_LEVELS:
            block = self.blocks[str(level)]
            entry = block.get_submodule("conv1")
            modalities, deep = as_computed_by(entry, features[level - 1]), as_computed_by(entry, deep)
            if self.weighting:
                tumour = as_computed_by(entry, torch.sigmoid(upsample(_log_odds(predictions[-1]), 2)))
                level_gains = self.weighting[str(level)](modalities, deep, tumour)
                if gains is not None:
                    gains.append(level_gains)
                weighted = apply_gains(level_gains, modalities, deep, tumour)
            else:
                weighted = torch.cat([modalities, upsample(deep, 2)], dim=1)
            deep = block(weighted)
            predictions.append(self.heads[str(level)](deep))
        return predictions


def tumour_probability(logits: Tensor) -> Tensor:
    """Return the softmax of two logits ``(B, 2, ...)``, tumour only: ``(B, 1, ...)``."""
    return torch.sigmoid(_log_odds(logits))


def _log_odds(logits: Tensor) -> Tensor:
    """Return tumour's logit less the background's, ``(B, 1, ...)``: one channel to upsample, not two."""
    return logits[:, 1:] - logits[:, :1]


class H2ASeg(nn.Module):
    """Hierarchical adaptive interaction and weighting network for tumours in PET/CT.

    Parameters
    ----------
    architecture : Architecture, optional
        Channels, window and which modules are on; the published network by default.
    """

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or Architecture()
        self.encoder = Encoder(self.architecture)
        self.decoder = Decoder(self.architecture)

    def forward(self, ct: Tensor, pet: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of all five heads at the input's size, finest first.

        Parameters
        ----------
        ct, pet : Tensor
            Normalised intensities, ``(B, 1, H, W, D)`` along x, y, z.

        Returns
        -------
        tuple of Tensor
            Five times ``(B, 2, H, W, D)``: background, tumour.

        Raises
        ------
        ValueError
            The two differ in size, or a side does not suit the network; the message names the side.
        """
        predictions = reversed(self.decoder(self._encode(ct, pet)))
        return tuple(upsample(prediction, 2**depth) for depth, prediction in enumerate(predictions))

    def finest(self, ct: Tensor, pet: Tensor, gains: list[Gains] | None = None) -> Tensor:
        """Return the finest head's logits alone, ``(B, 2, H, W, D)``: all that inference needs.

        Where a list is given for ``gains``, the gains of each TAMW module are appended to it (levels 4 to 1).
        """
        finest: Tensor = self.decoder(self._encode(ct, pet), gains)[-1]
        return finest

    def finest_level(self) -> tuple[nn.Module, nn.Module]:
        """Return the block and the head that make the finest logits: what a CPU computes in a narrower type."""
        return self.decoder.blocks["1"], self.decoder.heads["1"]

    def exact_parts(self) -> list[nn.Module]:
        """Return what stays in float32 where all levels are in a narrower type, for next to no time.

        The first convolution of each stream: the normalisation after it takes the image's mean away, and magnifies
        what was rounded off beside that. The gates of TAMW: a gain counts for every voxel of a window, so what is
        rounded off does not average out.
        """
        entries = [self.get_submodule(f"encoder.{stream}.0.conv1") for stream in ("ct", "pet")]
        return entries + [module for module in self.modules() if isinstance(module, ChannelGate)]

    def attentions(self) -> dict[str, BidirectionalAttention]:
        """Return the attention modules by their names among the network's modules."""
        return {
            name: module for name, module in self.named_modules() if isinstance(module, BidirectionalAttention)
        }

    def _encode(self, ct: Tensor, pet: Tensor) -> list[Tensor]:
        if ct.ndim != 5 or ct.shape[1] != 1 or ct.shape != pet.shape:
            raise ValueError(
                "ct and pet must both be (B, 1, H, W, D) of one size, "
                f"got {tuple(ct.shape)} and {tuple(pet.shape)}"
            )
        self.architecture.check_patch(tuple(ct.shape[2:]))
        features: list[Tensor] = self.encoder(ct, pet)
        return features
