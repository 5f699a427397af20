"""Checkpoints: find, verify, load, save; the names of the authors' release and ours.

A checkpoint is a pair of files, ``NAME.json`` (:mod:`algorithm.description`) and ``NAME.safetensors``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from algorithm.description import Description, read_description
from algorithm.errors import WeightsError
from algorithm.files import written_whole
from algorithm.network.architecture import Architecture
from algorithm.network.h2aseg import H2ASeg

MODEL_FOLDER = Path("/opt/ml/model")
"""Where grand-challenge unpacks a model tarball, read-only."""

BAKED_IN_FOLDER = Path(__file__).resolve().parent.parent / "weights"

_WRAPPING_KEYS = ("state_dict", "model", "model_state_dict", "network")

_RELEASED_NAMES = (  # ours (a pattern) and the release's; applied in this order, each to the result of the last
    (r"^encoder\.(ct|pet)\.(\d)", lambda m: f"encoder.conv{int(m[2]) + 1}_{m[1]}"),
    (r"^(encoder\.conv1_\w+)\.conv1\b", r"\1.conv_block.0"),
    (r"^(encoder\.conv1_\w+)\.act\b", r"\1.conv_block.2"),
    (r"^(encoder\.conv1_\w+)\.conv2\b", r"\1.conv_block.4"),
    (r"^(encoder\.conv1_\w+)\.skip\b", r"\1.conv_skip.0"),
    (r"^decoder\.blocks\.(\d)", r"decoder.conv\1"),
    (r"\.act1\b", ".conv_block.1"),
    (r"\.conv1\b(?=\.(weight|bias)$)", ".conv_block.2"),
    (r"\.act2\b", ".conv_block.5"),
    (r"\.conv2\b(?=\.(weight|bias)$)", ".conv_block.6"),
    (r"\.skip_act\b", ".conv_skip.1"),
    (r"\.skip\b", ".conv_skip.2"),
    (r"^encoder\.attention\.(\d)", r"encoder.sa\1"),
    (r"\.(inter|intra)_act_(ct|pet)\b", lambda m: f".IR_{m[2]}{1 if m[1] == 'inter' else 2}.1"),
    (r"\.merge_(ct|pet)\b", r".win_merge_\1"),
    (r"\.inter\.", ".inter_window_attention."),
    (r"\.intra\.", ".intra_window_attention.sa."),
    (r"\.(ct|pet)\.(?=(query|key|value)_|out\b)", r".sa_\1."),
    (r"\.query_", ".Q_conv_"),
    (r"\.key_", ".K_conv_"),
    (r"\.value_", ".V_conv_"),
    (r"_conv_self\b", "_conv_target_target"),
    (r"_conv_cross\b", "_conv_source_target"),
    (r"^decoder\.weighting\.(\d)\.(fore|back)", r"decoder.tamw\1.CA_\2"),
    (r"^decoder\.heads\.(\d)\.act\b", r"decoder.output\1.conv.1"),
    (r"^decoder\.heads\.(\d)\.conv\b(?=\.(weight|bias)$)", r"decoder.output\1.conv.2"),
)


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


def released_name(name: str) -> str:
    """Return the name that the authors' release gives to one of our parameters."""
    for pattern, replacement in _RELEASED_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def network_from_released(state_dict: Mapping[str, object]) -> H2ASeg:
    """Build the published network from a state dictionary of the authors' code.

    Parameters
    ----------
    state_dict : mapping
        The 269 names of the release; bare, wrapped under ``state_dict``, ``model``, ``model_state_dict`` or
        ``network``, or with the prefix ``module.``.

    Returns
    -------
    H2ASeg
        In eval mode; maps ``(ct, pet)``, each ``(B, 1, H, W, D)`` float32 in x, y, z, to the five logits.

    Raises
    ------
    WeightsError
        Names are missing, unexpected or misshapen; the message lists them.
    """
    given = _unwrap(state_dict)
    network = H2ASeg()
    ours = network.state_dict()
    expected = {released_name(name): name for name in ours}
    complaints = [f"missing {name}" for name in expected if name not in given]
    complaints += [f"unexpected {name}" for name in given if name not in expected]
    state = {}
    for released, name in expected.items():
        value = given.get(released)
        if value is None:
            continue
        # The release writes attention projections as 1x1x1 convolutions, we as matrices.
        shape = ours[name].shape
        if value.shape == shape or (value.ndim == 5 and value.shape == (*shape, 1, 1, 1)):
            state[name] = value.reshape(shape).to(torch.float32)
        else:
            complaints.append(f"misshapen {released} {tuple(value.shape)}, expected {tuple(shape)}")
    if complaints:
        shown = "; ".join(complaints[:12])
        more = f"; and {len(complaints) - 12} more" if len(complaints) > 12 else ""
        raise WeightsError(f"this is not a checkpoint of the released H2ASeg: {shown}{more}")
    network.load_state_dict(state)
    return network.eval()


def _unwrap(content: object) -> dict[str, Tensor]:
    """Take off wrapping keys and the prefix of data-parallel training; keep tensors only."""
    while isinstance(content, Mapping):
        wrapped = next((content[key] for key in _WRAPPING_KEYS if isinstance(content.get(key), Mapping)), None)
        if wrapped is None:
            break
        content = wrapped
    if not isinstance(content, Mapping):
        raise WeightsError(f"a checkpoint must hold a dictionary of tensors, got {type(content).__name__}")
    return {
        str(name).removeprefix("module."): value for name, value in content.items() if isinstance(value, Tensor)
    }


def import_released(source: Path, description: Description, folder: Path) -> Path:
    """Turn a ``.pth`` of the authors' code into a checkpoint of ours; returns the JSON's path.

    Raises
    ------
    WeightsError
        The file cannot be read, holds more than tensors, or does not fit the network.
    """
    _check_kind(source)
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, LookupError, AttributeError, TypeError, AssertionError) as error:
        raise WeightsError(
            f"{source} is not a PyTorch checkpoint, or holds Python objects besides tensors, which are not loaded "
            "for safety; save its state_dict alone"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(f"{source} is not a complete PyTorch checkpoint: {_first_line(error)}") from error
    state = network_from_released(content).state_dict()
    _check_names(source, state, description.architecture)
    return save_checkpoint(folder, source.stem, state, description, dtype=torch.float32)


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
    for suffix, part in ((".safetensors", content), (".json", described.to_json().encode())):
        with written_whole(folder / f"{name}{suffix}") as temporary:
            temporary.write_bytes(part)
    return folder / f"{name}.json"


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
        found = [path.with_suffix(".json") for path in sorted(folder.glob("*.safetensors"))]
        if found:
            return found
        others = sorted(path.name for path in folder.glob("*")) if folder == MODEL_FOLDER else []
        if others:  # weights that were meant to be used must not be passed over in silence
            raise WeightsError(
                f"{folder} holds {', '.join(others[:5])} but no *.safetensors; pack a checkpoint and its .json "
                "(`python -m algorithm weights import` makes them from a .pth), or leave it empty"
            )
    places = " or ".join(str(folder) for folder in folders)
    raise WeightsError(f"no weights found in {places} (looked for *.safetensors with a .json beside it)")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint by its JSON, checking the weights' sha256 and every name and shape.

    Raises
    ------
    WeightsError
        A file is missing, a Git-LFS pointer, a web page, truncated, altered, or does not fit the network.
    """
    description = read_description(path)
    file = path.with_suffix(".safetensors")
    _check_kind(file)
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
        raise WeightsError(f"{file} is damaged ({_first_line(error)}); copy it again") from error
    state = {name: value.to(torch.float32) for name, value in stored.items()}
    _check_names(file, state, description.architecture)
    return Checkpoint(path, description, state)


def build_network(checkpoint: Checkpoint) -> H2ASeg:
    """Return the checkpoint's network, float32, in eval mode, on the CPU."""
    network = H2ASeg(checkpoint.description.architecture)
    network.load_state_dict(checkpoint.state)
    return network.eval()


def _check_kind(file: Path) -> None:
    """Tell apart the ways in which a file that should hold weights holds something else."""
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
            f"{file} is truncated or damaged at {len(content)} bytes ({_first_line(error)}); copy it again"
        ) from error


def _check_names(file: Path, state: Mapping[str, Tensor], architecture: Architecture) -> None:
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


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
