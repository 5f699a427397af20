"""The grand-challenge side of a job: where the pair lies in ``/input`` and where results go in ``/output``.

Sources: the published containers and pages of AutoPET I to V; the socket files follow grand-challenge-forge.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from algorithm.errors import MissingInputError, OutputError, UnsupportedEditionError, UsageError
from algorithm.images import is_mask_like, read_header
from algorithm.jsonfile import JSON, read_json
from algorithm.scribbles import Scribbles, parse_scribbles
from algorithm.socket_values import SocketValue, read_socket_values

CT_FOLDER = Path("images/ct")
PET_FOLDER = Path("images/pet")
CLICKS_FILE = Path("lesion-clicks.json")
SOCKETS_FILE = Path("inputs.json")
DATA_CENTRIC_FILE = Path("data-centric-model.json")

IMAGE_SUFFIXES = (".mha", ".mhd", ".tif")
"""What grand-challenge hands over; it converts every upload to one of these."""

DICOM_SUFFIX = ".dcm"
"""Of the files in an image socket of DICOM kind."""

DATA_CENTRIC_MODEL = False
"""AutoPET III asks whether the entry competes in the award category for data-centric work, which takes the
organisers' own network and changes the data alone. This is another network: false."""

_NAMES_SHOWN = 5
_MOST_CLICK_BYTES = 32 * 2**20
_SMALL = 2**10  # bytes of a file that may be nothing but white space

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
        The two input images; each may be a folder of DICOM files.
    mask : Path
        Where the tumour mask goes.
    extras : dict
        Further output files and the JSON value of each.
    scribbles : Scribbles
        Clicks or scribbles that came along.
    earlier : tuple of Path
        Masks that earlier calls for this case left in the mask's folder: the interactive editions keep ``/output``
        over a case's calls, in which the CT's name may change. The new mask takes their place.
    """

    edition: Edition
    ct: Path
    pet: Path
    mask: Path
    extras: dict[Path, JSON] = field(default_factory=dict)
    scribbles: Scribbles = field(default_factory=Scribbles)
    earlier: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Layout:
    """Where the parts of a case lie in ``/input``, and the edition this suggests.

    ``clicks`` is the file's place, ``value`` what the socket file itself holds of it.
    """

    edition: Edition
    ct: Path
    pet: Path
    clicks: Path
    value: JSON = None


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
    path = input_dir / SOCKETS_FILE
    if path.exists():
        layout = _layout_of_sockets(
            input_dir, read_socket_values(read_json(path, "the list of sockets"), path), edition
        )
    else:
        layout = _layout_of_files(input_dir)
    edition = edition or layout.edition
    ct = _only_image(layout.ct, "CT")
    pet = _only_image(layout.pet, "PET")
    clicks = layout.value if layout.value is not None else _read_clicks(layout.clicks)
    mask = output_dir / edition.mask_folder / f"{ct.stem}.mha"
    extras: dict[Path, JSON] = {}
    if edition is Edition.III:
        extras[output_dir / DATA_CENTRIC_FILE] = DATA_CENTRIC_MODEL
    scribbles = parse_scribbles(clicks, str(layout.clicks))
    return Job(edition, ct, pet, mask, extras, scribbles, _earlier_masks(mask, pet))


def _layout_of_sockets(input_dir: Path, values: Iterable[SocketValue], forced: Edition | None) -> _Layout:
    sockets = {_ALIASES.get(each.slug, each.slug): each for each in values}
    _refuse_task_two(sockets)
    recognised = _EDITION_BY_SOCKETS.get(tuple(sorted(sockets)), forced)
    if recognised is None or not {"ct", "pet"} <= set(sockets):
        names = sorted(sockets)[:_NAMES_SHOWN] + ["..."] * (len(sockets) > _NAMES_SHOWN)
        raise MissingInputError(
            f"{input_dir / SOCKETS_FILE} names the sockets {', '.join(names) or '(none)'}, but the algorithm "
            "takes ct and pet, with or without lesion-clicks; correct the algorithm's interface"
        )
    clicks = sockets.get("lesion-clicks")
    return _Layout(
        recognised,
        sockets["ct"].path_in(input_dir),
        sockets["pet"].path_in(input_dir),
        clicks.path_in(input_dir) if clicks else input_dir / CLICKS_FILE,
        clicks.value if clicks else None,
    )


def _layout_of_files(input_dir: Path) -> _Layout:
    _refuse_task_two(entry.name for folder in (input_dir, input_dir / "images") for entry in _entries(folder))
    clicks = input_dir / CLICKS_FILE
    return _Layout(
        Edition.V if clicks.exists() else Edition.III, input_dir / CT_FOLDER, input_dir / PET_FOLDER, clicks
    )


def _refuse_task_two(names: Iterable[str]) -> None:
    telling = sorted(name for name in names if _TASK_TWO.match(name))
    if telling:
        raise UnsupportedEditionError(
            f"this is AutoPET IV task 2, longitudinal CT without PET (found {', '.join(telling)}), which this "
            "PET/CT algorithm does not solve; submit it to task 1"
        )


def _only_image(folder: Path, what: str) -> Path:
    """Return the one image of a folder, or the folder itself where it holds DICOM; hidden files do not count."""
    files = [entry for entry in _entries(folder) if not entry.name.startswith(".")]
    images = [entry for entry in files if entry.suffix.lower() in IMAGE_SUFFIXES]
    if not images and any(path.suffix.lower() == DICOM_SUFFIX for path in folder.rglob("*")):
        return folder
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


def _read_clicks(path: Path) -> JSON:
    """Return what a clicks file holds; None where it is absent or empty."""
    if not path.exists() or (path.is_file() and path.stat().st_size < _SMALL and not _text_of(path)):
        return None
    content: JSON = read_json(path, "the clicks file", most_bytes=_MOST_CLICK_BYTES)
    return content


def _text_of(path: Path) -> bytes:
    return path.read_bytes().removeprefix(codecs.BOM_UTF8).strip()


def _earlier_masks(mask: Path, pet: Path) -> tuple[Path, ...]:
    """Return the masks of earlier calls for this case, on the PET's grid, that lie beside the new one's place.

    Masks of this software on another grid are of other cases; whoever does the job removes them.

    Raises
    ------
    OutputError
        Anything else is there, so that the mask would not be the only file of its folder.
    """
    others = [entry for entry in _entries(mask.parent) if entry.name != mask.name]
    grid = read_header(pet) if others and pet.is_file() else None
    foreign = [path for path in others if not is_mask_like(path, None)]
    if foreign:
        raise OutputError(
            f"{mask.parent} must hold nothing but the mask {mask.name}, got {_names(foreign)}; "
            "remove what is there"
        )
    return tuple(path for path in others if is_mask_like(path, grid))


def _entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, sorted by name; nothing where there is no such folder."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise MissingInputError(f"cannot look into {folder}: {error.strerror}; make it readable") from error


def _names(paths: list[Path]) -> str:
    """List a few file names."""
    shown = [path.name for path in paths[:_NAMES_SHOWN]]
    return ", ".join(shown + ["..."] * (len(paths) > _NAMES_SHOWN))
