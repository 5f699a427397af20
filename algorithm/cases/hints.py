"""What may be wrong with a folder in which no layout is recognised, told from what lies there."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from algorithm.cases.names import IMAGE_SUFFIXES

_PARTS = ("imagesTr", "labelsTr")  # of a data set whose layout wants the folder above them
_TAKEN = ".nii.gz"
_PACKED = (".zip", ".tar", ".tar.gz", ".tgz", ".7z")
_LEVELS = 2  # below the folder that was given


def hint(folder: Path) -> str | None:
    """Return what to do in place of giving this folder; None where nothing in it tells.

    Parameters
    ----------
    folder : Path
        In which no case was found.
    """
    if folder.resolve().name in _PARTS:
        return f"give the folder above it, {folder.resolve().parent}"
    for level in range(1, _LEVELS + 1):
        for part in sorted(folder.glob("/".join(["*"] * level + [_PARTS[0]]))):
            return f"give {part.parent}, which holds {part.name}"
    return _by_files(folder)


def _by_files(folder: Path) -> str | None:
    names = [name.lower() for _, _, files in os.walk(folder) for name in files]
    others = Counter(suffix for name in names for suffix in IMAGE_SUFFIXES if name.endswith(suffix))
    images = others.pop(_TAKEN, 0)
    if others and not images:
        suffix, count = others.most_common(1)[0]
        return (
            f"it holds {count} images in {suffix}, and folders of cases are known by their {_TAKEN}: name the "
            "images in a list of cases (CSV with the columns case, ct, pet and truth)"
        )
    packed = next((name for name in names if name.endswith(_PACKED)), None)
    return f"unpack {packed} first" if packed and not images else None
