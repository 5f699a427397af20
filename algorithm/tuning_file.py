"""A tuning as a JSON file: for which device, library and weights it was found, so that masks can be repeated."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from algorithm.description import Description
from algorithm.errors import UsageError
from algorithm.inference.device import device_name, processor_name
from algorithm.inference.tuning import Tuning
from algorithm.jsonfile import read_json
from algorithm.outputs import json_kind
from algorithm.report import write_json

FORMAT = 1

_MOST_BYTES = 2**20


@dataclass(frozen=True)
class TuningFile:
    """What the file holds.

    Attributes
    ----------
    format : int
    device : str
        The GPU's model; for a CPU its model, how it computes, and how many of its cores may be used.
    torch_version : str
        Another one may round otherwise.
    weights : tuple of str
        SHA-256 of each checkpoint's weights, in the ensemble's order.
    tuning : Tuning
    """

    format: int
    device: str
    torch_version: str
    weights: tuple[str, ...]
    tuning: Tuning

    @classmethod
    def here(cls, tuning: Tuning, device: torch.device, descriptions: Sequence[Description]) -> TuningFile:
        """Return what belongs to a device of this machine, this library and these checkpoints."""
        return cls(
            FORMAT, model_of(device), torch.__version__, tuple(each.sha256 for each in descriptions), tuning
        )


KIND = json_kind("a tuning", *(each.name for each in dataclasses.fields(TuningFile)))


def model_of(device: torch.device) -> str:
    """Return a device's model and what else decides how it rounds."""
    if device.type == "cuda":
        return device_name(device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}, {cores} cores"


def write_tuning(path: Path, tuning: Tuning, device: torch.device, descriptions: Sequence[Description]) -> None:
    """Write a tuning that was found here.

    Raises
    ------
    OutputError
        It cannot be written, or something else lies there.
    """
    write_json(path, dataclasses.asdict(TuningFile.here(tuning, device, descriptions)), KIND)


def read_tuning(path: Path, device: torch.device, descriptions: Sequence[Description]) -> Tuning:
    """Read a tuning for a device and checkpoints.

    Raises
    ------
    MissingInputError
        The file is missing or cannot be read.
    UsageError
        It is no tuning, or one for another device, library or checkpoints.
    """
    content = read_json(path, "the tuning", most_bytes=_MOST_BYTES)
    try:
        found = _parsed(content)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"missing key {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"the tuning {path} is wrong: {reason}; remove it, and `serve` makes a new one"
        ) from error
    here = TuningFile.here(found.tuning, device, descriptions)
    for name in ("device", "torch_version", "weights"):
        wanted, got = getattr(here, name), getattr(found, name)
        if wanted != got:
            raise UsageError(
                f"the tuning {path} is for {name} {_shown(got)}, and here is {_shown(wanted)}; remove it, and "
                "`serve` makes a new one"
            )
    return found.tuning


def _parsed(content: Any) -> TuningFile:
    """Build it from the JSON's content; raises KeyError, TypeError or ValueError if that is wrong."""
    _check_keys("the file", content, TuningFile)
    if content["format"] != FORMAT:
        raise ValueError(f"format must be {FORMAT}, got {content['format']!r:.50}")
    for name in ("device", "torch_version"):
        _check_kind(name, content[name], str)
    _check_kind("weights", content["weights"], list)
    for each in content["weights"]:
        _check_kind("weights", each, str)
    given = content["tuning"]
    _check_keys("tuning", given, Tuning)
    kinds = {
        "precision": str,
        "batch": int,
        **dict.fromkeys(("channels_last", "cudnn_benchmark", "cuda_graph"), bool),
    }
    for name, kind in kinds.items():
        _check_kind(name, given[name], kind)
    if given["threads"] is not None:
        _check_kind("threads", given["threads"], int)
    return TuningFile(**{**content, "weights": tuple(content["weights"]), "tuning": Tuning(**given)})


def _check_keys(what: str, content: Any, kind: type) -> None:
    _check_kind(what, content, dict)
    names = [each.name for each in dataclasses.fields(kind)]
    unknown = sorted(set(content) - set(names))
    if unknown:
        raise ValueError(f"{what} has unknown keys {', '.join(unknown):.100}; known are {', '.join(names)}")
    for name in names:
        content[name]


def _check_kind(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        wanted = {str: "a text", int: "a whole number", bool: "true or false", list: "a list", dict: "an object"}[
            kind
        ]
        raise TypeError(f"{name} must be {wanted}, got {value!r:.50}")


def _shown(value: str | tuple[str, ...]) -> str:
    return value[:100] if isinstance(value, str) else " + ".join(f"{each[:12]}..." for each in value)[:100]
