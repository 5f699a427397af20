"""Studies with contours, read one after the other."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from algorithm.cases import Case, Layout, Study, find_cases, read_study, reason
from algorithm.description import Description
from algorithm.errors import UserError
from algorithm.formats.volume import files_of
from algorithm.images import PetCt
from algorithm.preprocessing import prepare
from algorithm.segmentation import EnsembleCase, prepare_case

log = logging.getLogger(__name__)


def read_studies(folder: Path, layout: Layout | None) -> Iterator[tuple[Case, Study]]:
    """Yield the studies below a folder or in a list; those that cannot be read are named and left out.

    Raises
    ------
    MissingInputError
        There is no case.
    """
    found = find_cases(folder, layout)
    for skipped in found.skipped:
        log.warning("skipped %s: %s", skipped.name, skipped.reason)
    for case in found.cases:
        try:
            study = read_study(case)
        except UserError as error:
            log.warning("skipped %s: %s", case.name, why_left_out(error, case))
            continue
        yield case, study


def stamps_of(images: Iterable[Path]) -> list[list[int]]:
    """Return size and time of change of every file that these images are made of, detached voxels included."""
    stamps = []
    for image in images:
        try:
            files = files_of(image)
        except OSError:  # it cannot be opened, which whoever reads it says
            files = [image]
        stamps += [[about.st_size, about.st_mtime_ns] for about in (path.stat() for path in files)]
    return stamps


def why_left_out(error: UserError, case: Case) -> str:
    """Return an error's sentence without the case's folders, and without an option that training has not."""
    return re.sub(r",? or use --no-checks \w+", "", reason(error, case))


def prepare_study(case: Case, study: Study, how: Description) -> EnsembleCase:
    """Return a study as the network of one checkpoint takes it."""
    pair = PetCt(study.ct, study.pet, case.ct, case.pet, ct_resampled=False)
    return prepare_case([how], partial(prepare, pair))
