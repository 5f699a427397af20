"""Grand-challenge's socket values, as ``inputs.json`` and ``predictions.json`` list them.

A value describes its socket under ``socket`` (since December 2025; before, under ``interface``) with a ``slug``
and a ``relative_path``; beside it stand ``image`` (with the ``name`` that the file was uploaded under), ``file``
and ``value``. What kind of socket it is, newer files say by ``is_*_kind``, older ones by ``super_kind``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from algorithm.errors import MissingInputError
from algorithm.jsonfile import JSON

_LONGEST_NAME = 200


@dataclass(frozen=True)
class SocketValue:
    """One input or output of a job.

    Attributes
    ----------
    slug : str
    relative_path : str
        Below ``/input`` or ``/output``: a folder for images, a file for everything else.
    is_image : bool
        Also where the image is a DICOM series.
    image_name : str or None
        Under which the image was uploaded.
    value : JSON
        Of a JSON socket, where the list itself holds it.
    """

    slug: str
    relative_path: str
    is_image: bool
    image_name: str | None = None
    value: JSON = None

    def path_in(self, folder: Path) -> Path:
        """Return where the value lies."""
        return folder / self.relative_path


def read_socket_values(content: JSON, source: Path) -> tuple[SocketValue, ...]:
    """Read a list of socket values.

    Parameters
    ----------
    content : JSON
    source : Path
        Where it comes from, for the errors.

    Raises
    ------
    MissingInputError
        It is no such list, or a path leads elsewhere.
    """
    if not isinstance(content, list):
        raise _malformed(source)
    return tuple(_read_value(each, source) for each in content)


def check_inside(path: str, source: Path) -> None:
    """Refuse a path that would not stay inside its folder.

    Raises
    ------
    MissingInputError
        It is absolute, climbs out of the folder, or could name no file.
    """
    pure = PurePosixPath(path)
    longest = max(map(len, pure.parts), default=0)
    if pure.is_absolute() or ".." in pure.parts or not 0 < longest <= _LONGEST_NAME:
        raise MissingInputError(
            f"{source} names the path {path[:_LONGEST_NAME]!r}, which does not lie below the job's folder; "
            "take the file as grand-challenge writes it"
        )


def _read_value(each: JSON, source: Path) -> SocketValue:
    socket = each.get("socket") or each.get("interface") if isinstance(each, Mapping) else None
    if not isinstance(each, Mapping) or not isinstance(socket, Mapping):
        raise _malformed(source)
    slug, image = socket.get("slug"), each.get("image")
    relative_path = socket.get("relative_path") or f"images/{slug}"
    name = image.get("name") if isinstance(image, Mapping) else None
    if not isinstance(slug, str) or not isinstance(relative_path, str) or not isinstance(name, (str, type(None))):
        raise _malformed(source)
    check_inside(slug, source)
    check_inside(relative_path, source)
    return SocketValue(slug, relative_path, _is_image(socket, image), name, each.get("value"))


def _is_image(socket: Mapping[str, JSON], image: JSON) -> bool:
    told = [socket.get(f"is_{kind}_kind") for kind in ("image", "panimg", "dicom_image")]
    return bool(image) or any(told) or socket.get("super_kind") == "Image"


def _malformed(source: Path) -> MissingInputError:
    return MissingInputError(
        f"{source} must be a list of socket values, each with a slug under 'socket' or 'interface'; "
        "take the file as grand-challenge writes it"
    )
