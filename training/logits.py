"""Attention logits that stay small while a network trains.

Nothing normalises the tokens before H2ASeg's attention, so queries and keys grow until every voxel attends to a
single other one: logits reached thousands in networks trained without a limit. What bfloat16 rounds off such a
number (8 bits: 8 of 2048) then decides the attention, and float16 may not hold it at all.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from algorithm.network.h2aseg import H2ASeg


class LogitLimit:
    """Measures how large a network's attention logits can be, and asks for a price above a limit.

    A logit is ``scale q . k``, so no logit of a module exceeds ``scale max|q| max|k|`` (Cauchy-Schwarz). The bound
    needs one reading of queries and keys, where the logits themselves are never stored. It is taken in float32,
    per group of tokens that attend to one another.

    Parameters
    ----------
    network : H2ASeg
        Whose attention is watched; its ``observer`` hooks are set.
    limit : float
        Largest magnitude that costs nothing; 0 asks for no price, the bounds are measured all the same.
    """

    def __init__(self, network: H2ASeg, limit: float) -> None:
        self.limit = limit
        self._now: dict[str, Tensor] = {}
        self._largest: dict[str, Tensor] = {}
        for name, attention in network.attentions().items():
            attention.observer = partial(self._observe, _short(name))

    def penalty(self) -> Tensor | None:
        """Return the price of the last forward pass, the sum of ``bound / limit - 1`` of the modules above it.

        None where nothing was measured or no price is asked.
        """
        bounds, self._now = self._now, {}
        for name, bound in bounds.items():
            before = self._largest.get(name)
            self._largest[name] = bound.detach() if before is None else torch.maximum(before, bound.detach())
        if not bounds or not self.limit:
            return None
        return torch.relu(torch.stack(list(bounds.values())) / self.limit - 1).sum()

    def largest(self) -> dict[str, float]:
        """Return the largest bound of each module since the last call, and forget them."""
        bounds, self._largest = self._largest, {}
        return {name: float(bound) for name, bound in bounds.items()}

    def _observe(self, name: str, queries: Tensor, keys: Tensor, scale: float) -> None:
        longest = [
            torch.linalg.vector_norm(tokens, dim=-1, dtype=torch.float32).amax(-1) for tokens in (queries, keys)
        ]
        bound = scale * (longest[0] * longest[1]).amax()
        before = self._now.get(name)
        self._now[name] = bound if before is None else torch.maximum(before, bound)


def train_attention_in_low_precision(network: H2ASeg) -> None:
    """Let the attention compute in autocast's type, as inference will where the logits proved small."""
    for attention in network.attentions().values():
        attention.follows_autocast = True


def _short(name: str) -> str:
    """``encoder.attention.2.inter`` is ``level 2 inter``, ``encoder.attention.4`` is ``level 4``."""
    return " ".join(["level", *name.split("attention.")[-1].split(".")])
