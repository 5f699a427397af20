"""A synthetic torso with four lesions: the test input, its truth, and what they are made of.

It is synthetic: ellipsoids with realistic CT numbers and uptake values, blurred and noisy. It shows that the
software runs, and nothing of how well it segments patients.

``python -m test.support.phantom`` writes ``test/input`` and ``test/input_truth``; the same files every time.
"""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

HERE = Path(__file__).resolve().parent.parent
INPUT = HERE / "input"
TRUTH = HERE / "input_truth" / "synthetic_torso.mha"

CT_NAME = str(uuid.uuid5(uuid.NAMESPACE_OID, "synthetic torso, CT"))
PET_NAME = str(uuid.uuid5(uuid.NAMESPACE_OID, "synthetic torso, PET"))

SIZE = (110, 90, 80)
SPACING = (4.07283, 4.07283, 3.0)
ORIGIN = (-221.9692, 165.2411, -903.5)
DIRECTION = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)

SEED = 20240314
PET_STEP = 0.0625  # SUV; rounding makes the float32 file compressible
CT_STEP = 4  # HU

Volume = NDArray[np.float32]


@dataclass(frozen=True)
class Torso:
    """CT in HU, PET in SUV and the lesions' mask, on one grid.

    The mask covers the whole of each lesion with its necrotic centre, as the contours of the real patients do.
    """

    ct: sitk.Image
    pet: sitk.Image
    truth: sitk.Image


@dataclass(frozen=True)
class Ellipsoid:
    """Centre and half axes in mm; axes are left, front and up, from the body's centre."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]


@dataclass(frozen=True)
class Organ:
    shape: Ellipsoid
    hu: float
    suv: float


@dataclass(frozen=True)
class Lesion:
    shape: Ellipsoid
    hu: float
    suv: float
    necrosis: Ellipsoid | None = None


LUNGS = (
    Organ(Ellipsoid((-75, 5, 75), (58, 80, 105)), -820, 0.5),
    Organ(Ellipsoid((75, 5, 75), (56, 80, 105)), -820, 0.5),
)
ORGANS = (
    Organ(Ellipsoid((-62, 15, -42), (82, 72, 52)), 60, 2.3),  # liver
    Organ(Ellipsoid((92, -25, -38), (32, 38, 42)), 50, 1.9),  # spleen
    Organ(Ellipsoid((55, 45, -45), (42, 32, 40)), 35, 1.4),  # stomach
    Organ(Ellipsoid((28, 30, 42), (46, 42, 48)), 45, 2.5),  # heart
    Organ(Ellipsoid((-58, -48, -98), (27, 24, 48)), 35, 4.0),  # right kidney
    Organ(Ellipsoid((58, -48, -94), (27, 24, 48)), 35, 4.0),  # left kidney
    Organ(Ellipsoid((12, -30, 0), (11, 11, 400)), 45, 1.8),  # aorta
)
LESIONS = (
    Lesion(Ellipsoid((-85, 10, 82), (14, 14, 14)), 40, 9.0),  # lung
    Lesion(Ellipsoid((-80, 30, -40), (16, 15, 15)), 45, 10.0),  # liver
    Lesion(Ellipsoid((-14, 15, 98), (9, 8, 9)), 40, 7.0),  # mediastinal node
    Lesion(  # mass in the left flank
        Ellipsoid((128, 5, -75), (19, 23, 21)), 45, 12.0, necrosis=Ellipsoid((128, 5, -75), (9, 11, 10))
    ),
)
MUSCLE_SUV, FAT_SUV, SKIN_SUV, BONE_SUV, NECROSIS_SUV = 0.7, 0.3, 0.6, 1.2, 1.5
MUSCLE_HU, FAT_HU, SKIN_HU, MARROW_HU, CORTEX_HU, DISC_HU, NECROSIS_HU = 55, -100, 20, 180, 600, 80, 15
AIR_HU, COUCH_HU = -1000, -300


def make_torso(seed: int = SEED) -> Torso:
    """Make the torso; the seed changes the noise alone."""
    left, front, up = _axes()
    ct = np.full(SIZE[::-1], AIR_HU, np.float32)
    pet = np.zeros(SIZE[::-1], np.float32)

    def fill(where: NDArray[np.bool_], hu: float, suv: float) -> None:
        where = np.broadcast_to(where, ct.shape)
        ct[where], pet[where] = hu, suv

    waist = 1 - 0.08 * np.cos(np.clip((up + 60) / 90, -np.pi, np.pi))
    depth = np.hypot(left / (168 * waist), front / (112 * waist))  # 1 on the skin
    fill(depth < 1, SKIN_HU, SKIN_SUV)
    fill(depth < 0.97, FAT_HU, FAT_SUV)
    fill(depth < 0.90, MUSCLE_HU, MUSCLE_SUV)
    fill(depth < 0.78, FAT_HU, FAT_SUV)
    fill((depth < 0.78) & (up > -20), MUSCLE_HU, MUSCLE_SUV)
    for organ in LUNGS + ORGANS:
        fill(_inside(organ.shape), organ.hu, organ.suv)
    rib = (depth > 0.80) & (depth < 0.85) & (np.mod(up + 0.35 * front, 26) < 8) & (up > -60)
    fill(rib, CORTEX_HU * 0.6, BONE_SUV)
    spine = np.hypot(left / 22, (front + 68) / 18)
    fill(spine < 1, CORTEX_HU, BONE_SUV)
    fill((spine < 0.85) & (np.mod(up, 30) < 25), MARROW_HU, BONE_SUV)
    fill((spine < 0.85) & (np.mod(up, 30) >= 25), DISC_HU, MUSCLE_SUV)
    fill(np.hypot(left / 9, (front + 92) / 7) < 1, MARROW_HU, BONE_SUV)  # spinous processes

    truth = np.zeros(ct.shape, bool)
    for lesion in LESIONS:
        fill(_inside(lesion.shape), lesion.hu, lesion.suv)
        truth |= _inside(lesion.shape)
        if lesion.necrosis is not None:
            fill(_inside(lesion.necrosis), NECROSIS_HU, NECROSIS_SUV)
    fill((front < -122) & (front > -134) & (np.abs(left) < 200), COUCH_HU, 0)

    rng = np.random.default_rng(seed)
    body = np.broadcast_to(depth < 1.02, ct.shape)
    return Torso(
        ct=_image(_scan_ct(ct, body, rng)),
        pet=_image(_scan_pet(pet, body, rng)),
        truth=_image(truth.astype(np.uint8)),
    )


def write_torso(torso: Torso, input_dir: Path = INPUT, truth: Path = TRUTH) -> None:
    """Write the pair as an AutoPET job's input, and the truth elsewhere."""
    for image, path in (
        (torso.ct, input_dir / "images/ct" / f"{CT_NAME}.mha"),
        (torso.pet, input_dir / "images/pet" / f"{PET_NAME}.mha"),
        (torso.truth, truth),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=9)


def _axes() -> tuple[Volume, Volume, Volume]:
    """Return each voxel's place in mm, left, front and up of the body's centre; they broadcast to z, y, x.

    The grid's y axis runs to the front, since its direction has -1 there.
    """
    left, front, up = (
        (np.arange(side, dtype=np.float32) - (side - 1) / 2) * step
        for side, step in zip(SIZE, SPACING, strict=True)
    )
    return left[None, None, :], front[None, :, None] - 15, up[:, None, None]


def _inside(shape: Ellipsoid) -> NDArray[np.bool_]:
    squares = (
        ((axis - centre) / radius) ** 2
        for axis, centre, radius in zip(_axes(), shape.centre, shape.radii, strict=True)
    )
    return np.asarray(sum(squares) < 1)


def _scan_ct(hu: Volume, body: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int16]:
    """Add partial volume and noise, round to whole steps."""
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, np.float32), 0.7) * 25
    seen = ndimage.gaussian_filter(hu, 0.5) + noise * body
    return np.asarray(np.round(seen / CT_STEP) * CT_STEP, np.int16)


def _scan_pet(suv: Volume, body: NDArray[np.bool_], rng: np.random.Generator) -> Volume:
    """Blur with a scanner's 6 mm, add noise that grows with the square root of the uptake, round."""
    sigma_voxels = [6 / 2.355 / step for step in SPACING[::-1]]
    blurred = ndimage.gaussian_filter(suv, sigma_voxels)
    noise = ndimage.gaussian_filter(rng.standard_normal(suv.shape, np.float32), sigma_voxels)
    seen = blurred + 0.12 / noise.std() * noise * np.sqrt(blurred) * body
    return np.asarray(np.round(np.maximum(seen, 0) / PET_STEP) * PET_STEP, np.float32)


def _image(array: NDArray[np.generic]) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    image.SetDirection(DIRECTION)
    return image


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m test.support.phantom", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=SEED, help="of the noise")
    torso = make_torso(parser.parse_args(arguments).seed)
    write_torso(torso)
    for folder in (INPUT, TRUTH.parent):
        for path in sorted(folder.rglob("*.mha")):
            print(f"{path.relative_to(HERE.parent)}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
