"""An empty mask in place of one that could not be made: ``--on-error empty-mask``.

A challenge may count a missing case worse than an empty one. Weights or devices that are not there fail as always:
they are no case's fault, and would turn a whole submission into empty masks.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

import numpy as np

from algorithm import __version__
from algorithm.description import WeightsUsed
from algorithm.errors import UserError
from algorithm.images import PetCt
from algorithm.inference.device import precision_of
from algorithm.job import Result, Segmenter
from algorithm.lesions import measure_burden
from algorithm.reading import ReadCase, grid_of
from algorithm.refusals import as_user_error
from algorithm.report import Geometry, RunReport, peak_host_memory_mib

_log = logging.getLogger(__name__)


def empty_result(ct: Path, pet: Path, segmenter: Segmenter, error: Exception, *, edition: str) -> Result:
    """Return a result without tumour for a case that could not be segmented.

    Parameters
    ----------
    ct, pet : Path
        The case's images.
    segmenter : Segmenter
        It failed on the case.
    error : Exception
        What it failed of; a bug's stack trace is logged.
    edition : str
        For the report.

    Raises
    ------
    Exception
        The error itself, where not even the PET's geometry is known.
    """
    try:
        grid = grid_of(pet)
        mask = np.zeros(grid.GetSize()[::-1], np.uint8)
    except (UserError, MemoryError, RuntimeError):
        raise error from None
    known = error if isinstance(error, UserError) else as_user_error(error)
    if known is None:
        _log.warning("".join(traceback.format_exception(error)))
    sentence = " ".join((str(known) if known else f"{type(error).__name__}: {error}").split())
    note = f"no tumour was looked for, and the mask is empty, because this case failed: {sentence}"
    burden = measure_burden(mask, grid)
    report = RunReport(
        software_version=__version__,
        edition=edition,
        ct=str(ct),
        pet=str(pet),
        ct_resampled=False,
        geometry=Geometry.of(grid),
        weights=tuple(WeightsUsed(each.name, each.sha256) for each in segmenter.descriptions),
        device=str(segmenter.device),
        precision=precision_of(segmenter.predictor.execution.dtype),
        windows=0,
        flip_windows=0,
        passes=0,
        passes_planned=0,
        stopped_because="the case failed",
        seconds={},
        peak_host_memory_mib=round(peak_host_memory_mib(), 1),
        peak_device_memory_mib=None,
        lesions=(),
        totals=burden.totals,
        total_volume_ml=0.0,
        notes=(note,),
        error=sentence,
    )
    return Result(mask, ReadCase(PetCt(grid, grid, ct, pet, ct_resampled=False), grid, None), burden, report)
