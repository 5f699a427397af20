"""Networks with seeded random parameters and their checkpoints: they segment nothing, but everything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from algorithm.description import Description, Normalisation
from algorithm.network.architecture import Architecture
from algorithm.network.h2aseg import H2ASeg
from algorithm.released import released_name
from algorithm.weights import save_checkpoint
from test.support.plain_network import reference_parameters

FIXTURES = Path(__file__).resolve().parent / "fixtures"
PUBLISHED = Architecture()
TINY = Architecture(channels=(2, 4, 8, 16, 32), window=(4, 4, 2))
TINY_PATCH = (32, 32, 16)


def random_network(architecture: Architecture = TINY, seed: int = 0) -> H2ASeg:
    """Return a network in eval mode whose parameters follow the rule of the reference outputs."""
    network = H2ASeg(architecture)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict(reference_parameters(shapes, seed))
    return network.eval()


def describe(**changes: Any) -> Description:
    """Return the description of a tiny network on voxels of 10 mm."""
    given = {
        "name": "tiny",
        "architecture": TINY,
        "patch": TINY_PATCH,
        "spacing": (10.0, 10.0, 10.0),
        "ct": Normalisation("clip-scale", -1000.0, 1000.0),
        "pet": Normalisation("z-score-body"),
        "overlap": 0.25,
    }
    return Description(**{**given, **changes})


def write_checkpoint(folder: Path, name: str = "tiny", seed: int = 0, **changes: Any) -> Path:
    """Write a checkpoint with random parameters; return its JSON."""
    description = describe(name=name, **changes)
    return save_checkpoint(folder, name, random_network(description.architecture, seed).state_dict(), description)


def released_shapes() -> dict[str, tuple[int, ...]]:
    """Return the 269 names of the authors' release with their shapes."""
    rows = (FIXTURES / "released_parameters.tsv").read_text().splitlines()[1:]
    return {name: tuple(map(int, shape.split("x"))) for name, shape in (row.split("\t") for row in rows)}


def released_state(network: H2ASeg) -> dict[str, Tensor]:
    """Return a network's parameters by the released names, attention's projections as 1x1x1 convolutions."""
    shapes = released_shapes()
    return {
        released_name(name): value[..., None, None, None]
        if len(shapes[released_name(name)]) - value.ndim == 3
        else value
        for name, value in network.state_dict().items()
    }


def to_double(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(torch.float64) for name, value in state.items()}
