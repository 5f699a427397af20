"""How much of the body a series covers: its box in the patient's space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from algorithm.dicom.headers import number, numbers
from algorithm.dicom.series import VOLUME, Series

_POINTS = 24  # along each side of the PET's box


def height_mm(series: Series) -> float:
    """Return how far a series reaches along the body's axis (z), mm."""
    _, edges = _box(series)
    return float(np.abs(edges[2]).sum())


def covered(pet: Series, ct: Series) -> float:
    """Return the share of a PET's box that lies in a CT's; 0 for a CT that is not axial or has no box."""
    if ct.kind != VOLUME or not ct.axial:
        return 0.0
    (corner, edges), (pet_corner, pet_edges) = _box(ct), _box(pet)
    if not np.isfinite([edges, pet_edges]).all() or np.linalg.matrix_rank(edges) < 3:
        return 0.0
    along = (np.arange(_POINTS) + 0.5) / _POINTS
    points = np.stack(np.meshgrid(along, along, along)).reshape(3, -1)
    places = np.linalg.solve(edges, pet_edges @ points + (pet_corner - corner)[:, np.newaxis])
    return float(((places >= 0) & (places <= 1)).all(axis=0).mean())


def _box(series: Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a corner and, as columns, the edges along rows, columns and slices, mm, patient space (x, y, z; LPS).

    In the plane from edge to edge of the pixels; along the normal from the first slice's centre to the last's.
    """
    header, first = series.header, np.array(series.slices[0].position)
    row_step, column_step = numbers(header, "PixelSpacing", 2) or (0.0, 0.0)
    steps = np.array([column_step, row_step, 0.0])
    thick = float(series.normal @ (np.array(series.slices[-1].position) - first))
    sides = steps * (number(header, "Columns") or 0.0, number(header, "Rows") or 0.0, 0.0) + (0.0, 0.0, thick)
    axes = np.column_stack([series.orientation[:3], series.orientation[3:], series.normal])
    return first - axes @ steps / 2, axes * sides
