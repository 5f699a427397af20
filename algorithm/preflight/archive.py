"""What ``docker save`` writes, read without an engine: manifest, configuration, and the files of all layers.

Three layouts are in use: engines before 25 (``manifest.json``, ``<id>.json``, ``<id>/layer.tar``), engines since
(the same ``manifest.json``, pointing into ``blobs/sha256``, and an OCI ``index.json``), and the archives of
BuildKit and of engines with containerd's image store, whose index may also list attestations
(OCI image specification 1.1, image layout).
"""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from algorithm.preflight.findings import RefusedError

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"  # of a folder: nothing of the layers below is seen in it
_COMPRESSED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ": lzma.open}
_BZIP2 = b"BZh"
_DAMAGED = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)
_LARGEST_JSON = 32 * 2**20
_DEEPEST_INDEX = 4


@dataclass(frozen=True)
class _Entry:
    """A file of the image: the layer that has it last, and its header there."""

    layer: str
    member: tarfile.TarInfo


class ImageArchive:
    """An image as ``docker save`` writes it.

    Attributes
    ----------
    config : dict
        The image's configuration: ``architecture``, ``os`` and, under ``config``, user, labels and entry point.
    names : list of str
        What an engine that loads it will call the image.
    files : dict of str to TarInfo
        What a container sees, by path without the leading slash.
    """

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._members = {member.name.removeprefix("./"): member for member in tar.getmembers()}
        manifest = self._json("manifest.json")
        if manifest is None:
            raise RefusedError("there is no manifest.json in it; write it with `docker save`")
        images = manifest if isinstance(manifest, list) else []
        if len(images) != 1:
            raise RefusedError(f"it must hold exactly one image, got {len(images)}; save one image by its name")
        try:
            self._layers = [str(layer) for layer in images[0]["Layers"]]
            config = self._json(str(images[0]["Config"]))
            identity = str(images[0]["Config"]).rpartition("/")[2].removesuffix(".json").rpartition(":")[2]
            self.names: list[str] = images[0].get("RepoTags") or [f"sha256:{identity}"]
        except (KeyError, TypeError) as error:
            raise RefusedError(f"its manifest.json has no {error}; write it with `docker save`") from error
        if not isinstance(config, dict):
            raise RefusedError("the configuration that manifest.json names is missing; save the image again")
        self.config: dict[str, Any] = config
        self._entries = self._merged()
        self.files = {path: entry.member for path, entry in self._entries.items()}

    @property
    def settings(self) -> dict[str, Any]:
        """What a container of the image starts with: ``User``, ``Labels``, ``Entrypoint``, ``WorkingDir``."""
        return self.config.get("config") or {}

    @property
    def labels(self) -> dict[str, str]:
        """The image's labels."""
        return self.settings.get("Labels") or {}

    @property
    def environment(self) -> dict[str, str]:
        """The variables that are set in it."""
        named = (str(each).partition("=") for each in self.settings.get("Env") or [])
        return {name: value for name, _, value in named}

    def read(self, path: str) -> bytes:
        """Return a file's content."""
        entry = self._entries[path]
        with self._layer(entry.layer) as layer:
            stream = layer.extractfile(entry.member)
            return stream.read() if stream else b""

    def index_entries(self) -> list[dict[str, Any]]:
        """Return the descriptors of the archive's OCI index and of the indices that it points to."""
        found: list[dict[str, Any]] = []
        level = [self._json("index.json")]
        for _ in range(_DEEPEST_INDEX):
            descriptors = [
                each
                for index in level
                if isinstance(index, dict)
                for each in index.get("manifests") or []
                if isinstance(each, dict)
            ]
            found += descriptors
            level = [
                self._json("blobs/" + str(each.get("digest", "")).replace(":", "/"))
                for each in descriptors
                if "index" in str(each.get("mediaType", "")) or "list" in str(each.get("mediaType", ""))
            ]
        return found

    def _json(self, name: str) -> Any:
        """Return what a JSON file of the archive holds, None where there is no such file."""
        member = self._members.get(name)
        stream = self._tar.extractfile(member) if member else None
        if member is None or stream is None:
            return None
        if member.size > _LARGEST_JSON:
            raise RefusedError(f"its {name} has {member.size} bytes, more than any image needs; save it again")
        try:
            return json.loads(stream.read())
        except (ValueError, RecursionError) as error:
            raise RefusedError(f"its {name} is not JSON ({error}); save the image again") from error

    @contextlib.contextmanager
    def _layer(self, name: str) -> Iterator[tarfile.TarFile]:
        member = self._members.get(name)
        stream = self._tar.extractfile(member) if member else None
        if stream is None:
            raise RefusedError(f"its layer {name} is missing; save the image again")
        with tarfile.open(fileobj=stream) as layer:
            yield layer

    def _merged(self) -> dict[str, _Entry]:
        """Lay the layers on one another, as the engine does: a later one may hide files of those before."""
        seen: dict[str, _Entry] = {}
        for name in self._layers:
            with self._layer(name) as layer:
                members = {_plain(member.name): member for member in layer.getmembers()}
            for path in members:
                folder, _, last = path.rpartition("/")
                if last == _OPAQUE:
                    _remove(seen, folder, itself=False)
                elif last.startswith(_WHITEOUT):
                    _remove(seen, f"{folder}/{last.removeprefix(_WHITEOUT)}".lstrip("/"), itself=True)
            for path, member in members.items():
                if not path.rpartition("/")[2].startswith(_WHITEOUT):
                    seen[path] = _Entry(name, member)
        return seen


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[ImageArchive]:
    """Open an archive, compressed or not.

    A compressed one is first unpacked beside the system's temporary files, as its parts are not read in order.

    Raises
    ------
    RefusedError
        The file is damaged, or not what ``docker save`` writes.
    """
    with contextlib.ExitStack() as stack:
        try:
            tar = stack.enter_context(tarfile.open(fileobj=stack.enter_context(_uncompressed(path)), mode="r:"))
            archive = ImageArchive(tar)
        except (*_DAMAGED, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of damaged data it has none
                raise
            raise RefusedError(
                f"{path} is not a whole archive of `docker save` ({error}); save the image again"
            ) from error
        yield archive


@contextlib.contextmanager
def _uncompressed(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw:
        head = raw.read(6)
        raw.seek(0)
        if head.startswith(_BZIP2):
            raise RefusedError(f"{path} is compressed with bzip2, which no upload takes; use gzip or xz")
        opener = next((each for magic, each in _COMPRESSED.items() if head.startswith(magic)), None)
        if opener is None:
            yield raw
            return
        with tempfile.TemporaryFile() as plain, opener(raw, "rb") as stream:
            shutil.copyfileobj(cast(IO[bytes], stream), plain, 2**20)
            plain.seek(0)
            yield plain


def _plain(name: str) -> str:
    return name.removeprefix("./").strip("/")


def _remove(seen: dict[str, _Entry], path: str, *, itself: bool) -> None:
    below = f"{path}/" if path else ""
    for each in [each for each in seen if each.startswith(below) or (itself and each == path)]:
        del seen[each]
