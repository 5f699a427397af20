"""What is compared: checkpoints to measure with, and the plain network with a checkpoint's parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from algorithm.description import Description, Normalisation
from algorithm.errors import WeightsError
from algorithm.network.architecture import Architecture
from algorithm.network.h2aseg import H2ASeg
from algorithm.released import network_from_released, released_name
from algorithm.weights import (
    Checkpoint,
    find_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from benchmark import RELEASED_PATCH
from test.support.plain_network import WINDOW, PlainH2ASeg, reference_parameters

_PROJECTIONS = (".Q_conv_", ".K_conv_", ".V_conv_", ".out.")
_REFERENCE = Description(
    name="reference parameters (random)",
    architecture=Architecture(),
    patch=(64, 64, 32),
    spacing=(4.0, 4.0, 3.27),
    ct=Normalisation("clip-scale", low=-1000.0, high=1000.0),
    pet=Normalisation("clip-scale", low=0.0, high=20.0),
)


def default_checkpoint(where: str | None) -> Checkpoint:
    """Return the checkpoint to measure with: the one named, else the built-in one, else reference parameters."""
    try:
        return load_checkpoint(find_checkpoints(Path(where) if where else None)[0])
    except WeightsError:
        if where:
            raise
    return Checkpoint(Path("reference.json"), _REFERENCE, reference_state())


def released_settings(description: Description) -> Description:
    """Return the description with the release's patch, on the image's own grid, at half overlap."""
    return dataclasses.replace(
        description, name=f"{description.name}, released patch", patch=RELEASED_PATCH, spacing=None, overlap=0.5
    )


def save(checkpoint: Checkpoint, folder: Path, name: str, description: Description) -> Path:
    """Write a checkpoint's parameters with another description; return the JSON's path."""
    return save_checkpoint(folder, name, checkpoint.state, description, dtype=torch.float32)


def reference_state() -> dict[str, Tensor]:
    """Return the reference parameters (seed 0) under our names."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in released_parameters(H2ASeg().state_dict()).items()}
    return network_from_released(reference_parameters(shapes, seed=0)).state_dict()


def released_parameters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return parameters under the names and in the shapes of the release.

    The release's attention projections are 1x1x1 convolutions, ours are matrices.
    """
    released = {}
    for ours, value in state.items():
        name = released_name(ours)
        projection = any(part in name for part in _PROJECTIONS)
        released[name] = value.reshape(*value.shape, 1, 1, 1) if projection else value
    return released


def plain_network(checkpoint: Checkpoint, device: str = "cpu") -> PlainH2ASeg:
    """Return the plain network with a checkpoint's parameters, float32.

    Raises
    ------
    WeightsError
        The checkpoint is of another architecture than the published one; its channels may differ.
    """
    found = checkpoint.description.architecture
    if dataclasses.replace(found, channels=Architecture.channels, dropout=Architecture.dropout) != Architecture():
        raise WeightsError(
            f"the plain network is the published one (window {WINDOW}, MCSA and TAMW on), got {found} in "
            f"{checkpoint.path}; benchmark another checkpoint"
        )
    parameters = released_parameters(checkpoint.state)
    return PlainH2ASeg({name: value.to(device) for name, value in parameters.items()})
