from __future__ import annotations

import pytest
import torch

from test.support.checkpoints import TINY_PATCH, random_network
from training.logits import LogitLimit, train_attention_in_low_precision

MODULES = {"level 2 inter", "level 2 intra", "level 3 inter", "level 3 intra", "level 4", "level 5"}


def images(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, 1, *TINY_PATCH, generator=generator) for _ in range(2))  # type: ignore[return-value]


def largest_logits(network) -> dict[str, float]:
    """Every logit made and looked at: what the bound must not fall below."""
    largest: dict[str, float] = {}
    for name, attention in network.attentions().items():

        def look(queries, keys, scale, name=name):
            logits = scale * queries @ keys.transpose(-1, -2)
            largest[name] = max(largest.get(name, 0.0), float(logits.detach().abs().max()))

        attention.observer = look
    network(*images())
    return largest


def test_the_bound_holds_every_logit_and_is_not_far_off():
    network = random_network()
    exact = largest_logits(network)
    limit = LogitLimit(network, 50.0)
    network(*images())
    limit.penalty()
    bounds = limit.largest()

    assert set(bounds) == MODULES
    for (name, logit), bound in zip(exact.items(), bounds.values(), strict=True):
        assert logit <= bound * (1 + 1e-5), name
        assert bound < 20 * logit, name
    assert limit.largest() == {}


@pytest.mark.parametrize("limit", [0.0, 1e9])
def test_nothing_is_asked_below_the_limit_or_without_one(limit):
    network = random_network()
    watch = LogitLimit(network, limit)
    network(*images())
    price = watch.penalty()

    assert price is None if limit == 0 else float(price.detach()) == 0
    assert max(watch.largest().values()) > 0
    assert watch.penalty() is None  # no pass since


def test_the_price_pulls_the_logits_down():
    network = random_network()  # in eval mode: dropout would blur what is learnt in few steps
    watch = LogitLimit(network, 0.5)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    found = []
    for _ in range(20):
        network(*images())
        price = watch.penalty()
        optimiser.zero_grad()
        price.backward()
        optimiser.step()
        found.append(float(price.detach()))

    assert found[-1] < 0.7 * found[0]


def test_attention_follows_autocast_where_it_is_told_to():
    network = random_network().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        exact = network(*images())[0]
        train_attention_in_low_precision(network)
        kinds: set[torch.dtype] = set()
        for attention in network.attentions().values():
            attention.observer = lambda queries, keys, scale: kinds.add(queries.dtype)
        rounded = network(*images())[0]

    assert kinds == {torch.bfloat16}
    assert not torch.equal(exact, rounded)
