"""The authors' release: the names of its parameters and ours, and how its ``.pth`` becomes a checkpoint."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from algorithm.description import Description
from algorithm.errors import WeightsError
from algorithm.network.h2aseg import H2ASeg
from algorithm.weights import check_kind, check_parameters, first_line, save_checkpoint

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
    check_kind(source)
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, LookupError, AttributeError, TypeError, AssertionError) as error:
        raise WeightsError(
            f"{source} is not a PyTorch checkpoint, or holds Python objects besides tensors, which are not loaded "
            "for safety; save its state_dict alone"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(f"{source} is not a complete PyTorch checkpoint: {first_line(error)}") from error
    state = network_from_released(content).state_dict()
    check_parameters(source, state, description.architecture)
    return save_checkpoint(folder, source.stem, state, description, dtype=torch.float32)
