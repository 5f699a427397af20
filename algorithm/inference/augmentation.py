"""Which flips test-time augmentation makes, and in which order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection

Flip = tuple[int, ...]

EVERY_AXIS = (0, 1, 2)
MOST_FLIPS = 8
_SEED = 2024


def flip_order(count: int = MOST_FLIPS, axes: Collection[int] = EVERY_AXIS) -> tuple[Flip, ...]:
    """Return the first ``count`` flips along some axes (0, 1, 2 for x, y, z): the axes that each mirrors.

    The identity comes first, so that a valid answer exists as early as possible; the others follow in a fixed,
    seeded order, so that a run that was cut short by its time limit can be repeated with ``--flips``. n axes have
    2^n flips; where more are asked for, those are all.

    Raises
    ------
    ValueError
        The count is not between 1 and 8.
    """
    if not 1 <= count <= MOST_FLIPS:
        raise ValueError(f"flips must lie between 1 (no mirroring) and {MOST_FLIPS}, got {count}")
    identity, *mirrored = (axes for length in range(4) for axes in itertools.combinations(EVERY_AXIS, length))
    random.Random(_SEED).shuffle(mirrored)
    return tuple(flip for flip in (identity, *mirrored) if set(flip) <= set(axes))[:count]
