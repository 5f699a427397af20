"""``python -m evaluation``: judges masks, shows them, and hands them over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from algorithm import console
from algorithm.console import Command

PROGRAM = "python -m evaluation"
DESCRIPTION = (
    "Scores tumour masks by each AutoPET edition's rules, compares methods, draws, and makes hand-over bundles."
)


def _command(module: str, purpose: str, example: str, *, needs: str = "requirements.txt", **more: Any) -> Command:
    path = f"evaluation.{module}"
    return Command(purpose, f"{path}:add_arguments", f"{path}:main", f"{PROGRAM} {example}", needs, **more)


_TRAIN = "requirements-train.txt"  # which has matplotlib
_EVAL = "requirements-eval.txt"  # which has grand-challenge-metrics
_BUG_IN_VERIFY = 70  # EX_SOFTWARE of sysexits.h: 1 is a verdict

COMMANDS = {
    "score": _command(
        "scoring.score",
        "Score masks against the truth by an edition's rules",
        "score --prediction masks --truth labels --edition III --json metrics.json",
    ),
    "compare": _command(
        "scoring.compare",
        "Compare several folders of masks: means, tests, confidence intervals",
        "compare --prediction ours=masks --prediction theirs=others --truth labels --markdown comparison.md",
    ),
    "rank": _command(
        "scoring.rank",
        "Rank several submissions as an edition does",
        "rank --prediction ours=ours.csv --prediction theirs=theirs.csv --edition II",
    ),
    "lesions": _command(
        "scoring.lesions",
        "Count the lesions found by size and the false positives by organ",
        "lesions --cases bodies --prediction masks",
    ),
    "container": _command(
        "container",
        "Score a phase as a grand-challenge evaluation container, once",
        "container --input input --truth ground_truth --output output --edition V",
        needs=_EVAL,
        prints_result=False,
    ),
    "serve": Command(
        "Score a phase whenever grand-challenge's invoke API asks",
        "evaluation.container:add_serve_arguments",
        "evaluation.container:serve_evaluation",
        f"{PROGRAM} serve --edition V",
        _EVAL,
        prints_result=False,
    ),
    "interact": _command(
        "interactive.interact",
        "Play the interactive editions' loop with simulated scribbles",
        "interact --cases studies --weights weights/h2aseg.json --out interact",
        needs=_TRAIN,
    ),
    "emphasis": _command(
        "figures.emphasis",
        "Report how strongly the network weights PET and CT",
        "emphasis --cases studies --weights weights/h2aseg.json --out emphasis",
        needs=_TRAIN,
    ),
    "pictures": _command(
        "figures.pictures",
        "Draw error maps",
        "pictures --cases studies --prediction masks --out pictures",
        needs=_TRAIN,
    ),
    "cohort": _command(
        "figures.cohort",
        "Write one page with a cohort's table, distributions and pictures",
        "cohort --scores scores.csv --out cohort.html",
    ),
    "handover": _command(
        "handover.make", "Make a hand-over bundle", "handover --cases test/cases.csv --out bundle --flips 8"
    ),
    "verify": _command(
        "handover.verify",
        "Repeat a hand-over bundle's inference and give a verdict",
        "verify bundle --input test",
        bug=_BUG_IN_VERIFY,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    default = "serve" if console.is_to_serve(arguments) else "container"
    return console.main(PROGRAM, DESCRIPTION, COMMANDS, arguments, default=default)


if __name__ == "__main__":
    raise SystemExit(main())
