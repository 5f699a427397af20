"""Checkpoints: find, verify, load, save; :mod:`algorithm.released` makes one of the authors' release.

A checkpoint is a pair of files, ``NAME.json`` (:mod:`algorithm.description`) and ``NAME.safetensors``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from algorithm.description import Description, read_description
from algorithm.errors import WeightsError
from algorithm.files import written_whole
from algorithm.network.architecture import Architecture
from algorithm.network.h2aseg import H2ASeg
from algorithm.outputs import Kind, check_free, json_kind

DESCRIPTION = json_kind("a checkpoint's description", "format", "architecture", "patch", "sha256")
_PARTS = ("encoder.", "decoder.")  # with which the names of all our parameters begin


def _knows_weights(path: Path) -> bool:
    described = path.with_suffix(".json")
    if described.exists():
        return DESCRIPTION.is_earlier(described)
    try:  # a run that was killed between the two leaves the weights alone
        with safetensors.safe_open(path, "pt") as stream:
            return all(name.startswith(_PARTS) for name in stream.keys())  # noqa: SIM118
    except SafetensorError:
        return False


WEIGHTS = Kind("weights", _knows_weights)
"""Safetensors have no mark of who wrote them: they are ours where their description is, or by their names."""

MODEL_FOLDER = Path("/opt/ml/model")
"""Where grand-challenge unpacks a model tarball, read-only."""

BAKED_IN_FOLDER = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint in memory.

    Attributes
    ----------
    path : Path
        The JSON file.
    description : Description
    state : dict of str to Tensor
        Our parameter names; float32.
    """

    path: Path
    description: Description
    state: dict[str, Tensor]


def save_checkpoint(
    folder: Path,
    name: str,
    state: Mapping[str, Tensor],
    description: Description,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write ``name.safetensors`` and ``name.json`` with its sha256, each whole; return the JSON's path."""
    tensors = {key: value.detach().to("cpu", dtype).contiguous() for key, value in state.items()}
    content = safetensors.torch.save(tensors)
    described = dataclasses.replace(description, sha256=hashlib.sha256(content).hexdigest())
    parts = ((".safetensors", content, WEIGHTS), (".json", described.to_json().encode(), DESCRIPTION))
    for suffix, _, kind in parts:
        check_free(folder / f"{name}{suffix}", kind)
    for suffix, part, _ in parts:
        with written_whole(folder / f"{name}{suffix}") as temporary:
            temporary.write_bytes(part)
    return folder / f"{name}.json"


def describe_again(checkpoint: Checkpoint, **changed: Any) -> None:
    """Replace fields of a stored checkpoint's description, beside the same weights; the file is written whole."""
    check_free(checkpoint.path, DESCRIPTION)
    described = dataclasses.replace(checkpoint.description, **changed)
    with written_whole(checkpoint.path) as temporary:
        temporary.write_text(described.to_json(), encoding="utf-8")


def find_checkpoints(explicit: Path | None = None) -> list[Path]:
    """Return the descriptions of the checkpoints to use; several are averaged as an ensemble.

    Looked for where ``explicit`` says (a JSON file, its safetensors, or a folder), else in ``/opt/ml/model``,
    else in the baked-in ``weights/`` folder. In a folder, each JSON with a safetensors beside it counts.

    Raises
    ------
    WeightsError
        Nothing is there, or ``/opt/ml/model`` holds something else.
    """
    if explicit is not None and explicit.suffix in (".json", ".safetensors"):
        if not explicit.exists():
            raise WeightsError(
                f"no weights at {explicit}; give a folder or a .json that lies beside its .safetensors"
            )
        return [explicit.with_suffix(".json")]
    folders = [explicit] if explicit is not None else [MODEL_FOLDER, BAKED_IN_FOLDER]
    for folder in folders:
        _require_readable(folder)
        # macOS leaves hidden files beside those that were meant.
        visible = [path for path in sorted(folder.glob("*")) if not path.name.startswith(".")]
        found = [path.with_suffix(".json") for path in visible if path.suffix == ".safetensors"]
        if found:
            return found
        others = [path.name for path in visible] if folder == MODEL_FOLDER else []
        if others:  # weights that were meant to be used must not be passed over in silence
            raise WeightsError(
                f"{folder} holds {', '.join(others[:5])} but no *.safetensors; pack a checkpoint and its .json "
                "(`python -m algorithm weights import` makes them from a .pth), or leave it empty"
            )
    places = " or ".join(str(folder) for folder in folders)
    raise WeightsError(f"no weights found in {places} (looked for *.safetensors with a .json beside it)")


def _require_readable(folder: Path) -> None:
    """Raise WeightsError for a folder that is there and cannot be looked into, in which a search finds nothing."""
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        raise WeightsError(f"cannot look for weights in {folder}: permission denied; make it readable")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint by its JSON, checking the weights' sha256 and every name and shape.

    Raises
    ------
    WeightsError
        A file is missing, a Git-LFS pointer, a web page, truncated, altered, or does not fit the network.
    """
    description = read_description(path)
    file = path.with_suffix(".safetensors")
    check_kind(file)
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if description.sha256 and digest != description.sha256:
        _check_complete(file, content)
        raise WeightsError(
            f"{file} has sha256 {digest}, but {path.name} says {description.sha256}: "
            "the two do not belong together; copy both again"
        )
    try:
        stored = safetensors.torch.load(content)
    except SafetensorError as error:
        raise WeightsError(f"{file} is damaged ({first_line(error)}); copy it again") from error
    state = {name: value.to(torch.float32) for name, value in stored.items()}
    check_parameters(file, state, description.architecture)
    return Checkpoint(path, description, state)


def build_network(checkpoint: Checkpoint) -> H2ASeg:
    """Return the checkpoint's network, float32, in eval mode, on the CPU."""
    network = H2ASeg(checkpoint.description.architecture)
    network.load_state_dict(checkpoint.state)
    return network.eval()


def check_kind(file: Path) -> None:
    """Raise WeightsError for what is no file of weights: tells apart what such a file may hold instead."""
    if file.exists() and not file.is_file():
        raise WeightsError(f"{file} is no regular file; put the weights there")
    try:
        with file.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise WeightsError(f"cannot read the weights {file}: {error.strerror}") from error
    if not head:
        raise WeightsError(f"{file} is empty; copy it again")
    if head.startswith(b"version https://git-lfs.github.com/spec"):
        raise WeightsError(f"{file} is a Git-LFS pointer, not weights; run `git lfs pull` and try again")
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise WeightsError(f"{file} is a web page, not weights; download the file itself")


def _check_complete(file: Path, content: bytes) -> None:
    """Raise if a safetensors file is shorter than its header says."""
    try:
        safetensors.torch.load(content)
    except SafetensorError as error:
        raise WeightsError(
            f"{file} is truncated or damaged at {len(content)} bytes ({first_line(error)}); copy it again"
        ) from error


def check_parameters(file: Path, state: Mapping[str, Tensor], architecture: Architecture) -> None:
    """Raise WeightsError where names, shapes or values are not those of a network of this architecture."""
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in H2ASeg(architecture).state_dict().items()}
    complaints = [f"missing {name}" for name in expected if name not in state]
    complaints += [f"unexpected {name}" for name in state if name not in expected]
    complaints += [
        f"misshapen {name} {tuple(state[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if complaints:
        raise WeightsError(f"{file} does not fit its description: {'; '.join(complaints[:12])}")
    broken = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise WeightsError(
            f"{file} holds values that are not finite in {', '.join(broken[:5])}; train or copy it again"
        )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its kind where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
