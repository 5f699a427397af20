"""``python -m training crossvalidate``: train k folds, segment each patient by the network that never saw them."""

from __future__ import annotations

import argparse
import logging
from functools import partial
from pathlib import Path

from algorithm.cases import Case
from training.anatomies import leaders_of, split_anatomies
from training.blend import write_blend
from training.fold_scores import Row, score_fold
from training.options import CrossValidationOptions, parsed_as
from training.parallel import Processes
from training.preparation import PreparedData, stored_folds
from training.score_tables import table, write_case_list, write_reports
from training.session import open_session
from training.splits import Split, fold_split
from training.start import check_never_saw, end_of_earlier_fold

log = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> int:
    """Run all folds, then write ``scores.csv``, ``scores.json``, ``table.md`` and ``cases.csv``."""
    options = parsed_as(CrossValidationOptions, args)
    training, out = options.training, options.training.data.out
    with open_session(training) as session:
        initial = training.network.init
        if initial:
            folds = [f"fold_{fold}" for fold in range(options.folds)]
            for each in [initial / fold / "last.json" for fold in folds] if initial.is_dir() else [initial]:
                session.check_start(each, *(out / fold for fold in folds))
            if not initial.is_dir():
                check_never_saw(initial, training.data.cases[0])
        data = session.prepare_data()
        rows: list[Row] = []
        held_back: list[Case] = []
        for fold, split in enumerate(folds_of(data, options.folds, training.recipe.seed)):
            log.info("fold %d of %d: %d patients held back", fold, options.folds, len(split.test))
            start = end_of_earlier_fold(initial, fold, split) if initial and initial.is_dir() else initial
            name = f"{out.resolve().name}-fold-{fold}"
            run = session.train(name, data, split, out / f"fold_{fold}", start)
            if not run.finished:
                return 0
            checkpoint = run.checkpoint
            if start and options.blend < 1:
                checkpoint = part_of_the_way(start, checkpoint, options.blend, session.processes)
            cases = held_back_cases(data, split)
            held_back += cases
            rows += score_fold(
                fold,
                checkpoint,
                cases,
                training.recipe.augmentation.possible(options.flips),
                session.device,
                training.recipe.precision,
                session.processes,
            )
        if session.processes.is_first:
            write_reports(rows, out)
            write_case_list(held_back, out / "cases.csv")
            print(f"\n{table(rows)}\n\nevery patient: {out / 'scores.csv'}", flush=True)
    return 0


def part_of_the_way(start: Path, last: Path, share: float, processes: Processes) -> Path:
    """Return the checkpoint ``blend``, beside the last one, at a share of the way from a fold's start to it."""
    if processes.is_first:
        write_blend(start, [last], share, last.parent, "blend")
    processes.wait()
    return last.with_name("blend.json")


def folds_of(data: PreparedData, folds: int, seed: int) -> list[Split]:
    """Return the folds of the first data folder; the patients of the other folders train in each.

    An nnU-Net ``splits_final.json`` in the first folder is used if it has this many folds. A synthetic body does
    not train where the patient whose organs it shows, or another body of his, is held back.
    """
    dataset, cache = data.datasets[0], data.caches[0]
    splits = stored_folds(dataset, cache, folds) or [
        split_anatomies(cache, partial(fold_split, fold=fold, folds=folds, seed=seed)) for fold in range(folds)
    ]
    leader = leaders_of(case for each in data.caches for case in each.cases)
    others = sorted({case.patient for other in data.caches[1:] for case in other.cases})
    joined = []
    for split in splits:
        held_back = {leader[patient] for patient in split.test}
        train = (*split.train, *(patient for patient in others if leader[patient] not in held_back))
        joined.append(Split(train=train, test=split.test))
    return joined


def held_back_cases(data: PreparedData, split: Split) -> list[Case]:
    """Return the usable cases of the first data folder whose patients are held back."""
    usable = {case.name for case in data.caches[0].of(split.test)}
    return [case for case in data.datasets[0].cases if case.name in usable]
