"""``python -m algorithm``: what the container runs, and the same on files."""

from __future__ import annotations

from collections.abc import Sequence

from algorithm import console
from algorithm.console import Command

PROGRAM = "python -m algorithm"
DESCRIPTION = """\
Segments tumours in PET/CT. Progress goes to stdout. A mistake ends in one sentence on stderr and exit code 2
(input) or 3 (installation); a cohort with bad cases ends in exit code 4 when the others are done. Every option can
also be given in the environment, by the name that help shows; the command line goes first."""

COMMANDS = {
    "run": Command(
        "Segment the grand-challenge job in an input folder",
        "algorithm.options:add_run",
        "algorithm.commands.jobs:run",
        f"{PROGRAM} run --input test/input --output output",
        prints_result=False,
    ),
    "serve": Command(
        "Segment a job whenever grand-challenge's invoke API asks",
        "algorithm.options:add_serve",
        "algorithm.commands.jobs:serve",
        f"{PROGRAM} serve --input input --output output",
        prints_result=False,
    ),
    "predict": Command(
        "Segment a study (a DICOM folder, or a CT and a PET file) or a whole cohort",
        "algorithm.options:add_predict",
        "algorithm.commands.predict:predict",
        f"{PROGRAM} predict STUDY_FOLDER result",
        prints_result=False,
    ),
    "suv": Command(
        "Convert the PET of a DICOM folder to SUV and say how it was reckoned",
        "algorithm.options:add_suv",
        "algorithm.commands.suv:suv",
        f"{PROGRAM} suv DICOM_FOLDER SUV.nii.gz",
    ),
    "preflight": Command(
        "Check device, memory and weights without a case, or an image before its upload",
        "algorithm.options:add_preflight",
        "algorithm.commands.installation:preflight",
        f"{PROGRAM} preflight --device cpu",
    ),
    "weights": Command(
        "Import or verify checkpoints",
        "algorithm.options:add_weights",
        "algorithm.commands.installation:weights",
        f"{PROGRAM} weights verify weights/h2aseg.json",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    default = "serve" if console.is_to_serve(arguments) else "run"
    return console.main(PROGRAM, DESCRIPTION, COMMANDS, arguments, default=default)


if __name__ == "__main__":
    raise SystemExit(main())
