"""Names of the number formats to compute in; imports no torch, so that options can list them."""

from __future__ import annotations

from typing import Literal, get_args

Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""``auto`` is what suits the device and the checkpoint."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
