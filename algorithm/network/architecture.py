"""What fixes the shape of an H2ASeg network."""

from __future__ import annotations

import math
from dataclasses import dataclass

STRIDE = 16
"""Ratio of the input's sides to those of the deepest level (four halvings)."""

MOST_CHANNELS = 4096


@dataclass(frozen=True)
class Architecture:
    """Hyper-parameters of H2ASeg (Lu et al., MICCAI 2024, section 2).

    Attributes
    ----------
    channels : tuple of int
        Channels per stream at the five levels, finest first.
    window : tuple of int
        Window of the modality-cooperative spatial attention in voxels of its level, x, y, z.
    reduction : int
        Ratio of the value width to the query and key width inside MCSA.
    mcsa : bool
        Let CT and PET attend to each other in the encoder. Off: a plain two-stream encoder.
    tamw : bool
        Reweight both modalities around the predicted tumour in the decoder. Off: plain concatenation.
    dropout : float
        Probability of dropping a channel inside the residual blocks while training.
    """

    channels: tuple[int, int, int, int, int] = (8, 16, 32, 64, 128)
    window: tuple[int, int, int] = (8, 8, 4)
    reduction: int = 4
    mcsa: bool = True
    tamw: bool = True
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if len(self.channels) != 5 or min(self.channels) < 1 or max(self.channels) > MOST_CHANNELS:
            raise ValueError(
                f"channels must be five numbers from 1 to {MOST_CHANNELS}, finest level first, got {self.channels}"
            )
        if len(self.window) != 3 or min(self.window) < 1:
            raise ValueError(f"window must be three positive sides (x, y, z), got {self.window}")
        if not 1 <= self.reduction <= min(self.channels[1:3]):
            raise ValueError(
                f"reduction must lie between 1 and the channels of levels 2 and 3, {self.channels[1:3]}, "
                f"got {self.reduction}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")

    @property
    def patch_unit(self) -> tuple[int, int, int]:
        """What the sides of a patch (x, y, z) must be multiples of.

        Level 3 lies at a quarter of the input. The attention's windows divide it, and so do the cubes of their
        shortest side that it merges into tokens; what divides level 3 divides level 2 as well.
        """
        if not self.mcsa:
            return STRIDE, STRIDE, STRIDE
        x, y, z = (math.lcm(STRIDE, 4 * side, 4 * min(self.window)) for side in self.window)
        return x, y, z

    def check_patch(self, patch: tuple[int, ...]) -> None:
        """Raise ValueError, naming the side, unless the network can take patches of this size (x, y, z)."""
        if len(patch) != 3:
            raise ValueError(f"patch must have three sides (x, y, z), got {patch}")
        if tuple(patch) == (STRIDE, STRIDE, STRIDE):
            raise ValueError(f"a patch must be larger than {STRIDE} along one side at least, got {patch}")
        for axis, side, unit, window in zip("xyz", patch, self.patch_unit, self.window, strict=True):
            if side < STRIDE or side % STRIDE:
                raise ValueError(f"side {axis} of the patch must be a multiple of {STRIDE}, got {side}")
            if side % unit:
                raise ValueError(
                    f"side {axis} of the patch must be a multiple of {unit} so that the attention window {window} "
                    f"and its shortest side {min(self.window)} divide levels 2 and 3, got {side}"
                )
