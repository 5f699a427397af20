"""One case from start to end: read -> prepare -> predict -> mask -> guide."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from algorithm.callcache import CallCache, Seen, geometry_of, key_of
from algorithm.checks.contract import Checks
from algorithm.description import check_ensemble
from algorithm.guidance import Guided, guide
from algorithm.images import PetCt
from algorithm.inference.budget import Budget, TooSlowError
from algorithm.inference.case_run import Prediction
from algorithm.inference.device import choose_device, choose_dtype, forget_peak_memory
from algorithm.inference.execution import Execution
from algorithm.inference.focus import Focus
from algorithm.inference.passes import NetworkInput
from algorithm.inference.predictor import Predictor
from algorithm.inference.progress import Progress
from algorithm.lesions import Burden, MeasuredLesion, measure_burden
from algorithm.limits import Coarsening, check_memory, check_size, seconds_after_prediction
from algorithm.preprocessing import Prepared, prepare, restore
from algorithm.reading import DicomChoice, ReadCase, read_case
from algorithm.report import RunReport, Stopwatch, report_of
from algorithm.scribbles import Scribbles
from algorithm.segmentation import mask_on, prepare_case, segment_prepared
from algorithm.weights import Checkpoint, build_network

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InferenceSettings:
    """How to segment a case; all that belongs to the data is in the checkpoint's description instead.

    Attributes
    ----------
    flips : int or None
        Exactly so many of the mirrorings that the weights know, 1 being none, however long they take; None: as
        many as fit the time limit, all of them without one.
    everywhere : bool
        Let every flip take all windows; else those after the first take windows where they can change the mask.
    overlap : float or None
        Of neighbouring windows; None: the checkpoint's.
    time_limit_s : float or None
        From the moment that :meth:`Segmenter.segment` is given.
    whole_volume : bool
        Let windows cover the air around the patient too.
    no_checks : tuple of str
        Checks of the input contract (:data:`algorithm.checks.contract.CONTRACT`) that are not done.
    """

    flips: int | None = None
    everywhere: bool = True
    overlap: float | None = None
    time_limit_s: float | None = None
    whole_volume: bool = False
    no_checks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """A segmented case.

    Attributes
    ----------
    mask : uint8 array, z, y, x
        0 and 1 on the PET's grid.
    case : ReadCase
        What was segmented.
    burden : Burden
        The mask's lesions, numbered and measured.
    report : RunReport
    """

    mask: NDArray[np.uint8]
    case: ReadCase
    burden: Burden
    report: RunReport

    @property
    def pair(self) -> PetCt:
        """CT and PET on the PET's grid."""
        return self.case.pair

    @property
    def lesions(self) -> tuple[MeasuredLesion, ...]:
        """The lesions, largest first."""
        return self.burden.lesions


class Segmenter:
    """Checkpoints on a device, loaded once for as many cases as come; of a case nothing stays.

    Parameters
    ----------
    checkpoints : sequence of Checkpoint
        Several are averaged; they must share spacing, orientation, flip axes, threshold and
        postprocessing.
    device : str
        ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
    precision : str
        ``auto``, ``float32``, ``bfloat16`` or ``float16``.
    require_gpu : bool
        Refuse to run on a CPU.

    Raises
    ------
    UserError
        The checkpoints do not belong together, or the device does not do; the message says what to do.

    Attributes
    ----------
    descriptions : tuple of Description
    device : torch.device
    precision : str
        As it was asked for.
    predictor : Predictor
    """

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        device: str = "auto",
        precision: str = "auto",
        *,
        require_gpu: bool = False,
    ) -> None:
        self.descriptions = tuple(each.description for each in checkpoints)
        check_ensemble(self.descriptions)
        self.device = choose_device(device, require_gpu=require_gpu)
        self.precision = precision
        networks = [build_network(each) for each in checkpoints]
        dtype = choose_dtype(precision, self.device)
        proved = [each.precision.allowed for each in self.descriptions]
        self.predictor = Predictor(networks, self.device, dtype, proved)

    def warm_up(self) -> Execution:
        """Send windows of air through every network, so that no case pays for the loading of kernels.

        Returns
        -------
        Execution
            How they were computed: with less memory than asked where the device has no more.
        """
        patches = [each.patch for each in self.descriptions]
        x, y, z = (max(sides) for sides in zip(*patches, strict=True))
        air = torch.zeros(x, y, z * self.predictor.execution.batch)
        inputs = [NetworkInput(air, air, patch, overlap=0.0) for patch in patches]
        return self.predictor.predict(inputs, Budget(), flips=1, progress=Progress(logging.DEBUG)).execution

    def segment(
        self,
        ct: Path,
        pet: Path,
        settings: InferenceSettings | None = None,
        *,
        edition: str | None = None,
        started: float | None = None,
        progress: Progress | None = None,
        scribbles: Scribbles | None = None,
        cache: CallCache | None = None,
        choice: DicomChoice | None = None,
        keep_ct: bool = False,
    ) -> Result:
        """Segment the tumours of one PET/CT pair.

        Parameters
        ----------
        ct, pet : Path
            HU and SUV, or folders of DICOM files; a CT on another grid is resampled onto the PET's.
        settings : InferenceSettings, optional
        edition : str, optional
            For the report.
        started : float, optional
            Moment from which the time limit counts, on the clock of ``time.monotonic``; by default this call.
        progress : Progress, optional
        scribbles : Scribbles, optional
            By which the network's mask is corrected.
        cache : CallCache, optional
            Keeps what the network saw for the next call with the same case.
        choice, keep_ct
            As :func:`algorithm.reading.read_case` takes them.

        Raises
        ------
        UserError
            Images, memory or time do not allow it; the message says what to do.
        """
        settings, progress = settings or InferenceSettings(), progress or Progress()
        started = time.monotonic() if started is None else started
        watch = Stopwatch()
        forget_peak_memory(self.device)
        with watch.stage("read"):
            case = self._read(ct, pet, settings, choice, keep_ct, progress)
        pair, notes = case.pair, _notes_on(case)
        seen = self.look(pair, settings, started=started, watch=watch, progress=progress, cache=cache)
        with watch.stage("postprocess"):
            mask = mask_on(seen.prediction.probability, seen.grid, pair.pet, self.descriptions[0])
        notes += seen.prediction.notes
        if scribbles:
            with watch.stage("guide"):
                guided = guide_case(mask, seen, pair, scribbles)
            mask, notes = guided.mask, [*notes, *guided.notes]
        with watch.stage("postprocess"):
            burden = measure_burden(mask, pair.pet)
        report = report_of(case, self.descriptions, seen.prediction, burden, watch, edition=edition, notes=notes)
        return Result(mask, case, burden, report)

    def _read(
        self,
        ct: Path,
        pet: Path,
        settings: InferenceSettings,
        choice: DicomChoice | None,
        keep_ct: bool,
        progress: Progress,
    ) -> ReadCase:
        """Return the case, read and checked, unless the memory that there is could not hold it."""
        check_memory(ct, pet, self.descriptions)
        checks = Checks.but(settings.no_checks)
        case = read_case(ct, pet, choice, keep_ct=keep_ct, checks=checks, say=progress.say)
        if case.dicom is not None:  # whose size no header of a file tells
            check_size(case.own_ct, case.pair.pet, self.descriptions)
        return case

    def look(
        self,
        pair: PetCt,
        settings: InferenceSettings,
        *,
        started: float | None = None,
        watch: Stopwatch | None = None,
        progress: Progress | None = None,
        cache: CallCache | None = None,
    ) -> Seen:
        """Return the case as the network sees it, or saw it in an earlier call; takes what `segment` does."""
        started = time.monotonic() if started is None else started
        watch, progress, key = watch or Stopwatch(), progress or Progress(logging.DEBUG), None
        if cache is not None and cache.usable:
            with watch.stage("cache"):
                key = self.key(pair, settings)
                seen = cache.find(key, self.predictor.execution)
            if seen is not None:
                progress.say("the network saw this case in an earlier call; its probability is used again")
                return seen
        prepared, prediction = self._predict_in_time(pair, settings, started, watch, progress)
        seen = Seen(prediction, geometry_of(prepared.grid))
        if key is not None and cache is not None:
            with watch.stage("cache"):
                cache.keep(key, seen)
        return seen

    def key(self, pair: PetCt, settings: InferenceSettings) -> str:
        """Return the hash of all that decides what the network sees, but for the time that there was for it.

        Of how it is computed the device's kind and the number format count. What tuning chooses besides can differ
        from one start of a server to the next, and changes no more than the order of sums.
        """
        execution = self.predictor.execution
        how = (
            settings.flips,
            settings.everywhere,
            settings.overlap,
            settings.whole_volume,
            settings.no_checks,
            execution.device.type,
            str(execution.dtype),
        )
        return key_of((pair.ct_path, pair.pet_path), how, [each.identity for each in self.descriptions])

    def _predict_in_time(
        self, pair: PetCt, settings: InferenceSettings, started: float, watch: Stopwatch, progress: Progress
    ) -> tuple[Prepared, Prediction]:
        """Prepare and predict, on ever coarser grids until one pass fits the time limit."""
        # A number of flips that was asked for is done however long it takes.
        limit_s = settings.time_limit_s if settings.flips is None else None
        budget = Budget.of_limit(limit_s, seconds_after_prediction(pair.pet.GetNumberOfPixels()), started)
        grid = Coarsening()
        window_s: Sequence[float] = ()
        focus = None if settings.everywhere else Focus.about(self.descriptions[0].threshold)
        while True:
            with watch.stage("prepare"):
                descriptions = [grid.applied_to(each) for each in self.descriptions]
                case = prepare_case(
                    descriptions,
                    partial(prepare, pair),
                    overlap=settings.overlap,
                    whole_volume=settings.whole_volume,
                )
            try:
                with watch.stage("predict"):
                    prediction = segment_prepared(
                        self.predictor,
                        case,
                        budget,
                        flips=settings.flips,
                        focus=focus,
                        progress=progress,
                        window_s=window_s,
                    )
            except TooSlowError as error:
                left_s, window_s = budget.remaining_s, error.window_s
                spacing = case.prepared.grid.GetSpacing()
                del case  # before the next one is made
                grid = grid.further(spacing, limit_s, error, left_s)
                progress.say(f"{error}; voxels {grid.factor:.2f} times as long are tried")
                continue
            return case.prepared, dataclasses.replace(prediction, notes=(*grid.notes, *prediction.notes))


def guide_case(mask: NDArray[np.uint8], seen: Seen, pair: PetCt, scribbles: Scribbles) -> Guided:
    """Return a case's mask, uint8 z, y, x, as the scribbles correct it."""
    return guide(
        mask,
        np.concatenate(list(restore(seen.prediction.probability, seen.grid, pair.pet))),
        sitk.GetArrayViewFromImage(pair.pet),
        sitk.GetArrayViewFromImage(pair.ct),
        pair.pet.GetSpacing(),
        scribbles,
    )


def _notes_on(case: ReadCase) -> list[str]:
    """Return what the report says of the images; what is odd about them is said aloud too."""
    notes = list(case.dicom.notes) if case.dicom else []
    odd = [*(case.dicom.odd if case.dicom else ()), *case.pair.findings.notes]
    for note in odd:
        _log.warning(note)
    if case.pair.ct_resampled:
        notes.append("the CT was resampled onto the PET's grid")
    return list(dict.fromkeys([*notes, *odd]))
