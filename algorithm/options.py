"""The options of ``python -m algorithm``'s commands; imports nothing slow, so that help answers at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from algorithm.checks.contract import CHECK_NAMES
from algorithm.errors import UsageError
from algorithm.inference.augmentation import MOST_FLIPS
from algorithm.parser import Parser


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``serve``: those of ``run``, and where to listen."""
    add_run(parser)
    parser.add_argument("--host", default="0.0.0.0", metavar="NAME", help="Address to listen at.")
    parser.add_argument("--port", type=int, default=4743, metavar="N", help="Port to listen at.")
    parser.add_argument(
        "--tune-s",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="Before the first job, try at most so long which way of computing windows is fastest here; 0: not at "
        "all.",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``run``."""
    parser.add_argument(
        "--input", type=Path, default=Path("/input"), metavar="DIR", help="Folder with the job's sockets."
    )
    parser.add_argument(
        "--output", type=Path, default=Path("/output"), metavar="DIR", help="Folder for the results."
    )
    parser.add_argument(
        "--edition",
        metavar="NAME",
        help="AutoPET edition: I, II, III, IV or V. By default it is recognised from the input.",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("/cache"),
        metavar="DIR",
        help="Where the interactive editions keep a case between its calls, if the folder exists.",
    )
    parser.add_argument(
        "--on-error",
        choices=("fail", "empty-mask"),
        default="fail",
        metavar="WHAT",
        help="What becomes of a case that cannot be segmented: fail, or empty-mask: write a mask without tumour, "
        "say so, and succeed. Images that cannot be read, weights and devices fail all the same.",
    )
    _add_inference(parser)


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``predict``."""
    parser.usage = (
        "%(prog)s [OPTION ...] STUDY_FOLDER OUT_FOLDER\n"
        "       %(prog)s [OPTION ...] CT PET OUT_FOLDER\n"
        "       %(prog)s [OPTION ...] --cases LIST_OR_TREE OUT_FOLDER"
    )
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="A study's folder of DICOM files, or a CT (HU) and a PET (SUV), each a file (.mha, .mhd, .nii, "
        ".nii.gz, .nrrd) or a folder of DICOM files; last the folder for the results.",
    )
    parser.add_argument(
        "--cases",
        type=Path,
        metavar="LIST_OR_TREE",
        help="Segment every case of a CSV (case, ct, pet) or folder: AutoPET, nnU-Net, HECKTOR, jobs, DICOM "
        "studies. The same command goes on where it was stopped.",
    )
    _add_results(parser)
    _add_dicom(parser, ct=True)
    _add_inference(parser)


def add_suv(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``suv``."""
    parser.add_argument("folder", type=Path, metavar="DICOM_FOLDER", help="With one PET series, or --pet-series.")
    parser.add_argument("out", type=Path, metavar="OUT", help="New file: .nii.gz, .nii, .mha or .nrrd.")
    _add_dicom(parser, ct=False)


def add_preflight(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``preflight``."""
    parser.add_argument(
        "image",
        nargs="?",
        metavar="IMAGE_OR_TAR",
        help="Image of the Docker engine, or archive of `docker save`, to check as grand-challenge would. "
        "Without it, this machine is checked.",
    )
    _add_weights(parser)
    _add_device(parser)
    group = parser.add_argument_group("checking an image")
    group.add_argument(
        "--input",
        type=Path,
        metavar="DIR",
        help="Folder with a job to try. By default the example, brought to the size of a whole body.",
    )
    group.add_argument("--edition", metavar="NAME", help="AutoPET edition. By default recognised from the job.")
    group.add_argument(
        "--time-limit", type=float, metavar="SECONDS", help="The platform's, per job. By default the edition's."
    )
    group.add_argument("--memory-limit", type=float, default=30.0, metavar="GIB", help="The platform's, per job.")


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``weights import`` and ``weights verify``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    example = f"Example:\n  {parser.prog} "
    verify = actions.add_parser(
        "verify", help="Check files, names, shapes and sha256.", epilog=f"{example}verify weights/h2aseg.json"
    )
    verify.add_argument(
        "path", type=Path, nargs="?", help="Checkpoint or folder; those that run uses where none is named."
    )
    imported = actions.add_parser(
        "import",
        help="Turn a .pth of the authors' code into a checkpoint.",
        epilog=f"{example}import FILE.pth --description weights/descriptions/h2aseg-autopet2-released.json",
    )
    imported.add_argument(
        "source", type=Path, metavar="FILE.pth", help="State dictionary with the 269 released names."
    )
    imported.add_argument(
        "--description", type=Path, required=True, metavar="FILE", help="JSON that describes the checkpoint."
    )
    imported.add_argument(
        "--out", type=Path, default=Path("my_weights"), metavar="DIR", help="Folder to write to."
    )
    imported.add_argument("--force", action="store_true", help="Replace a checkpoint of the same name.")


def check_passes(flips: int | None, overlap: float | None) -> None:
    """Raise UsageError where ``--flips`` or ``--overlap`` makes no sense; None is a default."""
    if flips is not None and not 1 <= flips <= MOST_FLIPS:
        raise UsageError(f"--flips must lie between 1 (no mirroring) and {MOST_FLIPS}, got {flips}")
    if overlap is not None and not 0 <= overlap < 1:
        raise UsageError(f"--overlap must be at least 0 and below 1, got {overlap:g}")


def _add_results(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    flag = argparse.BooleanOptionalAction
    group.add_argument(
        "--dicom-seg",
        action=flag,
        default=None,
        help="Write the lesions as DICOM SEG too. By default where the PET is DICOM and --anonymous is not given.",
    )
    group.add_argument(
        "--html", action=flag, default=None, help="Write report.html. By default unless --time-limit is given."
    )
    group.add_argument(
        "--viewer",
        action=flag,
        default=True,
        help="Put images to scroll through into report.html, some MB.",
    )
    group.add_argument(
        "--anonymous",
        action=flag,
        default=False,
        help="Leave patient, file names, UIDs, series' descriptions and dates out of report.html and "
        "report.json. A DICOM SEG always names its PET's patient.",
    )


def _add_dicom(parser: argparse.ArgumentParser, *, ct: bool) -> None:
    group = parser.add_argument_group("DICOM input")
    group.add_argument("--pet-series", metavar="UID", help="SeriesInstanceUID of the PET to take.")
    if ct:
        group.add_argument("--ct-series", metavar="UID", help="SeriesInstanceUID of the CT to take.")
    group.add_argument("--weight-kg", type=float, metavar="KG", help="Body weight, in place of the header's.")
    group.add_argument(
        "--dose-mbq", type=float, metavar="MBQ", help="Activity when it was injected, in place of the header's."
    )
    group.add_argument(
        "--injection-time",
        metavar="TIME",
        help="HH:MM[:SS] or YYYY-MM-DDTHH:MM[:SS] in the scanner's local time, in place of the header's.",
    )
    group.add_argument(
        "--half-life-s", type=float, metavar="SECONDS", help="Of the nuclide, in place of the header's."
    )


def _add_inference(parser: argparse.ArgumentParser) -> None:
    _add_weights(parser)
    _add_device(parser)
    parser.add_argument(
        "--precision", default="auto", metavar="NAME", help="One of auto, float32, bfloat16 and float16."
    )
    _add_passes(parser)
    parser.add_argument(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help="For the whole process; in serve for each job, with --cases for each case. By default the edition's "
        "less 20 s for a job, and none for files.",
    )
    parser.add_argument(
        "--require-gpu",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="Fail where there is no GPU.",
    )
    parser.add_argument(
        "--whole-volume",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="Let windows cover the air around the patient too.",
    )
    parser.add_argument(
        "--no-checks",
        action="append",
        choices=CHECK_NAMES,
        metavar="NAME",
        help=f"Leave out a check of the images: {', '.join(CHECK_NAMES)}. May be given several times; see "
        "docs/formats.md.",
    )
    parser.add_argument(
        "--tuning",
        type=Path,
        metavar="FILE",
        help="Compute windows as this file says, so that masks can be repeated to the last bit; serve writes it "
        "where it is not there.",
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="Write a run report (JSON) here.")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="Write a projection of PET and mask (PNG) here."
    )


def _add_passes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--flips",
        type=int,
        metavar="N",
        help="Average exactly this many mirrorings, whatever the time limit, or all that the weights know (8 "
        "along three axes). By default as many as fit.",
    )
    parser.add_argument(
        "--everywhere",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="Let every flip take all windows. With --no-everywhere those after the first take windows where they "
        "can change the mask.",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="Share of neighbouring windows in common, 0 to below 1. By default the checkpoint's own.",
    )


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="PATH",
        help="Checkpoint or folder of checkpoints. By default those in /opt/ml/model, then those built in.",
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", metavar="NAME", help="One of auto, cpu, cuda and cuda:N.")
