"""Which flips test-time augmentation makes, and in which order."""

from __future__ import annotations

import itertools
import random

Flip = tuple[int, ...]

MOST_FLIPS = 8
_SEED = 2024


def flip_order(count: int = MOST_FLIPS) -> tuple[Flip, ...]:
    """Return the first ``count`` flips: the axes (0, 1, 2 for x, y, z) that each mirrors.

    The identity comes first, so that a valid answer exists as early as possible; the others follow in a fixed,
    seeded order, so that a run that was cut short by its time limit can be repeated with ``--flips``.

    Raises
    ------
    ValueError
        The count is not between 1 and 8.
    """
    if not 1 <= count <= MOST_FLIPS:
        raise ValueError(f"flips must lie between 1 (no mirroring) and {MOST_FLIPS}, got {count}")
    identity, *mirrored = (axes for length in range(4) for axes in itertools.combinations((0, 1, 2), length))
    random.Random(_SEED).shuffle(mirrored)
    return (identity, *mirrored)[:count]
