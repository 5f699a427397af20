"""The product in this process as the other side of the loop: one network pass per case, then guidance alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.callcache import CallCache
from algorithm.cases import Case
from algorithm.errors import OutputError
from algorithm.guidance import guide
from algorithm.images import PetCt, read_pet_ct
from algorithm.job import InferenceSettings, Segmenter
from algorithm.jsonfile import read_json
from algorithm.preprocessing import restore
from algorithm.scribbles import parse_scribbles
from algorithm.segmentation import mask_on
from algorithm.weights import Checkpoint


@dataclass(frozen=True)
class Seen:
    """A case after the network; arrays z, y, x on the PET's grid.

    Attributes
    ----------
    mask : uint8 array
        Without any scribble.
    probability : float32 array
        Of tumour, 0 in air.
    suv, ct : float32 array
    spacing : tuple of float
        mm, x, y, z.
    """

    mask: NDArray[np.uint8]
    probability: NDArray[np.float32]
    suv: NDArray[np.float32]
    ct: NDArray[np.float32]
    spacing: tuple[float, ...]


class InProcess:
    """Segments a case and guides its mask by the scribbles; see :data:`evaluation.interactive.loop.Segment`.

    Parameters
    ----------
    checkpoints : sequence of Checkpoint
    device : str
    flips : int
    cache : Path or None
        Folder that keeps probabilities from run to run, by the bytes of the images and all that the weights say.
    """

    def __init__(
        self, checkpoints: Sequence[Checkpoint], *, device: str = "auto", flips: int = 1, cache: Path | None = None
    ) -> None:
        self.checkpoints = checkpoints
        self.segmenter = Segmenter(checkpoints, device)
        self.settings = InferenceSettings(flips=flips)
        self.cache = cache
        self._last: tuple[Case, Seen] | None = None

    def __call__(self, case: Case, scribbles: Path) -> NDArray[np.uint8]:
        """Return the mask of a case as the scribbles in a file correct it."""
        seen = self.see(case)
        drawn = parse_scribbles(read_json(scribbles, "the clicks file"), str(scribbles))
        return guide(seen.mask, seen.probability, seen.suv, seen.ct, seen.spacing, drawn).mask

    def see(self, case: Case) -> Seen:
        """Return the case after the network, which runs only if this is another case than the last one."""
        if self._last is None or self._last[0] != case:
            self._last = case, self._see(case)
        return self._last[1]

    def _see(self, case: Case) -> Seen:
        pair = read_pet_ct(case.ct, case.pet)
        looked = self.segmenter.look(pair, self.settings, cache=self._cache_of(pair))
        probability = looked.prediction.probability
        return Seen(
            mask_on(probability, looked.grid, pair.pet, self.checkpoints[0].description),
            np.concatenate(list(restore(probability, looked.grid, pair.pet))),
            sitk.GetArrayFromImage(pair.pet),
            sitk.GetArrayFromImage(pair.ct),
            pair.pet.GetSpacing(),
        )

    def _cache_of(self, pair: PetCt) -> CallCache | None:
        """Return the case's own folder in the cache, which forgets other cases as soon as it keeps one."""
        if self.cache is None:
            return None
        folder = self.cache / self.segmenter.key(pair, self.settings)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot keep probabilities in {self.cache}: {error.strerror or error}; choose another --cache"
            ) from error
        return CallCache(folder)
