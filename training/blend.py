"""``python -m training blend``: parameters between those of a checkpoint and of one that was trained on from it.

A last stage on other data forgets what the stages before knew; a network part of the way back keeps much of both
(Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, arXiv 2109.01903). It costs no training.
What it loses and keeps is measured on validation cases, as any other choice.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Mapping

from torch import Tensor

from algorithm.description import PrecisionProof
from algorithm.errors import UsageError
from algorithm.weights import Checkpoint, load_checkpoint, save_checkpoint
from training.options import BlendOptions, parsed_as
from training.start import differences

log = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> int:
    """Blend two checkpoints and say where the result is."""
    options = parsed_as(BlendOptions, args)
    first, last = load_checkpoint(options.first), load_checkpoint(options.last)
    description = dataclasses.replace(
        last.description,
        name=options.name or options.out.resolve().name,
        precision=PrecisionProof(),
        provenance={
            **last.description.provenance,
            "blend": {"share": options.share, "first": first.description.sha256, "last": last.description.sha256},
        },
    )
    path = save_checkpoint(options.out, description.name, blended(first, last, options.share), description)
    log.info("blended: %s; prove its number formats by `python -m training precision`", path)
    return 0


def blended(first: Checkpoint, last: Checkpoint, share: float) -> Mapping[str, Tensor]:
    """Return the parameters at a share of the way from the first checkpoint to the last.

    Parameters
    ----------
    first, last : Checkpoint
        Of one architecture, grid and normalisation; the last was trained on from the first.
    share : float
        0 is the first, 1 the last.

    Raises
    ------
    UsageError
        They are of different networks, or the last did not start from the first.
    """
    for name, ours, theirs in differences(first.description, last.description):
        raise UsageError(
            f"cannot blend {first.path} with {last.path}: their {name} differ, {ours} and {theirs}; "
            "give two checkpoints of one network"
        )
    start = last.description.provenance.get("initial") or {}
    if start.get("sha256") != first.description.sha256:
        raise UsageError(
            f"cannot blend {first.path} with {last.path}: the second was not trained on from the first; "
            "give --last a checkpoint whose training began with --init and the one given as --first"
        )
    return {
        name: (first.state[name].double() * (1 - share) + last.state[name].double() * share).float()
        for name in last.state
    }
