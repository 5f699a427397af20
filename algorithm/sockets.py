"""The grand-challenge side of a job: where the pair lies in ``/input`` and where results go in ``/output``.

Sources: the published containers and pages of AutoPET I to V; the socket files follow grand-challenge-forge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

from algorithm.errors import MissingInputError, OutputError, UnsupportedEditionError, UsageError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

CT_FOLDER = Path("images/ct")
PET_FOLDER = Path("images/pet")
CLICKS_FILE = Path("lesion-clicks.json")
SOCKETS_FILE = Path("inputs.json")
DATA_CENTRIC_FILE = Path("data-centric-model.json")

IMAGE_SUFFIXES = (".mha", ".mhd", ".tif")
"""What grand-challenge hands over; it converts every upload to one of these."""

DATA_CENTRIC_MODEL = False
"""AutoPET III asks whether the entry competes in the award category for data-centric work, which takes the
organisers' own network and changes the data alone. This is another network: false."""

_AUTOMATED_MASK_FOLDER = "images/automated-petct-lesion-segmentation"

_ALIASES = {"ct-image": "ct", "pet-image": "pet"}  # two names for the sockets at images/ct and images/pet

_TASK_TWO = re.compile(r"(primary|secondary)-(baseline|followup)-(ct|lesion)")
"""Sockets of AutoPET IV task 2: primary-followup-ct, primary-baseline-lesion-clicks and the like."""


class Edition(Enum):
    """An AutoPET challenge, by its Roman number; IV is its task 1."""

    I = "I"  # noqa: E741
    II = "II"
    III = "III"
    IV = "IV"
    V = "V"

    @classmethod
    def named(cls, name: str) -> Edition:
        """Return the edition of that name, in either case; raises UsageError for any other."""
        try:
            return cls(name.strip().upper())
        except ValueError:
            known = ", ".join(edition.value for edition in cls)
            raise UsageError(f"the edition must be one of {known}, got {name!r}") from None

    @property
    def interactive(self) -> bool:
        """Whether the edition offers clicks or scribbles beside the images."""
        return self in (Edition.IV, Edition.V)

    @property
    def mask_folder(self) -> Path:
        """Folder of the mask inside ``/output``."""
        return Path("images/tumor-lesion-segmentation" if self.interactive else _AUTOMATED_MASK_FOLDER)

    @property
    def time_limit_s(self) -> float:
        """Seconds that one case may take, container start included.

        III states 5 minutes per case, IV 15. For I and II no limit was found, so the shortest known one is used;
        for V the organisers' pages give 10 to 20 minutes, so the lowest is.
        """
        return {Edition.IV: 900.0, Edition.V: 600.0}.get(self, 300.0)


_EDITION_BY_SOCKETS = {
    ("ct", "pet"): Edition.III,
    ("ct", "lesion-clicks", "pet"): Edition.V,
}


@dataclass(frozen=True)
class Job:
    """One case to segment.

    Attributes
    ----------
    edition : Edition
    ct, pet : Path
        The two input images.
    mask : Path
        Where the tumour mask goes.
    extras : dict
        Further output files and the JSON value of each.
    clicks : int
        Clicks that came along. They are only counted: the network takes none.
    """

    edition: Edition
    ct: Path
    pet: Path
    mask: Path
    extras: dict[Path, JSON] = field(default_factory=dict)
    clicks: int = 0


@dataclass(frozen=True)
class _Layout:
    """Where the parts of a case lie in ``/input``, and the edition this suggests."""

    edition: Edition
    ct: Path
    pet: Path
    clicks: Path


def find_job(input_dir: Path, output_dir: Path, edition: Edition | None = None) -> Job:
    """Find the case in ``/input`` and say where its results belong.

    The edition is recognised from the sockets named in ``inputs.json`` or, without that file, from the files:
    ``lesion-clicks.json`` means IV or V, of which V is taken as the one with the shorter time limit; images alone
    mean III, whose output is that of I and II plus one file. IV and V may come without clicks at their first
    step; such a case needs ``edition``, unless ``inputs.json`` names the clicks.

    Parameters
    ----------
    input_dir, output_dir : Path
        ``/input`` and ``/output``; nothing is written.
    edition : Edition or None
        Overrules the recognition.

    Raises
    ------
    MissingInputError
        There is not exactly one CT and one PET, or a JSON file is not what it should be.
    UnsupportedEditionError
        The case belongs to AutoPET IV task 2 (longitudinal CT).
    OutputError
        Another file already lies where exactly one mask must.
    """
    sockets = _read_sockets(input_dir)
    layout = _layout_of_files(input_dir) if sockets is None else _layout_of_sockets(input_dir, sockets, edition)
    edition = edition or layout.edition
    ct = _only_image(layout.ct, "CT")
    pet = _only_image(layout.pet, "PET")
    clicks = _count_clicks(layout.clicks)
    mask = output_dir / edition.mask_folder / f"{ct.stem}.mha"
    _refuse_other_files(mask)
    extras: dict[Path, JSON] = {}
    if edition is Edition.III:
        extras[output_dir / DATA_CENTRIC_FILE] = DATA_CENTRIC_MODEL
    return Job(edition=edition, ct=ct, pet=pet, mask=mask, extras=extras, clicks=clicks)


def _read_sockets(input_dir: Path) -> dict[str, Path] | None:
    """Return the path of each socket that ``inputs.json`` names, or None where there is no such file.

    Older jobs call the description of a socket ``interface``, newer ones ``socket``.
    """
    path = input_dir / SOCKETS_FILE
    if not path.exists():
        return None
    content = _read_json(path)
    try:
        described = [value.get("socket") or value["interface"] for value in content]
        if not all(isinstance(each["slug"], str) for each in described):
            raise TypeError("a slug must be a string")
        return {
            _ALIASES.get(each["slug"], each["slug"]): input_dir
            / (each.get("relative_path") or f"images/{each['slug']}")
            for each in described
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise MissingInputError(
            f"{path} must be a list of socket values, each with a slug under 'socket' or 'interface'; "
            "take the file as grand-challenge writes it"
        ) from error


def _layout_of_sockets(input_dir: Path, sockets: dict[str, Path], forced: Edition | None) -> _Layout:
    _refuse_task_two(sockets)
    recognised = _EDITION_BY_SOCKETS.get(tuple(sorted(sockets)), forced)
    if recognised is None or not {"ct", "pet"} <= set(sockets):
        raise MissingInputError(
            f"{input_dir / SOCKETS_FILE} names the sockets {', '.join(sorted(sockets)) or '(none)'}, but the "
            "algorithm takes ct and pet, with or without lesion-clicks; mend the algorithm's interface"
        )
    return _Layout(
        recognised, sockets["ct"], sockets["pet"], sockets.get("lesion-clicks", input_dir / CLICKS_FILE)
    )


def _layout_of_files(input_dir: Path) -> _Layout:
    _refuse_task_two(entry.name for folder in (input_dir, input_dir / "images") for entry in _entries(folder))
    clicks = input_dir / CLICKS_FILE
    return _Layout(
        Edition.V if clicks.is_file() else Edition.III, input_dir / CT_FOLDER, input_dir / PET_FOLDER, clicks
    )


def _refuse_task_two(names: Iterable[str]) -> None:
    telling = sorted(name for name in names if _TASK_TWO.match(name))
    if telling:
        raise UnsupportedEditionError(
            f"this is AutoPET IV task 2, longitudinal CT without PET (found {', '.join(telling)}), which this "
            "PET/CT algorithm does not solve; submit it to task 1"
        )


def _only_image(folder: Path, what: str) -> Path:
    """Return the one image of a folder; hidden files do not count."""
    files = [entry for entry in _entries(folder) if not entry.name.startswith(".")]
    images = [entry for entry in files if entry.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        instead = f"; it holds {_names(files)}" if files else ""
        raise MissingInputError(
            f"no {what} image found in {folder} (looked for {', '.join(IMAGE_SUFFIXES)}); "
            f"put exactly one there{instead}"
        )
    if len(images) > 1:
        raise MissingInputError(
            f"{len(images)} {what} images found in {folder} ({_names(images)}); leave exactly one there"
        )
    return images[0]


def _count_clicks(path: Path) -> int:
    """Count the points of a clicks file, which may be absent or empty.

    Two forms are in use: grand-challenge's ``{"points": [...]}``, and the organisers' ``{"tumor": [...],
    "background": [...]}``.
    """
    if not path.is_file() or not path.read_bytes().strip():
        return 0
    content = _read_json(path)
    if isinstance(content, dict):
        lists = [content[key] for key in ("points", "tumor", "background") if key in content]
        if all(isinstance(points, list) for points in lists) and (lists or not content):
            return sum(len(points) for points in lists)
    if content is None or content == []:
        return 0
    raise MissingInputError(
        f"{path} must hold clicks as {{'points': [...]}}, got {json.dumps(content)[:60]}; mend it or leave it out"
    )


def _refuse_other_files(mask: Path) -> None:
    """Raise OutputError where the mask would not be the only file of its folder."""
    others = [entry for entry in _entries(mask.parent) if entry.name != mask.name]
    if others:
        raise OutputError(
            f"{mask.parent} must hold nothing but the mask {mask.name}, got {_names(others)}; remove what is there"
        )


def _entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, sorted by name; nothing where there is no such folder."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise MissingInputError(f"cannot look into {folder}: {error.strerror}; make it readable") from error


def _names(paths: list[Path]) -> str:
    """List at most five file names."""
    shown = [path.name for path in paths[:5]]
    return ", ".join(shown + ["..."] * (len(paths) > 5))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MissingInputError(f"cannot read {path} as JSON: {error}; mend it") from error
