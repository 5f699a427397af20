"""What is done where memory or time do not allow a case: refuse it before a voxel is read, or coarsen its grid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from algorithm.description import Description
from algorithm.errors import ResourceError
from algorithm.images import geometry_text, read_header
from algorithm.inference.budget import TooSlowError
from algorithm.inference.memory import CaseSize, host_limit_bytes

Spacing = tuple[float, ...]

_COARSENING = 1.25  # least factor of the spacing where one pass does not fit the time limit
_COARSEST_MM = 12.0
_LEAST_COARSENING = 1.05  # on the way to the coarsest: less is not worth another attempt
_RESERVE_S = 3.0  # writing, and whatever the machine does meanwhile
_RESERVE_S_PER_VOXEL = 2e-7  # restoring, postprocessing and writing a mask: measured 1e-7 on two cores


def seconds_after_prediction(pet_voxels: int) -> float:
    """Return how long a case takes from its probability to the written mask, generously."""
    return _RESERVE_S + _RESERVE_S_PER_VOXEL * pet_voxels


@dataclass(frozen=True)
class Coarsening:
    """By how much the voxels of the network's grid were made longer, so that one pass fits the time limit.

    ``first``: the spacing of the grid that was too fine first, in mm along the network's axes.
    """

    factor: float = 1.0
    first: Spacing = ()

    def applied_to(self, description: Description) -> Description:
        """Return the description with longer voxels; where it names no spacing, that of the first grid counts."""
        if self.factor == 1.0:
            return description
        x, y, z = description.spacing or self.first
        return dataclasses.replace(description, spacing=(x * self.factor, y * self.factor, z * self.factor))

    def further(self, spacing: Spacing, limit_s: float | None, reason: TooSlowError, left_s: float) -> Coarsening:
        """Return the next step: as far as the time is short, for a pass takes as long as the grid has voxels.

        Parameters
        ----------
        spacing : floats
            Of the grid that was too fine, in mm.
        limit_s : float or None
            The time limit, for the message.
        reason : TooSlowError
        left_s : float
            What is left of the limit.

        Raises
        ------
        ResourceError
            No time is left, or voxels would be longer than 12 mm.
        """
        step = min(max(_COARSENING, math.cbrt(reason.factor)), _COARSEST_MM / min(spacing))
        if left_s <= 0 or step < _LEAST_COARSENING:
            raise ResourceError(
                f"the time limit of {limit_s:g} s is too short for this case on this machine "
                f"({reason}); raise --time-limit or use a GPU"
            ) from reason
        return Coarsening(self.factor * step, self.first or spacing)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report says of it."""
        if self.factor == 1.0:
            return ()
        return (f"voxels were made {self.factor:.2f} times as long to keep the time limit",)


def check_memory(ct_path: Path, pet_path: Path, descriptions: Sequence[Description]) -> None:
    """Raise ResourceError for a case that the host's memory cannot hold, before a voxel is read.

    Headers that cannot be read are left to those who read the images.
    """
    pet, ct = read_header(pet_path), read_header(ct_path)
    if pet is not None and ct is not None:
        check_size(ct, pet, descriptions)


def check_size(
    ct: sitk.Image | sitk.ImageFileReader,
    pet: sitk.Image | sitk.ImageFileReader,
    descriptions: Sequence[Description],
) -> None:
    """Raise ResourceError for a CT and a PET, or their headers, whose case the host's memory cannot hold."""
    limit = host_limit_bytes()
    if limit is None:
        return
    voxels = math.prod(pet.GetSize())
    spacing = descriptions[0].spacing or pet.GetSpacing()
    size = CaseSize(
        pet_voxels=voxels,
        own_ct_voxels=math.prod(ct.GetSize()) if ct.GetSize() != pet.GetSize() else 0,
        grid_voxels=voxels * float(np.prod(pet.GetSpacing()) / np.prod(spacing)),
        inputs=len({each.preparation for each in descriptions}),
        window_voxels=max(math.prod(each.patch) for each in descriptions),
    )
    if size.bytes_needed > limit:
        with_ct = f" with a CT of {geometry_text(ct)}" if size.own_ct_voxels else ""
        raise ResourceError(
            f"a PET of {geometry_text(pet)}{with_ct} needs about {size.bytes_needed / 2**30:.1f} GiB of memory, "
            f"but only {limit / 2**30:.1f} GiB may be used; give more memory, crop the images, or check their "
            "headers"
        )
