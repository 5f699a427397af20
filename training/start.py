"""What a run may start from: the checkpoint of an earlier one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from algorithm.description import Description, read_description
from algorithm.errors import UsageError
from algorithm.weights import Checkpoint
from training.splits import Split, read_split


def continued(initial: Checkpoint, description: Description) -> Description:
    """Return the description with the checkpoint that the run starts from recorded in its provenance.

    Raises
    ------
    UsageError
        The checkpoint is of another architecture, grid or normalisation.
    """
    for name, theirs, ours in differences(initial.description, description):
        raise UsageError(
            f"the network in {initial.path} was trained with the {name} {theirs}, but this run has {ours}; "
            "give the checkpoint's own values"
        )
    theirs = initial.description
    start = {"name": theirs.name, "sha256": theirs.sha256}
    start |= {key: theirs.provenance[key] for key in ("data", "initial") if key in theirs.provenance}
    return dataclasses.replace(description, provenance={**description.provenance, "initial": start})


def notes_on(start: Checkpoint, run: Description, seed: int) -> Iterator[str]:
    """Yield what a run that goes on from a checkpoint may not mean: flips forgotten, crops drawn once more.

    Parameters
    ----------
    start : Checkpoint
    run : Description
        Of the run that starts from it.
    seed : int
        Of the run.
    """
    theirs = start.description
    if set(theirs.flip_axes) != set(run.flip_axes):
        before, now = (" ".join(axes) or "no axis" for axes in (theirs.flip_axes, run.flip_axes))
        how = f"--flip-axes {before}" if theirs.flip_axes else "--flip 0"
        yield f"the start was mirrored along {before}, this run is along {now}; {how} keeps to its flips"
    known, new = ({each["name"] for each in of.provenance.get("data", ())} for of in (theirs, run))
    if known & new and theirs.provenance.get("settings", {}).get("seed") == seed:
        yield (
            f"the start drew crops of {', '.join(sorted(known & new))} with --seed {seed} too: where cases are "
            "the same, so are the crops; another --seed gives others"
        )


def differences(theirs: Description, ours: Description) -> Iterator[tuple[str, object, object]]:
    """Yield by name, as each has it, what makes two networks different ones; dropout does not."""
    theirs = dataclasses.replace(
        theirs, architecture=dataclasses.replace(theirs.architecture, dropout=ours.architecture.dropout)
    )
    for name in ("architecture", "spacing", "orientation", "ct", "pet"):
        if getattr(theirs, name) != getattr(ours, name):
            yield name, getattr(theirs, name), getattr(ours, name)


def ancestors(provenance: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what a checkpoint's provenance says of those that its training began with, the last one first."""
    ancestor = provenance.get("initial")
    while ancestor:
        yield ancestor
        ancestor = ancestor.get("initial")


def data_seen(provenance: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the data sets that a checkpoint, or one that its training began with, was trained on."""
    for stage in (provenance, *ancestors(provenance)):
        yield from stage.get("data") or ()


def end_of_earlier_fold(earlier: Path, fold: int, split: Split) -> Path:
    """Return where an earlier cross-validation left a fold; UsageError if it held back other patients."""
    folder = earlier / f"fold_{fold}"
    if set(read_split(folder / "split.json").test) != set(split.test):
        raise UsageError(
            f"{folder} held back other patients than this run does; repeat its --cases, --folds and --seed, or "
            "start from a checkpoint"
        )
    return folder / "last.json"


def check_never_saw(checkpoint: Path, data: Path) -> None:
    """Raise UsageError for a checkpoint that was trained on the patients that it would be tested on.

    Those that it started from count as well. ``data`` is a folder of cases or a list, which has its folder's name.
    """
    known = {each["name"] for each in data_seen(read_description(checkpoint).provenance)}
    name = (data.parent if data.is_file() else data).resolve().name
    if name in known:
        raise UsageError(
            f"the network in {checkpoint} was trained on a data set called {name}, on which it would be tested; "
            "start from one that never saw it"
        )
