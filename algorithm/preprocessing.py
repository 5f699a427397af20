"""From a PET/CT pair to the network's input and back; every number comes from the checkpoint's description.

Images and their arrays are z, y, x (SimpleITK); the network's arrays are x, y, z. :func:`prepare_on_grid` and
:func:`restore` are the only places where one turns into the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from algorithm.description import Description, Normalisation
from algorithm.images import AIR_HU, PetCt

Box = tuple[slice, slice, slice]

_BODY_HU = -400.0  # between lung and soft tissue, so that skin closes the outline and lungs are filled
_BODY_SUV = 0.15  # a limb outside the CT's field of view still shows in the PET
_BODY_STEP_MM = 8.0  # the outline is found on a grid about this coarse
_BODY_SHARE = 0.1  # a piece this large beside the largest belongs to the patient: the other leg, an arm
_SLAB_VOXELS = 2**24  # 64 MiB of float32: what restoring the probability holds at a time


@dataclass(frozen=True)
class Prepared:
    """A case as the network takes it.

    Attributes
    ----------
    ct, pet : float32 array, x, y, z
        Normalised, on the network's grid.
    ct_outside, pet_outside : float
        What air without uptake has become: what lies outside the image.
    grid : SimpleITK.Image
        Geometry of that grid; its voxels are the resampled SUV.
    body : Box
        Smallest box, in x, y, z, that holds the patient: windows need not cover more.
    matter : bool array, x, y, z
        Where there may be tumour, from :func:`matter_mask`; elsewhere is air.
    """

    ct: NDArray[np.float32]
    pet: NDArray[np.float32]
    ct_outside: float
    pet_outside: float
    grid: sitk.Image
    body: Box
    matter: NDArray[np.bool_]


def prepare(pair: PetCt, description: Description) -> Prepared:
    """Resample and normalise a pair as the checkpoint was trained."""
    grid = resample(pair.pet, description.spacing, orientation=description.orientation)
    ct = resample(pair.ct, description.spacing, orientation=description.orientation, outside=AIR_HU)
    return prepare_on_grid(sitk.GetArrayFromImage(ct), grid, description)


def prepare_on_grid(ct: NDArray[np.float32], grid: sitk.Image, description: Description) -> Prepared:
    """Find the patient in a pair that lies on the network's grid already, and normalise it.

    Parameters
    ----------
    ct : float32 array, z, y, x
        HU.
    grid : SimpleITK.Image
        SUV.
    description : Description
        Its spacing and orientation are not asked.
    """
    pet = sitk.GetArrayFromImage(grid)
    body = body_mask(pet, ct, grid.GetSpacing())
    matter = matter_mask(pet, ct, grid.GetSpacing())
    ct = normalise(ct, description.ct, body)
    pet = normalise(pet, description.pet, body)
    return Prepared(
        ct=np.ascontiguousarray(ct.transpose(2, 1, 0)),
        pet=np.ascontiguousarray(pet.transpose(2, 1, 0)),
        ct_outside=value_outside(AIR_HU, description.ct, ct),
        pet_outside=value_outside(0.0, description.pet, pet),
        grid=grid,
        body=bounding_box(body.transpose(2, 1, 0)),
        matter=matter.transpose(2, 1, 0),
    )


def restore(probability: NDArray[np.float32], grid: sitk.Image, pet: sitk.Image) -> Iterator[NDArray[np.float32]]:
    """Bring a probability from the network's grid onto the PET's, slab by slab.

    Parameters
    ----------
    probability : float32 array, x, y, z
        On ``grid``.
    grid, pet : SimpleITK.Image
        Geometries; :attr:`Prepared.grid` and the case's PET.

    Yields
    ------
    float32 array, z, y, x
        Consecutive slabs of axial slices of the PET, first slice first; linear interpolation.
    """
    image = sitk.GetImageFromArray(probability.transpose(2, 1, 0))
    image.CopyInformation(grid)
    width, height, depth = pet.GetSize()
    slices = max(1, _SLAB_VOXELS // (width * height))
    for first in range(0, depth, slices):
        slab = slice(first, min(first + slices, depth))
        yield resample_onto(image, pet, (slab, slice(0, height), slice(0, width)))


def resample_onto(image: sitk.Image, like: sitk.Image, box: Box) -> NDArray[np.float32]:
    """Interpolate an image linearly onto a part of another's grid; 0 outside the image.

    Parameters
    ----------
    image, like : SimpleITK.Image
    box : Box
        Of the voxels of ``like``, z, y, x.

    Returns
    -------
    float32 array, z, y, x
    """
    z, y, x = box
    part: NDArray[np.float32] = sitk.GetArrayFromImage(
        sitk.Resample(
            image,
            (x.stop - x.start, y.stop - y.start, z.stop - z.start),
            sitk.Transform(),
            sitk.sitkLinear,
            like.TransformIndexToPhysicalPoint((x.start, y.start, z.start)),
            like.GetSpacing(),
            like.GetDirection(),
            0.0,
            sitk.sitkFloat32,
        )
    )
    return part


def resample(
    image: sitk.Image,
    spacing: tuple[float, float, float] | None,
    *,
    orientation: str | None = "LPS",
    linear: bool = True,
    outside: float = 0.0,
) -> sitk.Image:
    """Turn an image's axes to the patient's and interpolate it at another spacing.

    The new grid starts at the same outer corner and reaches at least as far; nothing is rotated.

    Parameters
    ----------
    image : SimpleITK.Image
        3-D; the pixel type is kept.
    spacing : three floats or None
        In mm along the turned x, y, z; None keeps the image's own.
    orientation : str or None
        Patient axes that x, y, z are turned to; None leaves them.
    linear : bool
        False: nearest neighbour, for label maps.
    outside : float
        Value of voxels whose centre lies outside the image (at most one layer).
    """
    if orientation is not None and not linear:  # of two voxels equally near, the turned image's first is taken
        image, orientation = sitk.DICOMOrient(image, orientation), None
    turned = _turned(image, orientation)
    old = np.array(turned.spacing)
    if spacing is None or np.allclose(old, spacing, atol=1e-4):
        return image if orientation is None else sitk.DICOMOrient(image, orientation)
    new = np.array(spacing, dtype=float)
    size = np.ceil(np.array(turned.size) * old / new - 1e-3).astype(int).clip(1)
    direction = np.array(turned.direction).reshape(3, 3)
    origin = np.array(turned.origin) + direction @ ((new - old) / 2)
    return sitk.Resample(
        image,
        size.tolist(),
        sitk.Transform(),
        sitk.sitkLinear if linear else sitk.sitkNearestNeighbor,
        origin.tolist(),
        new.tolist(),
        turned.direction,
        outside,
        image.GetPixelID(),
    )


@dataclass(frozen=True)
class _Geometry:
    """Of an image, as SimpleITK names its parts."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


def _turned(image: sitk.Image, orientation: str | None) -> _Geometry:
    """Return the geometry of an image whose axes are turned to the patient's; no voxel is moved for it."""
    if orientation is None:
        return _Geometry(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    voxel = sitk.Image((1, 1, 1), sitk.sitkUInt8)
    voxel.SetSpacing(image.GetSpacing())
    voxel.SetDirection(image.GetDirection())
    voxel = sitk.DICOMOrient(voxel, orientation)
    old, new = (np.array(each.GetDirection()).reshape(3, 3) for each in (image, voxel))
    cosines = old.T @ new
    source = np.abs(cosines).argmax(axis=0)  # which of the image's axes each of the turned ones is
    first = [0, 0, 0]
    for axis, came_from in enumerate(source):
        if cosines[came_from, axis] < 0:
            first[came_from] = image.GetSize()[came_from] - 1
    size = tuple(image.GetSize()[came_from] for came_from in source)
    return _Geometry(size, voxel.GetSpacing(), image.TransformIndexToPhysicalPoint(first), voxel.GetDirection())


def normalise(
    values: NDArray[np.float32], how: Normalisation, body: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """Turn HU or SUV into the network's input.

    Parameters
    ----------
    values : float32 array
        A volume, or for the two kinds that measure nothing (``clip-scale``, ``z-score-stored``) any part of one.
    how : Normalisation
    body : bool array or None
        The patient, of the same shape; only ``z-score-body`` asks for it.

    Returns
    -------
    float32 array
        A new array of the same shape.

    Raises
    ------
    ValueError
        ``z-score-body`` without a body.
    """
    out = np.clip(values, how.low, how.high) if how.low is not None or how.high is not None else values.copy()
    if how.kind == "clip-scale":
        low, high = _given(how.low), _given(how.high)
        shift, scale = low, high - low
    elif how.kind == "z-score-stored":
        shift, scale = _given(how.mean), _given(how.std)
    else:
        if how.kind == "z-score-body" and body is None:
            raise ValueError("z-score-body needs the body mask")
        measured = out[body] if how.kind == "z-score-body" and body is not None and body.any() else out
        shift, scale = float(measured.mean(dtype=np.float64)), float(measured.std(dtype=np.float64)) or 1.0
    out -= np.float32(shift)
    out /= np.float32(scale)
    return out


def value_outside(value: float, how: Normalisation, volume: NDArray[np.float32]) -> float:
    """Return what a value (HU or SUV) became in a normalised volume; its least where it was measured on itself."""
    if how.measures_image:
        return float(volume.min())
    return float(normalise(np.array([value], np.float32), how, None)[0])


def _given(value: float | None) -> float:
    assert value is not None, "Normalisation checks this"
    return value


def bounding_box(mask: NDArray[np.bool_]) -> Box:
    """Return the smallest box that holds a 3-D mask, in the order of its axes; one corner voxel if it is empty."""
    box = []
    for axes in ((1, 2), (0, 2), (0, 1)):
        occupied = np.flatnonzero(mask.any(axis=axes))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else slice(0, 1))
    return box[0], box[1], box[2]


def body_mask(
    pet: NDArray[np.float32], ct: NDArray[np.float32], spacing: tuple[float, ...] = (4.0, 4.0, 4.0)
) -> NDArray[np.bool_]:
    """Find the patient: the large connected pieces of tissue, lungs included, a thin table left out.

    Parameters
    ----------
    pet, ct : float32 array, z, y, x
        SUV and HU.
    spacing : three floats
        In mm, x, y, z.

    Returns
    -------
    bool array, z, y, x
        Everything where no tissue is found, so that nothing is lost by a strange CT.
    """
    tissue = _coarse_tissue(pet, ct, spacing)
    if not tissue.any():
        return np.ones(ct.shape, dtype=bool)
    opened = ndimage.binary_opening(tissue, iterations=1) if min(tissue.shape) > 4 else tissue
    labels, count = ndimage.label(opened if opened.any() else tissue)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return _outline((sizes >= _BODY_SHARE * sizes.max())[labels], ct.shape, spacing)


def matter_mask(
    pet: NDArray[np.float32], ct: NDArray[np.float32], spacing: tuple[float, ...] = (4.0, 4.0, 4.0)
) -> NDArray[np.bool_]:
    """Tell what is not air: any tissue or uptake however small, 16 mm around it, and what it encloses in a slice.

    Wider than :func:`body_mask`: a hand that hangs by nothing and the table belong to it. A network that learned
    from crops of patients may see anything in a window of air.

    Parameters
    ----------
    pet, ct : float32 array, z, y, x
        SUV and HU.
    spacing : three floats
        In mm, x, y, z.

    Returns
    -------
    bool array, z, y, x
        Everything where no tissue is found.
    """
    tissue = _coarse_tissue(pet, ct, spacing)
    return _outline(tissue, ct.shape, spacing) if tissue.any() else np.ones(ct.shape, dtype=bool)


def _coarse_tissue(
    pet: NDArray[np.float32], ct: NDArray[np.float32], spacing: tuple[float, ...]
) -> NDArray[np.bool_]:
    """Return where tissue or uptake is, on a grid of about 8 mm."""
    coarse = tuple(slice(step // 2, None, step) for step in _body_steps(spacing))
    tissue: NDArray[np.bool_] = (ct[coarse] > _BODY_HU) | (pet[coarse] > _BODY_SUV)
    return tissue


def _outline(coarse: NDArray[np.bool_], shape: tuple[int, ...], spacing: tuple[float, ...]) -> NDArray[np.bool_]:
    """Return, on the fine grid, what the coarse mask and two voxels around it enclose in each axial slice."""
    fine = ndimage.binary_dilation(coarse, iterations=2)
    for axial in fine:
        ndimage.binary_fill_holes(axial, output=axial)
    for axis, step in enumerate(_body_steps(spacing)):
        fine = np.repeat(fine, step, axis=axis)
    missing = [(0, max(0, want - have)) for want, have in zip(shape, fine.shape, strict=True)]
    return np.pad(fine, missing, mode="edge")[tuple(slice(side) for side in shape)]


def _body_steps(spacing: tuple[float, ...]) -> list[int]:
    """Return every how many voxels, along z, y, x, the outline of the body is looked for."""
    return [max(1, round(_BODY_STEP_MM / step)) for step in reversed(spacing)]
