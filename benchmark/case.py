"""The whole body to measure on, and the checkpoints, as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from benchmark.process import Answer, Measure
from benchmark.subjects import default_checkpoint, released_settings, save
from synthesis.scan import synthesise
from synthesis.study import find_anatomies, tracer_of
from test.support.phantom import make_torso

SEED = 0
_AIR = {"ct": -1000.0, "pet": 0.0}


def write_checkpoints(folder: str, weights: str | None) -> Measure:
    """Return a task that writes the checkpoint as it is and with the release's settings; it answers with both."""

    def measure() -> Answer:
        checkpoint = default_checkpoint(weights)
        settings = {"default": checkpoint.description, "released": released_settings(checkpoint.description)}
        for name, description in settings.items():
            save(checkpoint, Path(folder) / name, name, description)
        return {
            name: {
                "name": each.name,
                "weights": checkpoint.description.sha256[:8],
                "patch": each.patch,
                "spacing": each.spacing,
                "overlap": each.overlap,
            }
            for name, each in settings.items()
        }

    return measure


def write_body(
    folder: str, size: list[int], spacing: list[float], anatomies: str | None, parts: list[int]
) -> Measure:
    """Return a task that writes the body, or its lowest ``1 / part``, for each of the parts.

    The answer tells how the body was made, and the sizes.
    """

    def measure() -> Answer:
        ct, pet, how = make_body(size, spacing, anatomies)
        sizes = {part: [size[0], size[1], max(1, size[2] // part)] for part in parts}
        for part, (_, _, slices) in sizes.items():
            for name, image in (("ct", ct), ("pet", pet)):
                sitk.WriteImage(image[:, :, :slices], str(Path(folder) / f"{name}_{part}.mha"))
        return {"how": how, "sizes": sizes}

    return measure


def make_body(
    size: Sequence[int], spacing: Sequence[float], anatomies: str | None
) -> tuple[sitk.Image, sitk.Image, str]:
    """Return CT in HU, SUV, and a sentence on how they were made.

    From the first anatomy of just this size, on its own grid; without one from the test's torso, stretched along
    the body's axis to the height asked for.
    """
    for path in find_anatomies(Path(anatomies)) if anatomies else ():
        if _size(path) == tuple(size):
            body = synthesise(sitk.ReadImage(str(path)), tracer_of(path.parent.name), SEED, spacing=None)
            return body.ct, body.suv, f"synthetic, from the anatomy {path.parent.name}"
    torso = make_torso()
    ct, pet = (
        _stretched(image, size, spacing, _AIR[name]) for name, image in (("ct", torso.ct), ("pet", torso.pet))
    )
    return ct, pet, "synthetic, the test's torso stretched along the body"


def _size(path: Path) -> tuple[int, ...]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size: tuple[int, ...] = reader.GetSize()
    return size


def _stretched(image: sitk.Image, size: Sequence[int], spacing: Sequence[float], outside: float) -> sitk.Image:
    """Stretch along z to fill the new grid; in plane millimetres stay, the grid lies around the image's centre."""
    x, y, _ = image.GetSpacing()
    stretched = sitk.Image(image)
    stretched.SetSpacing((x, y, size[2] * spacing[2] / image.GetSize()[2]))
    centre = stretched.TransformContinuousIndexToPhysicalPoint([(side - 1) / 2 for side in image.GetSize()])
    direction = np.array(image.GetDirection()).reshape(3, 3)
    half = direction @ ((np.array(size) - 1) / 2 * np.array(spacing))
    origin = (np.array(centre) - half).tolist()
    return sitk.Resample(
        stretched,
        list(size),
        sitk.Transform(),
        sitk.sitkLinear,
        origin,
        list(spacing),
        image.GetDirection(),
        outside,
    )
