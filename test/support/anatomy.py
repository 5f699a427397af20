"""A schematic organ map for bodies that need none of a patient's."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from synthesis.body import Tissue

# label: centres and semi-axes in mm, x (to the left), y (to the back), z (to the head), of a schematic adult
ORGANS = {
    Tissue.LUNG: [((-75, 0, 620), (55, 85, 115)), ((75, 0, 620), (52, 85, 115))],
    Tissue.HEART: [((18, -35, 585), (55, 45, 55))],
    Tissue.LIVER: [((-65, -15, 490), (75, 75, 60))],
    Tissue.SPLEEN: [((105, 35, 500), (25, 40, 45))],
    Tissue.STOMACH: [((55, -45, 490), (45, 35, 40))],
    Tissue.KIDNEY: [((-62, 40, 415), (26, 26, 52)), ((62, 40, 425), (26, 26, 52))],
    Tissue.BLADDER: [((0, -10, 165), (35, 35, 30))],
    Tissue.PROSTATE: [((0, 5, 125), (18, 16, 14))],
    Tissue.GLAND: [((-48, 0, 820), (12, 14, 22)), ((48, 0, 820), (12, 14, 22))],
    Tissue.BRAIN: [((0, -10, 925), (66, 80, 62))],
}


def schematic_map(direction: tuple[float, ...] = (1, 0, 0, 0, -1, 0, 0, 0, 1)) -> sitk.Image:
    """Ten ellipsoids where a body's organs lie, on a grid as AutoPET's (y turned round)."""
    spacing = np.array((5.0, 5.0, 6.0))
    size = np.array((130, 110, 168))
    turned = np.array(direction).reshape(3, 3)
    x, y, z = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    middle = (size - 1) / 2 * spacing
    from_middle = [(a * s - m) * d for a, s, m, d in zip((x, y, z), spacing, middle, np.diag(turned), strict=True)]
    from_middle[2] = from_middle[2] + middle[2]
    labels = np.zeros(size, np.uint8)
    for label, bodies in ORGANS.items():
        for centre, axes in bodies:
            inside = sum(((p - c) / a) ** 2 for p, c, a in zip(from_middle, centre, axes, strict=True)) < 1
            labels[inside & ((labels == 0) | (labels == Tissue.LUNG))] = label
    image = sitk.GetImageFromArray(labels.transpose(2, 1, 0))
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction)
    image.SetOrigin((-300.0, 210.0, -700.0))
    return image
