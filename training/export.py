"""A run's networks as checkpoints that the container can use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from algorithm.description import Description
from algorithm.errors import UserError
from algorithm.weights import load_checkpoint, save_checkpoint

_OF_THE_USER = ("name", "threshold", "overlap", "postprocessing", "precision")
"""What is chosen, measured or edited after training, and holds as long as the weights are the same."""


def export(folder: Path, name: str, parameters: Mapping[str, Tensor], description: Description) -> Path:
    """Write a checkpoint into a run's folder and return its description's path.

    Where the same weights lie there already, what was chosen or measured of them since stays in the description.

    Parameters
    ----------
    folder : Path
    name : str
        Of its two files.
    parameters : mapping of str to Tensor
    description : Description

    Raises
    ------
    OutputError
        Something else lies there, or it cannot be written.
    """
    there = _description_of(folder / f"{name}.json", parameters)
    if there is not None:
        kept = {key: getattr(there, key) for key in _OF_THE_USER}
        kept["provenance"] = {**there.provenance, **description.provenance}
        description = dataclasses.replace(description, **kept)
    return save_checkpoint(folder, name, parameters, description)


def _description_of(path: Path, parameters: Mapping[str, Tensor]) -> Description | None:
    """Return the description that lies there if its weights are whole and are these, as they are stored."""
    if not path.is_file():
        return None
    try:
        there = load_checkpoint(path)
    except UserError:
        return None
    same = there.state.keys() == parameters.keys() and all(
        torch.equal(value, parameters[name].cpu().half().float()) for name, value in there.state.items()
    )
    return there.description if same else None
