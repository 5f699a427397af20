"""What a name tells: of a file the case, of a case the tracer, the patient, and whether it is synthetic."""

from __future__ import annotations

import re
from pathlib import Path

from algorithm.errors import MissingInputError

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".tif", ".tiff")
"""Of the files that a case's name is taken from, in small letters; capitals are taken too."""

_AUTOPET_III = re.compile(r"(?P<patient>(?P<tracer>fdg|psma)_[0-9a-f]+)_", re.IGNORECASE)
_TRACER = re.compile(r"(fdg|psma)_", re.IGNORECASE)


def case_name(path: Path | str) -> str:
    """Return the file's name without its image suffix."""
    name = Path(path).name
    suffix = next((each for each in IMAGE_SUFFIXES if name.lower().endswith(each)), "")
    return name[: len(name) - len(suffix)]


def is_image(path: Path) -> bool:
    """Tell by its name whether a file is an image; hidden ones, as macOS leaves beside its copies, are none."""
    return path.name.lower().endswith(IMAGE_SUFFIXES) and not path.name.startswith(".")


def tracer_of(name: str) -> str | None:
    """Return ``fdg`` or ``psma`` if a name begins with it, as AutoPET III's names of cases and patients do."""
    match = _TRACER.match(name)
    return match.group(1).lower() if match else None


def patient_of(name: str) -> str:
    """Return the patient of an AutoPET III case (``fdg_<patient>_<date>...``), else the case's whole name."""
    match = _AUTOPET_III.match(name)
    return match["patient"] if match else name


def named_synthetic(name: str) -> bool:
    """Tell whether a case's name itself says that it is synthetic."""
    return name.lower().startswith("synthetic")


def masks_in(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by case name, in sorted order.

    Raises
    ------
    MissingInputError
        Two files have the same case name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not is_image(path):
            continue
        other = found.setdefault(case_name(path), path)
        if other != path:
            raise MissingInputError(f"both {other} and {path} are masks of {case_name(path)}; keep one of them")
    return found
