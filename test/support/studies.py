"""Small PET/CT studies in DICOM, made for the tests of the clinic's commands: synthetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from test.support.dicom import Edit, Maker

HOT = 8.0


def write_study(
    folder: Path,
    name: str = "study",
    *,
    maker: Maker | None = None,
    hot: float = HOT,
    pet_edit: Edit | None = None,
    ct: bool = True,
    ct_frame: str = "",
) -> Path:
    """Write ``folder/ct`` and ``folder/pet``: a cylinder of SUV 1 in air with a hot ball; the CT is finer.

    The CT's slices and pixels have half the PET's distance.
    """
    maker = maker or Maker(study=name, spacing=(6.0, 5.0, 5.0), origin=(-100.0, -80.0, -60.0))
    maker.pet(folder / "pet", np.rint(_suv((20, 32, 40), hot) * 1800).astype(np.int16), slopes=2.0, edit=pet_edit)
    if ct:
        fine = Maker(
            study=maker.study,
            orientation=maker.orientation,
            spacing=(maker.spacing[0] / 2, maker.spacing[1] / 2, maker.spacing[2] / 2),
            origin=maker.origin,
            frame_of_reference=ct_frame,
        )
        fine.ct(folder / "ct", np.where(_suv((40, 64, 80), hot) > 0, 40, -1000).astype(np.int16))
    return folder


def _suv(shape: tuple[int, int, int], hot: float) -> NDArray[np.float64]:
    z, y, x = (np.arange(side).reshape(np.roll((-1, 1, 1), axis)) / side for axis, side in enumerate(shape))
    body = ((y - 0.5) / 0.4) ** 2 + ((x - 0.5) / 0.4) ** 2 < 1
    ball = (z - 0.5) ** 2 + (y - 0.45) ** 2 + (x - 0.6) ** 2 < 0.12**2
    return np.where(ball, hot, np.where(body & (z >= 0), 1.0, 0.0))
