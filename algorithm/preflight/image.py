"""``python -m algorithm preflight IMAGE_OR_TAR``: what the platform would say of an image."""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from algorithm.errors import InstallationError, MissingInputError, UsageError
from algorithm.preflight.archive import ImageArchive, open_archive
from algorithm.preflight.case import enlarge
from algorithm.preflight.contents import api_method, examine
from algorithm.preflight.engine import engine_answers, image_exists, loaded, save
from algorithm.preflight.findings import (
    Finding,
    RefusedError,
    Verdict,
    failures,
    raise_first,
    table,
)
from algorithm.preflight.trial import Conditions, both_flags
from algorithm.sockets import Edition

EXAMPLE = Path(__file__).resolve().parents[2] / "test" / "input"
_TRIAL = "job in a container"

log = logging.getLogger(__name__)


def check_image(args: argparse.Namespace) -> int:
    """Check an image or its archive, print the table, and return 0.

    What the archive says is checked first. Only an image that passes there is run, since what is wrong with it
    would show again in every job; the jobs need an engine, and are said to be skipped where none answers.

    Raises
    ------
    PreflightError
        Something failed; the text is the first reason.
    UserError
        There is no such image or archive, or an option makes no sense.
    """
    _check_options(args)
    edition = Edition.named(args.edition) if args.edition else None
    model = args.weights and args.weights.resolve()
    try:
        with _archive_of(args.image) as (path, compressed):
            findings, method, names, own_edition = _examined(path, compressed, model)
            if failures(findings):
                findings.append(Finding(_TRIAL, Verdict.SKIPPED, "what is wrong above comes first"))
            elif not engine_answers():
                findings.append(Finding(_TRIAL, Verdict.SKIPPED, "no Docker engine answers here"))
            else:
                findings += _tried(args, edition or own_edition, model, method, path, names)
    except subprocess.TimeoutExpired as error:
        raise InstallationError(
            f"`{' '.join(error.cmd[:2])}` did not answer in {error.timeout:g} s; see to the engine"
        ) from error
    print(table(findings), flush=True)
    raise_first(findings)
    print(_end(findings), flush=True)
    return 0


def _end(findings: Sequence[Finding]) -> str:
    """Return the last sentence on an image of which nothing failed."""
    untried = [each for each in findings if each.verdict is Verdict.SKIPPED]
    if not untried:
        return "the image is fit for an upload"
    checks = "; ".join(f"{each.check}: {each.found}" for each in untried)
    return f"nothing that was checked speaks against an upload, but not everything was ({checks})"


def _check_options(args: argparse.Namespace) -> None:
    if args.time_limit is not None and not args.time_limit > 0:
        raise UsageError(f"--time-limit must be a positive number of seconds, got {args.time_limit:g}")
    if args.weights is not None and not args.weights.exists():
        raise MissingInputError(f"there are no weights at {args.weights}; name a checkpoint or a folder of them")
    if not 0 < args.memory_limit < 1024:
        raise UsageError(f"--memory-limit must be a number of GiB between 0 and 1024, got {args.memory_limit:g}")


def _model_folder(weights: Path | None, scratch: Path) -> Path | None:
    """Return the folder to mount at ``/opt/ml/model``; of one checkpoint, a folder with a copy of it alone."""
    if weights is None or weights.is_dir():
        return weights
    folder = scratch / "model"
    folder.mkdir()
    for path in (weights.with_suffix(".json"), weights.with_suffix(".safetensors")):
        shutil.copyfile(path, folder / path.name)
        (folder / path.name).chmod(0o644)  # the image's user is none of this machine's
    folder.chmod(0o755)
    return folder


@contextlib.contextmanager
def _archive_of(name: str) -> Iterator[tuple[Path, bool]]:
    """Yield the archive of an image, and whether it is compressed; that of an engine's image is temporary.

    Raises
    ------
    MissingInputError
        There is no such archive, nor such an image in an engine.
    """
    path = Path(name)
    if path.is_file():
        with path.open("rb") as stream:
            compressed = stream.read(2) in (b"\x1f\x8b", b"\xfd7")
        yield path, compressed
        return
    if path.exists():
        raise MissingInputError(f"{name} is no file; name an image, or an archive that `docker save` wrote")
    if not engine_answers():
        raise MissingInputError(
            f"there is no file {name}, and no Docker engine answers that could have an image of that name; "
            "start it, or name an archive"
        )
    if not image_exists(name):
        raise MissingInputError(f"there is no file {name} and no image of that name; build it with ./build.sh")
    with tempfile.TemporaryDirectory(prefix="h2aseg-preflight-") as folder:
        saved = Path(folder) / "image.tar"
        log.info("saving %s, as for an upload", name)
        save(name, saved)
        yield saved, False


def _examined(
    path: Path, compressed: bool, model: Path | None
) -> tuple[list[Finding], str, list[str], Edition | None]:
    """Return what the archive says, the platform's way to run the image, its names, and the edition it is for."""
    log.info("reading %s", path)
    try:
        with open_archive(path) as archive:
            findings = examine(archive, path.stat().st_size, compressed=compressed, model=model)
            readable = Finding("archive", Verdict.PASSED, _named(archive))
            named = archive.environment.get("H2ASEG_EDITION")
            edition = Edition.named(named) if named else None
            return [readable, *findings], api_method(archive), archive.names, edition
    except RefusedError as error:
        return [Finding("archive", Verdict.FAILED, str(error))], "", [], None


def _named(archive: ImageArchive) -> str:
    labels = archive.labels
    return (
        " ".join(labels.get(f"org.opencontainers.image.{key}", "") for key in ("title", "version")).strip()
        or "one"
    )


def _tried(
    args: argparse.Namespace,
    edition: Edition | None,
    model: Path | None,
    method: str,
    path: Path,
    names: Sequence[str],
) -> list[Finding]:
    """Run a job under both sets of flags; an archive's image is loaded for as long as that takes."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="h2aseg-preflight-"))
        scratch = Path(folder)
        scratch.chmod(0o755)
        source = args.input
        if source is None:
            source = scratch / "source"
            log.info("making a job of a whole body's size from %s", EXAMPLE)
            enlarge(EXAMPLE, source)
        image = args.image
        if Path(image).is_file():
            image = stack.enter_context(loaded(path, names))
        conditions = Conditions(
            image,
            method,
            source.resolve(),
            edition,
            args.time_limit,
            args.memory_limit,
            _model_folder(model, scratch),
        )
        log.info("running a job (%s) twice: under the strict flags and under today's", method)
        return both_flags(conditions, scratch)
