"""What fixes the shape of an H2ASeg network."""

from __future__ import annotations

from dataclasses import dataclass

STRIDE = 16
"""Ratio of the input's sides to those of the deepest level (four halvings)."""


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

    def check_patch(self, patch: tuple[int, ...]) -> None:
        """Raise ValueError, naming the side, unless the network can take patches of this size (x, y, z)."""
        if len(patch) != 3:
            raise ValueError(f"patch must have three sides (x, y, z), got {patch}")
        if tuple(patch) == (STRIDE, STRIDE, STRIDE):
            raise ValueError(f"a patch must be larger than {STRIDE} along one side at least, got {patch}")
        for axis, side, window in zip("xyz", patch, self.window, strict=True):
            if side < STRIDE or side % STRIDE:
                raise ValueError(f"side {axis} of the patch must be a multiple of {STRIDE}, got {side}")
            # Level 3 lies at a quarter of the input; a window that divides level 3 divides level 2 as well.
            if self.mcsa and (side // 4) % window:
                raise ValueError(
                    f"side {axis} of the patch must be a multiple of {4 * window} so that the attention window "
                    f"{window} divides levels 2 and 3, got {side}"
                )
