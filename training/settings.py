"""What fixes a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from training.augmentation import Augmentation

Optimiser = Literal["adamw", "released"]
Precision = Literal["auto", "bfloat16", "float16", "float32"]

RELEASED_DECAY_PER_EPOCH = 0.99


@dataclass(frozen=True)
class Settings:
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
        At 1e-3 the queries and keys, which nothing normalises, grow until every voxel attends to a single other.
    warm_up : int
        Steps in which AdamW's learning rate rises linearly.
    clip_norm : float
        Largest norm of the gradient; 0 leaves it alone.
    ema_decay : float
        Of the moving average of the parameters, which is what is validated and exported.
    seed : int
    precision : {"auto", "bfloat16", "float16", "float32"}
    augmentation : Augmentation
    """

    steps: int = 10_000
    steps_per_epoch: int = 250
    batch: int = 4
    optimiser: Optimiser = "adamw"
    learning_rate: float = 4e-4
    weight_decay: float = 1e-5
    warm_up: int = 200
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    precision: Precision = "auto"
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("steps", "steps_per_epoch", "batch", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("weight_decay", "warm_up", "clip_norm", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, got {self.ema_decay}")

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step (from 0); it depends on nothing else, so resuming needs no state."""
        if self.optimiser == "released":
            return self.learning_rate * RELEASED_DECAY_PER_EPOCH ** (step // self.steps_per_epoch)
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
