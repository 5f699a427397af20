"""The one way from a prepared case to its mask: the product, training's validation and the figures all go it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor

from algorithm.description import Description
from algorithm.inference.budget import Budget
from algorithm.inference.case_run import Prediction
from algorithm.inference.focus import Focus
from algorithm.inference.passes import NetworkInput
from algorithm.inference.predictor import Predictor
from algorithm.inference.progress import Progress
from algorithm.inference.windows import Start, cut_box, fit_box, paste_box, window_on_volume
from algorithm.network.weighting import Gains
from algorithm.postprocessing import clean_mask
from algorithm.preprocessing import Box, Prepared
from algorithm.restoration import exceeding


@dataclass(frozen=True)
class EnsembleCase:
    """A case as the networks of an ensemble take it.

    Attributes
    ----------
    inputs : tuple of NetworkInput
        One per network: what lies in the box. Networks that want the same share it.
    box : Box
        The part of the grid that windows cover, x, y, z.
    prepared : Prepared
        The case as the first network wants it, whole.
    """

    inputs: tuple[NetworkInput, ...]
    box: Box
    prepared: Prepared


class WindowObserver(Protocol):
    """Looks on while windows are computed; knows them by the voxels of the case's grid, x, y, z, that they show.

    What is begun anew, for want of memory, is shown again; the last time counts.
    """

    def wants(self, window: Box) -> bool:
        """Tell whether a window is to be computed at all."""

    def see(self, window: Box, probability: Tensor, gains: Sequence[Gains]) -> None:
        """Take its tumour probability (H, W, D) and TAMW's gains (1, channels) of the decoder's levels 4 to 1."""


def prepare_case(
    descriptions: Sequence[Description],
    prepare_for: Callable[[Description], Prepared],
    *,
    overlap: float | None = None,
    whole_volume: bool = False,
) -> EnsembleCase:
    """Prepare a case for all networks of an ensemble; those that want the same share it.

    So the memory does not grow with their number.

    Parameters
    ----------
    descriptions : sequence of Description
        One per network; they share spacing and orientation (:func:`algorithm.description.check_ensemble`).
    prepare_for : callable
        Prepares the case as a description says.
    overlap : float or None
        Of neighbouring windows; None: each checkpoint's.
    whole_volume : bool
        Let windows cover the air around the patient too.
    """
    first = prepare_for(descriptions[0])
    shape = first.ct.shape
    largest = [max(sides) for sides in zip(*(each.patch for each in descriptions), strict=True)]
    box = fit_box([slice(0, side) for side in shape] if whole_volume else first.body, shape, largest)
    volumes: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
    inputs = []
    for each in descriptions:
        if each.preparation not in volumes:
            prepared = prepare_for(each) if volumes else first
            volumes[each.preparation] = (
                torch.from_numpy(cut_box(prepared.ct, box, largest, prepared.ct_outside)),
                torch.from_numpy(cut_box(prepared.pet, box, largest, prepared.pet_outside)),
            )
        steps = each.overlap if overlap is None else overlap
        inputs.append(NetworkInput(*volumes[each.preparation], each.patch, steps, each.flip_dimensions))
    return EnsembleCase(tuple(inputs), box, first)


def segment_prepared(
    predictor: Predictor,
    case: EnsembleCase,
    budget: Budget | None = None,
    *,
    flips: int | None = None,
    focus: Focus | None = None,
    progress: Progress | None = None,
    observer: WindowObserver | None = None,
    window_s: Sequence[float] = (),
) -> Prediction:
    """Return the tumour probability of a prepared case, on its whole grid; 0 where no window came, and in air.

    What lies in air, more than 16 mm from any tissue or uptake, is never called tumour: the network was trained on
    crops of bodies, and windows of air alone may show it anything.

    Parameters
    ----------
    predictor : Predictor
        Of the networks that the case was prepared for.
    case : EnsembleCase
    budget : Budget, optional
        Unlimited by default.
    flips, focus, progress, window_s
        As :meth:`algorithm.inference.predictor.Predictor.predict` takes them.
    observer : WindowObserver or None
        Only for networks of one patch.

    Raises
    ------
    TooSlowError, ResourceError, InvalidImageError
        As that method does.
    """
    watched = None if observer is None else _OnGrid(observer, case)
    prediction = predictor.predict(
        case.inputs,
        budget or Budget(),
        flips=flips,
        focus=focus,
        progress=progress,
        observer=watched,
        window_s=window_s,
    )
    whole = paste_box(prediction.probability, case.box, case.prepared.ct.shape)
    whole[~case.prepared.matter] = 0
    return dataclasses.replace(prediction, probability=whole)


def mask_on(
    probability: NDArray[np.float32], grid: sitk.Image, pet: sitk.Image, description: Description
) -> NDArray[np.uint8]:
    """Return the mask on the PET's grid: above the threshold, and cleaned.

    Parameters
    ----------
    probability : float32 array, x, y, z
        Of tumour, as :func:`segment_prepared` returns it.
    grid : SimpleITK.Image
        The probability's.
    pet : SimpleITK.Image
    description : Description
        Of the checkpoint: threshold and postprocessing.

    Returns
    -------
    uint8 array, z, y, x
    """
    mask = exceeding(probability, grid, pet, description.threshold).view(np.uint8)
    return clean_mask(mask, sitk.GetArrayViewFromImage(pet), pet.GetSpacing(), description.postprocessing)


@dataclass(frozen=True)
class _OnGrid:
    """Tells an observer of windows in the box where they lie on the case's grid."""

    observer: WindowObserver
    case: EnsembleCase

    def __post_init__(self) -> None:
        patches = sorted({each.patch for each in self.case.inputs})
        if len(patches) > 1:  # a window is known by where it starts, whichever network it is for
            raise ValueError(f"observed networks must share one patch, got {', '.join(map(str, patches))}")

    def wants(self, start: Start) -> bool:
        return self.observer.wants(self._window(start))

    def see(self, start: Start, probability: Tensor, gains: Sequence[Gains]) -> None:
        self.observer.see(self._window(start), probability, gains)

    def _window(self, start: Start) -> Box:
        volumes = self.case.inputs[0]
        return window_on_volume(start, volumes.patch, self.case.box, volumes.ct.shape)
