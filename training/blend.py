"""``python -m training blend``: parameters between those of a checkpoint and of others trained on from it.

A last stage on other data forgets what the stages before knew; a network part of the way back keeps much of both
(Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, arXiv 2109.01903). The mean of several that
started from one, such as the folds of a cross-validation, is one network that has seen all cases (Wortsman et al.,
"Model soups", ICML 2022, arXiv 2203.05482). Neither costs training. What is lost and kept is measured on
validation cases, as any other choice.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from algorithm.description import PrecisionProof
from algorithm.errors import OutputError, UsageError
from algorithm.outputs import is_one_of
from algorithm.weights import Checkpoint, load_checkpoint
from training.export import export
from training.options import BlendOptions, parsed_as
from training.start import ancestors, data_seen, differences

log = logging.getLogger(__name__)

_OF_ITS_RUN = ("validation", "steps")
"""What a checkpoint's provenance says of its own parameters, and so not of a blend's."""


def main(args: argparse.Namespace) -> int:
    """Blend checkpoints and say where the result is."""
    options = parsed_as(BlendOptions, args)
    name = options.name or options.out.resolve().name
    path = write_blend(options.first, options.last, options.share, options.out, name)
    log.info("blended: %s; prove its number formats by `python -m training precision`", path)
    return 0


def write_blend(first_path: Path, last_paths: Sequence[Path], share: float, out: Path, name: str) -> Path:
    """Blend checkpoints as :func:`blended` does, and return the description's path in the folder ``out``.

    Where that blend lies there already, what was chosen or measured of it since stays.

    Raises
    ------
    OutputError
        The result would replace one of the checkpoints.
    """
    target = out / f"{name}.json"
    if is_one_of(target, [first_path, *last_paths]):
        raise OutputError(f"{target} is what the checkpoint is made from; choose another --out or --name")
    first, last = load_checkpoint(first_path), [load_checkpoint(path) for path in last_paths]
    seen: dict[str, Mapping[str, Any]] = {}
    for data in (data for each in last for data in data_seen(each.description.provenance)):
        seen.setdefault(data["name"], data)  # of one name, the last stage's
    of_last = {key: value for key, value in last[0].description.provenance.items() if key not in _OF_ITS_RUN}
    description = dataclasses.replace(
        last[0].description,
        name=name,
        precision=PrecisionProof(),
        provenance={
            **of_last,
            "data": list(seen.values()),
            "blend": {
                "share": share,
                "first": first.description.sha256,
                "last": [each.description.sha256 for each in last],
            },
        },
    )
    return export(out, name, blended(first, last, share), description)


def blended(first: Checkpoint, last: Sequence[Checkpoint], share: float) -> Mapping[str, Tensor]:
    """Return the parameters at a share of the way from the first checkpoint to the mean of the last ones.

    Where all have parameters that are numbers of bfloat16, as a run in bfloat16 exports them, so has the blend: an
    inference in bfloat16 then computes with the same parameters as one in float32.

    Parameters
    ----------
    first : Checkpoint
    last : sequence of Checkpoint
        Of the first's architecture, grid and normalisation; each was trained on from the first, in any number of
        stages.
    share : float
        0 is the first, 1 the mean of the last.

    Raises
    ------
    UsageError
        They are of different networks, or one of the last did not start from the first.
    """
    for each in last:
        _check_descent(first, each)
    parts = [(first, 1 - share), *((each, share / len(last)) for each in last)]
    rounded = torch.bfloat16 if all(_is_rounded(each.state) for each, _ in parts) else torch.float32
    return {
        name: sum((each.state[name].double() * part for each, part in parts), torch.zeros(())).to(rounded).float()
        for name in first.state
    }


def _is_rounded(state: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(value.bfloat16().to(value.dtype), value) for value in state.values())


def _check_descent(first: Checkpoint, last: Checkpoint) -> None:
    for name, ours, theirs in differences(first.description, last.description):
        raise UsageError(
            f"cannot blend {first.path} with {last.path}: their {name} differ, {ours} and {theirs}; "
            "give two checkpoints of one network"
        )
    if all(each.get("sha256") != first.description.sha256 for each in ancestors(last.description.provenance)):
        raise UsageError(
            f"cannot blend {first.path} with {last.path}: the second was not trained on from the first; "
            "give --last a checkpoint whose training began with --init and the one given as --first"
        )
