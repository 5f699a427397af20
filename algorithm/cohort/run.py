"""Segmenting a cohort, case by case."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from algorithm.cases import Case
from algorithm.cohort.record import RECORD_NAME, Record, is_done, key_of, write_record
from algorithm.cohort.share import Share
from algorithm.cohort.tables import COHORT_NAME, LESIONS_NAME, remove_tables, write_tables
from algorithm.console import INTERRUPTED
from algorithm.errors import UserError
from algorithm.files import claimed, sha256_of
from algorithm.inference.progress import Progress, between_bars_s
from algorithm.job import InferenceSettings, Segmenter
from algorithm.outputs import CASE_RECORD, check_free
from algorithm.refusals import as_user_error
from algorithm.results import NAMES, Wanted, clear_results, nameless_failure, remove_results, write_results

_log = logging.getLogger(__name__)

_QUIET = Progress(logging.DEBUG)
_NAMED = 5  # of the cases that failed, in the last sentence


class CohortError(UserError):
    """Cases of a cohort could not be segmented; the others were."""

    exit_code = 4


class InterruptedCohortError(UserError):
    """The user ended a cohort after the running case."""

    exit_code = INTERRUPTED


@dataclass(frozen=True)
class Cohort:
    """What is to be done.

    Attributes
    ----------
    cases : sequence of Case
        Sorted by name, the same in every process.
    out : Path
        Gets a folder per case and the tables.
    settings : InferenceSettings
        The time limit is that of each case.
    wanted : Wanted
        Which results each case gets.
    """

    cases: Sequence[Case]
    out: Path
    settings: InferenceSettings
    wanted: Wanted


def run_cohort(cohort: Cohort, segmenter: Segmenter, share: Share) -> None:
    """Segment the cases of this process's share that are not done yet; the first process writes the tables.

    Parameters
    ----------
    cohort : Cohort
    segmenter : Segmenter
    share : Share

    Raises
    ------
    CohortError
        Cases of this share failed.
    InterruptedCohortError
        SIGINT came; the case that ran then was finished.
    UserError
        The results' folder cannot be written, something else lies where a case's record goes, or what all cases
        need is missing.
    """
    for case in cohort.cases:
        cohort.wanted.decided(case.pet)  # what is missing for one is missing for all: said before hours pass
        check_free(cohort.out / case.name / RECORD_NAME, CASE_RECORD)
    weights = [each.identity for each in segmenter.descriptions]
    how = (weights, str(segmenter.predictor.execution.dtype), cohort.settings, cohort.wanted)
    keys = {case.name: key_of((case.ct, case.pet), how) for case in cohort.cases}
    with claimed(cohort.out) if share.is_first else nullcontext():
        if share.is_first:
            remove_tables(cohort.out)
        share.wait()
        failed, interrupted = _segment_all(cohort, keys, segmenter, share)
        share.wait()
        if share.is_first:
            write_tables(cohort.out, list(keys), list(keys.values()))
        share.wait()
    _tell_the_end(cohort, failed, interrupted=interrupted)


def _segment_all(
    cohort: Cohort, keys: dict[str, str], segmenter: Segmenter, share: Share
) -> tuple[dict[str, str], bool]:
    """Do what is left of this process's share; return why which cases failed, and whether SIGINT came."""
    own = share.own(cohort.cases)
    todo = [case for case in own if not is_done(cohort.out / case.name, keys[case.name])]
    if len(todo) < len(own):
        _log.info("%d of %d cases are done already", len(own) - len(todo), len(own))
    failed: dict[str, str] = {}
    with _until_interrupted() as interrupted:
        for case in _with_bar(todo, shown=share.is_first):
            record = _segment(case, keys[case.name], cohort, segmenter)
            if record.error:
                failed[case.name] = record.error
            if interrupted():
                break
    return failed, interrupted()


def _segment(case: Case, key: str, cohort: Cohort, segmenter: Segmenter) -> Record:
    """Do one case, and record what became of it; only what ends the whole run is raised."""
    folder, inputs, began = cohort.out / case.name, (case.ct, case.pet), time.monotonic()
    error, files = "", {}
    try:
        clear_results(folder, inputs, [folder / RECORD_NAME])
        wanted = cohort.wanted.decided(case.pet)
        result = segmenter.segment(case.ct, case.pet, cohort.settings, progress=_QUIET, keep_ct=bool(wanted.page))
        write_results(folder, result, wanted)
        files = {name: sha256_of(folder / name) for name in NAMES if (folder / name).exists()}
        told = f"{result.report.total_volume_ml:.2f} ml in {len(result.lesions)} lesion(s)"
    except Exception as raised:
        sentence = _sentence(raised)
        error = told = nameless_failure(sentence, inputs) if cohort.wanted.anonymous else sentence
        remove_results(folder, inputs)
    record = Record(case.name, key, round(time.monotonic() - began, 3), error, files)
    write_record(folder, record)
    with tqdm.external_write_mode(file=sys.stdout):
        _log.info("%s: %s, %.1f s", case.name, told, record.seconds)
    return record


def _sentence(raised: Exception) -> str:
    known = raised if isinstance(raised, UserError) else as_user_error(raised)
    if known is None:
        _log.info("%s", "".join(traceback.format_exception(raised)))
        return f"{type(raised).__name__}: {raised}. This is a bug of this software; please report it"
    return " ".join(str(known).split())


def _with_bar(cases: Sequence[Case], *, shown: bool) -> Iterator[Case]:
    """Yield the cases while a bar shows how many are left and how long they will take."""
    yield from tqdm(
        cases,
        desc="cases",
        unit="case",
        file=sys.stdout,
        mininterval=between_bars_s(),
        disable=not (shown and _log.isEnabledFor(logging.INFO)),
    )


@contextmanager
def _until_interrupted() -> Iterator[Callable[[], bool]]:
    """Yield what tells whether SIGINT came; the second one ends the process at once, as ever.

    Where the process was started to ignore it, as a shell starts what runs in the background, it goes on doing so.
    """
    came = threading.Event()
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if ignored or threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return

    def note(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        came.set()
        _log.warning("ending after the case that runs now; interrupt once more to end at once")

    before = signal.signal(signal.SIGINT, note)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _tell_the_end(cohort: Cohort, failed: dict[str, str], *, interrupted: bool) -> None:
    table = cohort.out / COHORT_NAME
    print(f"tables: {table}, {cohort.out / LESIONS_NAME}", flush=True)
    for name, error in failed.items():
        print(f"failed: {name}: {error}", flush=True)
    if interrupted:
        raise InterruptedCohortError("interrupted after the running case; the same command goes on from there")
    if failed:
        names = ", ".join([*list(failed)[:_NAMED], *["..."] * (len(failed) > _NAMED)])
        raise CohortError(
            f"{len(failed)} of {len(cohort.cases)} cases could not be segmented ({names}); their reasons stand in "
            f"{table}; the same command tries them again"
        )
