"""What is kept of a case between the calls of the interactive editions, so that later calls cost guidance alone.

AutoPET V mounts ``/cache`` for the calls of one case. It gets one file: the probability on the network's grid, the
grid, and how it was made, under a name that is the hash of all that decides it. Whatever is found there that is
not whole, or was made otherwise, counts as not found.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from algorithm import __version__
from algorithm.errors import OutputError
from algorithm.files import sha256_of, written_whole
from algorithm.formats.volume import files_of
from algorithm.inference.case_run import Prediction
from algorithm.inference.execution import Execution

log = logging.getLogger(__name__)

# What a file raises that is not whole, or not ours.
_DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)

_PREFIX, _SUFFIX = "h2aseg-", ".npz"
_PLAIN = ("windows", "flip_windows", "passes", "passes_planned", "seconds_per_pass", "stopped_because", "notes")


@dataclass(frozen=True)
class Seen:
    """A case as the network saw it.

    Attributes
    ----------
    prediction : Prediction
        Its probability is 0 in air.
    grid : SimpleITK.Image
        Geometry of the probability; its voxels mean nothing.
    """

    prediction: Prediction
    grid: sitk.Image


def key_of(images: Sequence[Path], *settings: object) -> str:
    """Return the hash of images (files, or folders of DICOM files) and all settings that decide a probability."""
    digest = hashlib.sha256(repr((__version__, settings)).encode())
    for path in (path for image in images for path in files_of(image)):
        digest.update(bytes.fromhex(sha256_of(path)))
    return digest.hexdigest()[:40]


class CallCache:
    """The folder in which one case is kept.

    Parameters
    ----------
    folder : Path
        Not made: where it is missing or cannot be written, nothing is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def usable(self) -> bool:
        """Whether anything can be kept."""
        return self.folder.is_dir() and os.access(self.folder, os.W_OK | os.X_OK)

    def find(self, key: str, execution: Execution) -> Seen | None:
        """Return what was kept under a key; None where there is nothing whole.

        Parameters
        ----------
        key : str
            From :func:`key_of`.
        execution : Execution
            How it would be computed now; the key must tell devices and number formats apart.
        """
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as kept:
                probability, about = kept["probability"], json.loads(str(kept["about"]))
            grid = sitk.Image(list(probability.shape), sitk.sitkUInt8)
            grid.SetSpacing(about["spacing"])
            grid.SetOrigin(about["origin"])
            grid.SetDirection(about["direction"])
            if probability.dtype != np.float32 or probability.ndim != 3 or not np.isfinite(probability).all():
                raise ValueError("no probability")
            plain = {name: about[name] for name in _PLAIN}
        except _DAMAGED as error:
            log.info("what %s keeps of this case is not used: %s", path, error)
            return None
        plain["notes"] = tuple(plain["notes"])
        return Seen(Prediction(probability=probability, execution=execution, **plain), grid)

    def keep(self, key: str, seen: Seen) -> None:
        """Keep a case in place of the one before; a cache that cannot be written costs time, and no case."""
        about = {name: getattr(seen.prediction, name) for name in _PLAIN}
        about |= {"spacing": seen.grid.GetSpacing(), "origin": seen.grid.GetOrigin()}
        about["direction"] = seen.grid.GetDirection()
        try:
            for old in self._files():
                old.unlink(missing_ok=True)
            with written_whole(self._path(key)) as temporary, temporary.open("wb") as stream:
                np.savez(stream, probability=seen.prediction.probability, about=np.array(json.dumps(about)))
        except (OSError, OutputError) as error:
            log.info("nothing is kept for later calls: %s", error)

    def _path(self, key: str) -> Path:
        return self.folder / f"{_PREFIX}{key}{_SUFFIX}"

    def _files(self) -> Iterable[Path]:
        return self.folder.glob(f"{_PREFIX}*{_SUFFIX}")


def geometry_of(image: sitk.Image) -> sitk.Image:
    """Return an image's geometry without its voxels' memory: one byte each, all 0."""
    grid = sitk.Image(image.GetSize(), sitk.sitkUInt8)
    grid.CopyInformation(image)
    return grid
