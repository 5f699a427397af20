"""What a training run keeps on disk so that a killed run goes on exactly where it was."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from algorithm.description import Description
from algorithm.errors import OutputError, UsageError
from algorithm.files import written_whole
from training.recipe import Recipe
from training.sampling import Source

STATE = "state.pt"


@dataclass
class Progress:
    """How far a run is; part of its state.

    Attributes
    ----------
    step : int
        Steps done.
    epoch_loss : float
        Sum of the losses since the epoch began.
    epoch_skipped : int
        Steps since then whose gradients were not finite: they changed nothing and are not in the sum.
    counted, not_finite : int
        Steps of the epochs since the gradients were last judged, and how many of them were not finite.
    best_dice : float
        Of the validations so far.
    validation : str
        Hash of the cases that they looked at; empty before this was kept.
    validation_due : bool
        The epoch that ended here has not been validated yet.
    """

    step: int = 0
    epoch_loss: float = 0.0
    epoch_skipped: int = 0
    counted: int = 0
    not_finite: int = 0
    best_dice: float = -1.0
    validation: str = ""
    validation_due: bool = False


def fingerprint(
    description: Description, recipe: Recipe, sources: Sequence[Source], dtype: torch.dtype | None
) -> dict[str, str]:
    """Return all that decides what a run learns, as text by key: what must be equal to resume."""
    learned = ("architecture", "patch", "spacing", "ct", "pet")
    parts = {key: value for key, value in dataclasses.asdict(description).items() if key in learned}
    parts |= dataclasses.asdict(recipe)
    parts["initial checkpoint"] = (description.provenance.get("initial") or {}).get("sha256")
    # not the cache's folders: their names hold the files' times, and a data set that was copied is still the same
    parts["training cases"] = [
        [source.share, [[case.name, case.sha256] for case in source.cases]] for source in sources
    ]
    parts["mistakes"] = [[[case.name, *place] for case, place in (*each.missed, *each.false)] for each in sources]
    return {key: json.dumps(value, sort_keys=True) for key, value in parts.items()} | {"computed in": str(dtype)}


def write_state(path: Path, run: Mapping[str, str], progress: Progress, parts: Mapping[str, Any]) -> None:
    """Write a run's fingerprint, progress and parts (tensors, state dictionaries), atomically.

    Raises
    ------
    OutputError
        It cannot be written, or the disk is full.
    """
    with written_whole(path) as temporary:
        try:
            torch.save({"recipe": dict(run), "progress": dataclasses.asdict(progress), **parts}, temporary)
        except RuntimeError as error:  # torch's own for a write that failed, with nothing of the system's reason
            raise OutputError(
                f"{path} could not be stored completely; free some space and repeat the command, which goes on "
                "from the state before"
            ) from error


def read_state(path: Path, run: Mapping[str, str], device: torch.device) -> tuple[Progress, dict[str, Any]]:
    """Return the progress and the parts of a state.

    Raises
    ------
    UsageError
        The file is damaged, or its run had another fingerprint: other options or data.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        stored: dict[str, str] = state.pop("recipe")
        progress = Progress(**state.pop("progress"))
    except (OSError, RuntimeError, AttributeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise UsageError(f"cannot resume from {path}: it is damaged; remove it to start afresh") from error
    initial = json.loads(stored.get("initial checkpoint", "null"))
    if isinstance(initial, dict):  # older versions stored its provenance too
        stored["initial checkpoint"] = json.dumps(initial.get("sha256"))
    if "computed in" in stored:  # which is what --precision came to, however that was given
        stored.pop("precision", None)
    # A key that an older version did not store is not compared.
    differing = sorted(key for key in stored if stored[key] != run.get(key))
    if differing == ["computed in"]:
        before, here = (_format(each["computed in"]) for each in (stored, run))
        raise UsageError(
            f"{path.parent} holds a run that was computed in {before}, here it would be {here}; give "
            f"--precision {before} to go on"
        )
    if differing:
        raise UsageError(
            f"{path.parent} holds a run with other values of {', '.join(differing)}; repeat its options to go "
            "on, or choose another --out"
        )
    return progress, state


def _format(dtype: str) -> str:
    """Return the name that ``--precision`` gives a number format; the loop has none for float32."""
    return "float32" if dtype == "None" else dtype.removeprefix("torch.")
