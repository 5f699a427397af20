"""What fixes a training run besides its data: the recipe. Imports nothing slow, so that help answers at once."""

# ruff: noqa: RUF009  (option makes a field, as dataclasses.field does)
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from algorithm.description import AXES
from algorithm.inference.precision import Precision
from training.command_line import option

Optimiser = Literal["adamw", "released"]

LEARNING_RATES: dict[Optimiser, float] = {"adamw": 4e-4, "released": 1e-4}
"""Where none is given. AdamW's is below the customary 1e-3, at which, without a limit, the attention's queries
and keys, which nothing normalises, grow until every voxel attends to a single other. ``released``: the released
code's."""

RELEASED_DECAY_PER_EPOCH = 0.99

_SEEDS = 2**63
"""How many torch takes."""

_RATES = " and ".join(f"{rate:g} of {name}" for name, rate in LEARNING_RATES.items())


@dataclass(frozen=True)
class Augmentation:
    """How much training crops are changed; a zero switches a change off.

    Attributes
    ----------
    probability : float
        Of each change of intensities, and of the rotation and scaling together.
    rotation_deg : float
        Largest rotation about z (the released code rotates by up to 45, taken as radians by mistake).
    scaling : float
        Largest relative change of size.
    flip : float
        Probability of mirroring, for each axis of ``flip_axes``.
    flip_axes : tuple of str
        Axes to mirror along, of x, y and z. A patient lies the same way in every scan (x: right to left), so that
        x alone leaves the network less to learn; inference flips along the same axes.
    gamma : float
        Largest exponent of the contrast change; its inverse is the smallest. At least 1; 1 switches it off.
    brightness : float
        Largest relative change of the normalised intensities.
    noise : float
        Largest standard deviation of noise added to the normalised intensities.
    misalignment_voxels : int
        Largest shift of the CT against PET and contours, each axis (breathing, motion between the scans).
    tumour_free : float
        Probability that a crop around background keeps nothing but a part without tumour, such as the other leg.
    drop_modality : float
        Probability that one of CT and PET is blanked, so that the network learns from each alone.
    """

    heading: ClassVar[str] = "augmentation"

    probability: float = option(0.3, "Probability of each change.", "--augment", metavar="P")
    rotation_deg: float = option(30.0, "Rotate about z by up to this angle.", "--rotation", metavar="DEG")
    scaling: float = option(0.2, "Change the size by up to this share.", metavar="SHARE")
    flip: float = option(0.5, "Mirror with this probability, for each axis.", metavar="P")
    flip_axes: tuple[str, ...] = option(
        AXES, "Axes to mirror along; inference flips along the same.", choices=AXES, metavar="AXIS"
    )
    gamma: float = option(1.5, "Change the contrast by an exponent of up to this; 1 leaves it.", metavar="G")
    brightness: float = option(0.1, "Scale normalised intensities by up to this share.", metavar="SHARE")
    noise: float = option(0.1, "Add noise of up to this SD to normalised intensities.", metavar="SD")
    misalignment_voxels: int = option(
        0, "Shift the CT against the PET by up to so many voxels.", "--misalignment", metavar="VOXELS"
    )
    tumour_free: float = option(
        0.25, "Clear a crop around background of tumour with this probability.", "--clear-tumour", metavar="P"
    )
    drop_modality: float = option(0.0, "Blank CT or PET with this probability.", metavar="P")

    def __post_init__(self) -> None:
        shares = {"augment": self.probability, "flip": self.flip, "clear-tumour": self.tumour_free}
        for name, value in {**shares, "drop-modality": self.drop_modality}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {value}")
        sizes = {"rotation": self.rotation_deg, "brightness": self.brightness, "noise": self.noise}
        for name, value in {**sizes, "misalignment": self.misalignment_voxels}.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {value}")
        if not 0 <= self.scaling < 1:
            raise ValueError(f"scaling must be at least 0 and below 1, got {self.scaling}")
        if not 1 <= self.gamma < math.inf:
            raise ValueError(f"gamma must be at least 1 and finite, got {self.gamma}")

    @property
    def mirrored(self) -> tuple[str, ...]:
        """The axes along which crops are mirrored, in the order x, y, z."""
        return tuple(axis for axis in AXES if axis in self.flip_axes) if self.flip > 0 else ()

    def possible(self, flips: Sequence[int]) -> tuple[int, ...]:
        """Return numbers of flips, each once, as a network of this training can do: n axes have 2^n."""
        return tuple(dict.fromkeys(min(count, 2 ** len(self.mirrored)) for count in flips))

    @property
    def turns(self) -> bool:
        """Whether crops are rotated or scaled, and so must be cut larger first."""
        return self.rotation_deg > 0 or self.scaling > 0

    def field(self, patch: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the sides (x, y, z, of the patch's parity) to cut, so that turning brings in no empty corners."""
        if not self.turns:
            return patch
        angle = math.radians(min(self.rotation_deg, 45.0))
        zoom = 1.0 + self.scaling
        x, y, z = patch
        width = zoom * (x * math.cos(angle) + y * math.sin(angle))
        height = zoom * (x * math.sin(angle) + y * math.cos(angle))
        sides = (max(width, x), max(height, y), zoom * z)
        return tuple(side + 2 * math.ceil((need - side) / 2) for side, need in zip(patch, sides, strict=True))  # type: ignore[return-value]


@dataclass(frozen=True)
class Recipe:
    """Everything besides data and checkpoint description that decides what a run learns.

    Attributes
    ----------
    steps : int
        Optimiser steps in all; the cosine ends there.
    steps_per_epoch : int
        An epoch is this many steps: a line is printed and validation may follow.
    batch : int
        Crops per step, over all processes together.
    optimiser : {"adamw", "released"}
        ``adamw``: warm-up and cosine. ``released``: Adam whose learning rate shrinks by 1 % per epoch.
    learning_rate, weight_decay : float
    warm_up : int
        Steps in which AdamW's learning rate rises linearly.
    clip_norm : float
        Largest norm of the gradient; 0 leaves it alone.
    ema_decay : float
        Of the moving average of the parameters, which is what is validated and exported.
    logit_limit : float
        Attention logits above it cost, see :class:`training.logits.LogitLimit`, and attention trains in the number
        format of inference. 0: neither; attention stays in float32.
    hard_voxels : float
        Share of a crop's voxels over which the cross-entropy is the mean, see
        :class:`training.losses.DeepSupervisionLoss`.
    mistaken : float
        Share of the crops around places where another network erred, in a data set where such are known.
    organ_weight : float
        Weight of the loss of the organs, see :mod:`training.organs`; 0 trains without them.
    seed : int
    precision : {"auto", "bfloat16", "float16", "float32"}
    augmentation : Augmentation
    """

    heading: ClassVar[str] = "optimisation"

    steps: int = option(10_000, "Take this many steps in all.", metavar="N")
    steps_per_epoch: int = option(250, "Report after every so many steps.", metavar="N")
    batch: int = option(4, "Crops per step, over all processes.", metavar="N")
    optimiser: Optimiser = option(
        "adamw", "AdamW with warm-up and cosine, or Adam as in the released training code."
    )
    learning_rate: float = option(
        LEARNING_RATES["adamw"],
        f"Learning rate. By default {_RATES}.",
        default=None,
        metavar="LR",
    )
    weight_decay: float = option(1e-5, "Decay of the weights.", metavar="W")
    warm_up: int = option(200, "Steps in which the learning rate of adamw rises.", metavar="STEPS")
    clip_norm: float = option(1.0, "Largest norm of the gradient; 0 leaves it alone.", metavar="N")
    ema_decay: float = option(0.999, "Decay of the moving average of the parameters.", metavar="D")
    logit_limit: float = option(
        50.0, "Keep the attention's logits below this; 0 lets them grow, and safe in float32 only.", metavar="L"
    )
    hard_voxels: float = option(
        1.0,
        "Take the cross-entropy over this share of a crop's voxels, the hardest; 1 takes all.",
        metavar="SHARE",
    )
    mistaken: float = option(
        0.5, "Share of the crops that are cut around places of --mistakes, where there are such.", metavar="SHARE"
    )
    organ_weight: float = option(
        0.5, "Weight of naming organs where cases have organ maps; 0 leaves it out.", metavar="W"
    )
    seed: int = option(0, "Seed of every random choice.", metavar="N")
    precision: Precision = option("auto", "Number format; auto is bfloat16 where the hardware gains by it.")
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("steps", "steps_per_epoch", "batch", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)}")
        for name in ("weight_decay", "warm_up", "clip_norm", "logit_limit", "organ_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        if not 0 <= self.seed < _SEEDS:
            raise ValueError(f"seed must be at least 0 and below {_SEEDS}, got {self.seed}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, got {self.ema_decay}")
        if not 0 <= self.mistaken <= 1:
            raise ValueError(f"mistaken must lie between 0 and 1, got {self.mistaken}")
        if not 0 < self.hard_voxels <= 1:
            raise ValueError(f"hard_voxels must be above 0 and at most 1, got {self.hard_voxels}")

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step (from 0); it depends on nothing else, so resuming needs no state."""
        if self.optimiser == "released":
            return self.learning_rate * RELEASED_DECAY_PER_EPOCH ** (step // self.steps_per_epoch)
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
