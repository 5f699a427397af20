"""Play the interactive editions' loop: scribbles drawn from the truth, masks from the product, scores per step."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from algorithm.cases import WHERE_CASES_LIE, Case, list_cases
from algorithm.errors import MissingInputError, UsageError
from algorithm.options import check_passes
from algorithm.outputs import SOFTWARE, written_as
from algorithm.weights import find_checkpoints, load_checkpoint
from evaluation.interactive.container import InContainer
from evaluation.interactive.loop import KIND_CHOICES, MIXED, STEPS, Played, Segment, kinds_of, play
from evaluation.interactive.network import InProcess
from evaluation.interactive.results import draw, table, to_content, to_rows
from evaluation.outputs import LOOP_CSV, LOOP_JSON, PLOT, make_way
from evaluation.scoring.score import csv_text, to_json, write_text

JSON_NAME, CSV_NAME, PLOT_NAME = "interact.json", "interact.csv", "interact.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``python -m evaluation interact``."""
    parser.add_argument("--cases", type=Path, required=True, help=f"cases with truth: {WHERE_CASES_LIE}")
    parser.add_argument("--weights", type=Path, help="checkpoint or folder of them (default: the installed ones)")
    parser.add_argument(
        "--image",
        metavar="NAME",
        help="play against this Docker image, a container per call, instead of in process",
    )
    parser.add_argument(
        "--edition", choices=STEPS, default="V", help="whose loop and rules (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, help="predictions of a case, the first without scribbles (6 in V, 11 in IV)"
    )
    parser.add_argument(
        "--kind", choices=KIND_CHOICES, default=MIXED, help="of the lines that V draws (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: %(default)s)")
    parser.add_argument(
        "--device",
        default="auto",
        help="auto, cpu or cuda; of an --image, only cuda gives it the GPUs (default: %(default)s)",
    )
    parser.add_argument("--flips", type=int, default=1, help="passes that are averaged (default: %(default)s)")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep the network's probabilities from run to run"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help=f"for {JSON_NAME}, {CSV_NAME} and {PLOT_NAME}"
    )


def main(args: argparse.Namespace) -> int:
    """Play all cases, print the table and write the files; returns the exit code."""
    steps = STEPS[args.edition] if args.steps is None else args.steps
    if steps < 2:
        raise UsageError(f"--steps must be at least 2, got {steps}; the first prediction has no scribbles yet")
    if args.seed < 0:
        raise UsageError(f"--seed must not be negative, got {args.seed}")
    check_passes(args.flips, None)
    if args.image is not None and (args.weights is not None or args.cache is not None or args.flips != 1):
        raise UsageError("--weights, --flips and --cache are those of this process; leave them out beside --image")
    kinds = {JSON_NAME: LOOP_JSON, CSV_NAME: LOOP_CSV, PLOT_NAME: PLOT}
    make_way([(args.out / name, kind) for name, kind in kinds.items()], [args.cases])
    cases = _with_truth(args.cases)
    game = {"edition": args.edition, "kind": args.kind, "seed": args.seed}
    if args.image is None:
        checkpoints = [load_checkpoint(path) for path in find_checkpoints(args.weights)]
        player = InProcess(checkpoints, device=args.device, flips=args.flips, cache=args.cache)
        played = play_all(cases, player, steps=steps, **game)
        about = {"weights": [each.description.sha256 for each in checkpoints], "flips": args.flips}
    else:
        with InContainer(args.image, edition=args.edition, gpus=args.device == "cuda") as container:
            played = play_all(cases, container, steps=steps, **game)
        about = {"image": args.image, "image_id": container.image_id}
    print(table(played))
    content = to_content(played, **game, **about)
    write_text(args.out / JSON_NAME, to_json(content), LOOP_JSON)
    write_text(args.out / CSV_NAME, csv_text(to_rows(played)), LOOP_CSV)
    with written_as(args.out / PLOT_NAME, PLOT) as temporary:
        draw(played, args.edition).savefig(temporary, format="png", dpi=120, metadata={"Software": SOFTWARE})
    print(f"wrote {JSON_NAME}, {CSV_NAME} and {PLOT_NAME} to {args.out}")
    return 0


def play_all(
    cases: Sequence[Case], segment: Segment, *, edition: str, kind: str, steps: int, seed: int
) -> list[Played]:
    """Play the cases one after the other, a line of progress for each.

    This is the seam for other players than the network in this process: anything that is a
    :data:`~evaluation.interactive.loop.Segment`.
    """
    kinds = kinds_of(cases, kind, seed)
    played = []
    for number, case in enumerate(cases, start=1):
        one = play(case, segment, edition=edition, kind=kinds[case.name], steps=steps, seed=seed)
        played.append(one)
        dice = " ".join(f"{value:.3f}" for value in one.values("dice"))
        print(f"case {number} of {len(cases)}: {case.title}, {one.kind}, Dice {dice}", flush=True)
        for failure in {step.failure for step in one.steps if step.failure}:
            print(f"  a call failed: {failure}", flush=True)
    return played


def _with_truth(source: Path) -> list[Case]:
    cases = list_cases(source)
    without = [case.name for case in cases if case.truth is None]
    if without:
        raise MissingInputError(
            f"{len(without)} cases in {source} have no truth to draw scribbles from, first {without[0]}; "
            "give their truth or leave them out"
        )
    return cases
