"""What became of a case, in a file beside its results: a run that is started again knows by it what is done."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from algorithm import __version__
from algorithm.files import sha256_of
from algorithm.formats.volume import files_of
from algorithm.outputs import CASE_RECORD, MASK_NAME
from algorithm.report import write_json
from algorithm.results import NAMES, REPORT_NAME

RECORD_NAME = "case.json"

_OURS = (*NAMES, RECORD_NAME)


@dataclass(frozen=True)
class Record:
    """A case that was tried.

    Attributes
    ----------
    case : str
    key : str
        Of all that was asked, see :func:`key_of`.
    seconds : float
        Wall-clock time from the first byte read to the last one written.
    error : str
        Why there is no result; empty where there is one.
    files : dict
        SHA-256 of the results by name.
    """

    case: str
    key: str
    seconds: float
    error: str = ""
    files: dict[str, str] = field(default_factory=dict)


def key_of(images: Iterable[Path], *asked: object) -> str:
    """Return the hash of what was asked: images by name, size and time of change, all else as it prints.

    Contents are not read: a cohort that is done must be found so in seconds.
    """
    digest = hashlib.sha256(repr((__version__, asked)).encode())
    for image in images:
        for path in files_of(image):
            if path.name not in _OURS:  # results may lie beside a study's files
                about = path.stat()
                name = path.relative_to(image.parent) if path.is_relative_to(image.parent) else path
                digest.update(f"{name}\0{about.st_size}\0{about.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def write_record(folder: Path, record: Record) -> None:
    """Write a case's record into its folder; raises OutputError if it cannot be, or something else lies there."""
    write_json(folder / RECORD_NAME, dataclasses.asdict(record), CASE_RECORD)


def read_record(folder: Path) -> Record | None:
    """Return a case's record; None where there is none that can be read."""
    try:
        value = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
        return Record(value["case"], value["key"], float(value["seconds"]), value["error"], dict(value["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_done(folder: Path, key: str) -> bool:
    """Tell whether a case's mask, report and whatever else was asked for are there, byte for byte."""
    record = read_record(folder)
    if record is None or record.key != key or record.error:
        return False
    if not {MASK_NAME, REPORT_NAME} <= set(record.files):
        return False
    try:
        return all(sha256_of(folder / name) == known for name, known in record.files.items())
    except OSError:
        return False
