"""The hand-over bundle: what it holds, how its parts are hashed, and what made it.

``manifest.json`` lists the SHA-256 of every other file::

    weights/NAME.json, weights/NAME.safetensors    the checkpoints that were used
    masks/CASE.mha, reports/CASE.json              the results
    metrics.json, metrics.csv                      scores, where the truth was at hand
    requirements.txt                               exact versions of what was imported
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

import algorithm
from algorithm.errors import MissingInputError
from algorithm.files import sha256_of
from algorithm.inference.device import choose_device, choose_dtype, precision_of, processor_name
from algorithm.job import InferenceSettings, Segmenter
from algorithm.weights import load_checkpoint

FORMAT = 1
MANIFEST = "manifest.json"
REQUIREMENTS = "requirements.txt"
METRICS_JSON, METRICS_CSV = "metrics.json", "metrics.csv"

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class BundleSettings:
    """What the inference was asked for; the number of flips is fixed, so that it can be repeated to the bit.

    Attributes
    ----------
    device : str
        ``cpu`` or ``cuda``.
    precision : str
        ``float32``, ``bfloat16`` or ``float16``.
    flips : int
        Flipped passes that are averaged, the identity included.
    overlap : float or None
        Of the sliding windows; None: each checkpoint's own.
    threads : int
        CPU threads; sums over a volume depend on them.
    """

    device: str
    precision: str
    flips: int
    overlap: float | None
    threads: int


@dataclass(frozen=True)
class SegmentedCase:
    """What the inference returns: the mask (uint8, z, y, x, on the PET's grid) and the run report's content."""

    mask: NDArray[np.uint8]
    report: dict[str, Any]


Predict = Callable[[Path, Path, list[Path], BundleSettings], SegmentedCase]
"""CT, PET, the checkpoints' JSON files, settings."""


@dataclass(frozen=True)
class File:
    """An input: its path inside the input folder, and its SHA-256."""

    path: str
    sha256: str


@dataclass(frozen=True)
class CaseRecord:
    """One case: its inputs, and its mask's voxels.

    Attributes
    ----------
    name : str
    synthetic : bool
        The images are not of a patient.
    subset : str or None
        What its scores are averaged in; see :attr:`algorithm.cases.Case.group`.
    ct, pet : File
    truth : File or None
    truth_on_own_grid : bool
        The truth is brought onto the mask's grid to be scored; see :class:`algorithm.cases.Case`.
    mask : str
        Path inside the bundle.
    voxels_sha256 : str
        Of the mask's geometry and voxels, however the file is compressed; see :func:`voxels_sha256`.
    """

    name: str
    synthetic: bool
    subset: str | None
    ct: File
    pet: File
    truth: File | None
    truth_on_own_grid: bool
    mask: str
    voxels_sha256: str


@dataclass(frozen=True)
class Manifest:
    """Content of ``manifest.json``.

    Attributes
    ----------
    code : dict
        ``version``, ``commit`` (None outside a git checkout), ``uncommitted`` changes to ``algorithm/``, and
        ``sha256`` of the files of ``algorithm/``.
    image : str or None
        Digest of the container image.
    system : dict
        ``python`` and ``platform``.
    device_class : str
        Masks from the same class must agree to the bit; see :func:`device_class`.
    settings : BundleSettings
    edition : str
        Whose rules the metrics follow.
    weights : tuple of str
        The checkpoints' JSON files inside the bundle.
    cases : tuple of CaseRecord
    files : dict
        Path inside the bundle to SHA-256, all files but the manifest.
    """

    code: dict[str, Any]
    image: str | None
    system: dict[str, str]
    device_class: str
    settings: BundleSettings
    edition: str
    weights: tuple[str, ...]
    cases: tuple[CaseRecord, ...]
    files: dict[str, str]

    def to_json(self) -> str:
        """Return the manifest as it is stored."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=2) + "\n"


def report_of(case: CaseRecord) -> str:
    """Return where a case's run report lies inside the bundle."""
    return f"reports/{case.name}.json"


def voxels_sha256(mask: sitk.Image) -> str:
    """Return the SHA-256 of a mask's geometry and voxels.

    Hashed are size, spacing, origin and direction as Python prints them, one line each, then one byte per voxel,
    x fastest.
    """
    geometry = (mask.GetSize(), mask.GetSpacing(), mask.GetOrigin(), mask.GetDirection())
    digest = hashlib.sha256("".join(f"{part}\n" for part in geometry).encode())
    digest.update(sitk.GetArrayViewFromImage(mask).astype(np.uint8).tobytes())
    return digest.hexdigest()


def folder_sha256(folder: Path, pattern: str = "*.py") -> str:
    """Return one SHA-256 over the names and contents of a folder's files, in sorted order."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob(pattern)):
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def code_version() -> dict[str, Any]:
    """Say which code runs: version, git commit where there is one, SHA-256 over ``algorithm/``."""
    folder = Path(algorithm.__file__).resolve().parent
    commit = _output_of("git", "-C", str(_ROOT), "rev-parse", "HEAD")
    changes = _output_of("git", "-C", str(_ROOT), "status", "--porcelain", "--", str(folder)) if commit else None
    return {
        "version": algorithm.__version__,
        "commit": commit,
        "uncommitted": None if changes is None else bool(changes),
        "sha256": folder_sha256(folder),
    }


def device_class(device: str) -> str:
    """Name what decides the last bits of a float: processor or GPU model, and PyTorch's version."""
    if device == "cuda":
        hardware = f"cuda {torch.cuda.get_device_name()}"
    else:
        hardware = f"cpu {processor_name()} {torch.backends.cpu.get_cpu_capability()}"
    return f"{hardware}, torch {torch.__version__.split('+')[0]}"


def system() -> dict[str, str]:
    """Return the versions of Python and of the operating system."""
    return {"python": platform.python_version(), "platform": platform.platform()}


def exact_requirements() -> str:
    """Return pinned lines for the project's requirements and every other package that is imported now."""
    wanted = {_normal(name) for name in _required(_ROOT / REQUIREMENTS)}
    providers = importlib.metadata.packages_distributions()
    for module in {name.partition(".")[0] for name in sys.modules}:
        wanted.update(_normal(distribution) for distribution in providers.get(module, ()))
    installed = {_normal(found.name): found for found in importlib.metadata.distributions() if found.name}
    lines = [f"{installed[name].name}=={installed[name].version}" for name in sorted(wanted) if name in installed]
    return "\n".join(lines) + "\n"


def image_digest(image: str) -> str:
    """Return the digest of a container image given by digest or by a name that Docker knows.

    Raises
    ------
    MissingInputError
        Docker is not there, or knows no such image.
    """
    if re.fullmatch(r"(.+@)?sha256:[0-9a-f]{64}", image):
        return image
    digest = _output_of("docker", "image", "inspect", "--format", "{{.Id}}", image)
    if not digest:
        raise MissingInputError(f"Docker knows no image {image}; build it, or give its digest (sha256:...)")
    return digest


def predict(ct: Path, pet: Path, checkpoints: list[Path], settings: BundleSettings) -> SegmentedCase:
    """Segment one case with the product itself; see :data:`Predict`."""
    torch.set_num_threads(settings.threads)
    segmenter = Segmenter([load_checkpoint(path) for path in checkpoints], settings.device, settings.precision)
    result = segmenter.segment(ct, pet, InferenceSettings(flips=settings.flips, overlap=settings.overlap))
    return SegmentedCase(result.mask, dataclasses.asdict(result.report))


def resolve(device: str, precision: str) -> tuple[str, str]:
    """Return what ``auto`` means on this machine, so that the manifest says what was really used.

    Raises
    ------
    DeviceError
        There is no such device, or it cannot compute with that precision.
    """
    found = choose_device(device)
    return found.type, precision_of(choose_dtype(precision, found))


def _required(path: Path) -> list[str]:
    """Return the package names in a requirements file; none where the file is not there (in a container)."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [match.group() for line in lines if (match := re.match(r"[A-Za-z0-9][\w.-]*", line))]


def _normal(name: str) -> str:
    """Return a package name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _output_of(*command: str) -> str | None:
    """Return what a program prints, or None where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
