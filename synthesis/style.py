"""What differs from one synthetic body to the next besides chance in every voxel: build, scan and scanner.

| Drawn | Values |
|---|---|
| sides exchanged | half of the bodies |
| anatomy stretched | each axis by 0.88 to 1.15, standard deviation 5 % |
| legs beyond the organ map | none in 65 %, else 100 to 450 mm more |
| field of view | whole in 75 %, else 45 to 100 % of the height, anywhere |
| scanner's resolution | 4.5 to 9 mm full width at half maximum |
| noise in the liver | 4 to 35 %, median 10 % |
| SUV calibration | 0.88 to 1.15 |
| breath | up to 15 mm at the diaphragm, standard deviation 5 mm |
| patient moved between CT and PET | 25 %, up to 8 mm |
| hip prosthesis | 5 % |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

FWHM_TO_SIGMA = 1 / 2.3548


@dataclass(frozen=True)
class Style:
    """One body's draw; the default is a plain scan of the anatomy as it is.

    Attributes
    ----------
    mirrored : bool
        Left and right are exchanged.
    stretch : tuple of float
        Factor of the anatomy's size along x, y, z.
    more_leg_mm : float
        Appended below the organ map.
    view : tuple of float
        Lowest and highest height that is in the field of view, as shares of the whole.
    fwhm_mm : float
        Of the PET's point spread.
    noise : float
        Standard deviation over mean in the liver.
    calibration : float
        Factor of every SUV.
    breath_mm : float
        Shift of the PET along z at the diaphragm.
    motion_mm : tuple of float
        Shift of the PET along y and x.
    prosthesis : bool
        Metal in one hip.
    """

    mirrored: bool = False
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)
    more_leg_mm: float = 0.0
    view: tuple[float, float] = (0.0, 1.0)
    fwhm_mm: float = 6.5
    noise: float = 0.1
    calibration: float = 1.0
    breath_mm: float = 0.0
    motion_mm: tuple[float, float] = (0.0, 0.0)
    prosthesis: bool = False


def draw_style(rng: np.random.Generator) -> Style:
    """Draw a body's style."""
    x, y, z = np.clip(np.exp(rng.normal(0, 0.05, 3)), 0.88, 1.15)
    legs = float(rng.uniform(100, 450)) if rng.random() < 0.35 else 0.0
    height = float(rng.uniform(0.45, 1)) if rng.random() < 0.25 else 1.0
    lowest = float(rng.uniform(0, 1 - height))
    moved = rng.uniform(-8, 8, 2) if rng.random() < 0.25 else np.zeros(2)
    return Style(
        mirrored=bool(rng.random() < 0.5),
        stretch=(float(x), float(y), float(z)),
        more_leg_mm=legs,
        view=(lowest, lowest + height),
        fwhm_mm=float(rng.uniform(4.5, 9)),
        noise=float(np.clip(np.exp(rng.normal(np.log(0.10), 0.5)), 0.04, 0.35)),
        calibration=float(np.clip(np.exp(rng.normal(0, 0.07)), 0.88, 1.15)),
        breath_mm=float(np.clip(rng.normal(0, 5), -15, 15)),
        motion_mm=(float(moved[0]), float(moved[1])),
        prosthesis=bool(rng.random() < 0.05),
    )


def shaped(organs: sitk.Image, style: Style) -> sitk.Image:
    """Return an organ map (LPS) with the style's sides and legs; its stretch and field of view are the caller's.

    Parameters
    ----------
    organs : SimpleITK.Image
        uint8, x to the left, y to the back, z to the head.
    style : Style
    """
    if style.mirrored:
        geometry = organs
        organs = sitk.Flip(organs, [True, False, False])
        organs.CopyInformation(geometry)
    step = organs.GetSpacing()[2]
    below = round(style.more_leg_mm / step)
    if below:
        organs = sitk.ConstantPad(organs, [0, 0, below], [0, 0, 0], 0)
    return organs


def in_view(slices: int, style: Style) -> slice:
    """Return which of so many axial slices, from the lowest, are in the field of view; 16 at least."""
    first, last = (round(share * slices) for share in style.view)
    return slice(min(first, max(0, slices - 16)), max(last, first + 16))
