"""The run report: what a run did, in JSON; it is not written unless asked for."""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from algorithm import __version__
from algorithm.description import Description, WeightsUsed
from algorithm.files import written_whole
from algorithm.inference.case_run import Prediction
from algorithm.inference.device import device_name, peak_memory_mib, precision_of
from algorithm.inference.tuning import Tuning
from algorithm.lesions import Burden, MeasuredLesion, Totals
from algorithm.outputs import RUN_REPORT, Kind, written_as
from algorithm.reading import DicomSource, ReadCase


@dataclass(frozen=True)
class Geometry:
    """The PET's grid: size in voxels (x, y, z), spacing and origin in mm, direction cosines row by row."""

    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    origin_mm: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> Geometry:
        """Return the grid of an image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


@dataclass(frozen=True)
class SeriesUsed:
    """A DICOM series by SeriesInstanceUID, SeriesNumber and SeriesDescription, and how many slices it has."""

    uid: str
    number: str
    description: str
    slices: int


@dataclass(frozen=True)
class RunReport:
    """All that is needed to tell what a run did and to do it again.

    Attributes
    ----------
    software_version : str
    edition : str or None
        AutoPET edition of the job; None outside grand-challenge.
    ct, pet : str
        Input files.
    ct_resampled : bool
        The CT came on another grid than the PET.
    geometry : Geometry
        The PET's, and so the mask's.
    weights : tuple of WeightsUsed
        One per checkpoint of the ensemble.
    device, precision : str
    windows : int
        Sliding windows of the first flip, over all checkpoints.
    flip_windows : int
        Of each further flip; 0 where none was needed or asked for.
    passes : int
        Passes over the windows that were averaged: flips, the identity included, times checkpoints.
    passes_planned : int
    stopped_because : str
        Why there were no further passes.
    seconds : dict
        Wall-clock time by stage, in the order of the stages.
    peak_host_memory_mib : float
    peak_device_memory_mib : float or None
        None without an accelerator.
    lesions : tuple of MeasuredLesion
        Largest first.
    totals : Totals
        The patient's tumour burden.
    total_volume_ml : float
    notes : tuple of str
        Whatever was done differently than asked, one sentence each.
    ct_cover : float or None
        Share of the PET's body that the CT shows; None where nobody looked.
    series : dict or None
        The DICOM series that were taken, by "pet" and "ct"; None without DICOM.
    suv : dict or None
        How the SUVs were reckoned, the attributes of :class:`algorithm.dicom.reckoning.Reckoning`; None where the
        PET came in SUV.
    error : str or None
        Why the case failed and its mask is empty (``--on-error empty-mask``); None for every other.
    tuning : Tuning or None
        How the last pass's windows were computed; None where none were.
    """

    software_version: str
    edition: str | None
    ct: str
    pet: str
    ct_resampled: bool
    geometry: Geometry
    weights: tuple[WeightsUsed, ...]
    device: str
    precision: str
    windows: int
    flip_windows: int
    passes: int
    passes_planned: int
    stopped_because: str
    seconds: dict[str, float]
    peak_host_memory_mib: float
    peak_device_memory_mib: float | None
    lesions: tuple[MeasuredLesion, ...]
    totals: Totals
    total_volume_ml: float
    notes: tuple[str, ...] = ()
    ct_cover: float | None = None
    series: dict[str, SeriesUsed] | None = None
    suv: dict[str, object] | None = None
    error: str | None = None
    tuning: Tuning | None = None


@dataclass
class Stopwatch:
    """Seconds by stage, in the order of the stages."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside, to its end or to the error that ends it."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began


def report_of(
    case: ReadCase,
    descriptions: Sequence[Description],
    prediction: Prediction,
    burden: Burden,
    watch: Stopwatch,
    *,
    edition: str | None,
    notes: Sequence[str],
) -> RunReport:
    """Return the report of a case that has just been segmented."""
    device, pair, dicom = prediction.execution.device, case.pair, case.dicom
    return RunReport(
        software_version=__version__,
        edition=edition,
        ct=str(pair.ct_path),
        pet=str(pair.pet_path),
        ct_resampled=pair.ct_resampled,
        geometry=Geometry.of(pair.pet),
        weights=tuple(WeightsUsed(each.name, each.sha256) for each in descriptions),
        device=device_name(device),
        precision=precision_of(prediction.execution.dtype),
        windows=prediction.windows,
        flip_windows=prediction.flip_windows,
        passes=prediction.passes,
        passes_planned=prediction.passes_planned,
        stopped_because=prediction.stopped_because,
        seconds={name: round(seconds, 3) for name, seconds in watch.seconds.items()},
        peak_host_memory_mib=round(peak_host_memory_mib(), 1),
        peak_device_memory_mib=peak_memory_mib(device),
        lesions=burden.lesions,
        totals=burden.totals,
        total_volume_ml=burden.totals.mtv_ml,
        notes=tuple(notes),
        ct_cover=pair.findings.ct_cover,
        series=_series_of(dicom),
        suv=dicom.reckoning.as_dict() if dicom and dicom.reckoning else None,
        tuning=prediction.execution.tuning,
    )


def _series_of(dicom: DicomSource | None) -> dict[str, SeriesUsed] | None:
    if dicom is None:
        return None
    taken = {"pet": dicom.pet_series, "ct": dicom.ct_series}
    return {
        name: SeriesUsed(series.uid, series.number, series.description, len(series.slices))
        for name, series in taken.items()
        if series is not None
    }


def peak_host_memory_mib() -> float:
    """Return the largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB on Linux


def write_json(path: Path, value: Any, kind: Kind | None = None) -> None:
    """Write a JSON file whole.

    Raises
    ------
    OutputError
        It cannot be written, or what lies there is no earlier file of its kind (if that is named).
    """
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with written_as(path, kind) if kind else written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_report(path: Path, report: RunReport) -> None:
    """Write the run report as JSON, with the attributes' names as keys.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    write_json(path, dataclasses.asdict(report), RUN_REPORT)
