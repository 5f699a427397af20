"""Small archives as ``docker save`` writes them, of images with little more than weights; no engine is needed."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOME = "opt/h2aseg"
CONFIG: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "config": {
        "User": "10001:10001",
        "WorkingDir": f"/{HOME}",
        "Entrypoint": ["python", "-m", "algorithm"],
        "Labels": {"org.grand-challenge.api-method": "invoke"},
    },
}
ATTESTATION = {
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "digest": "sha256:" + "0" * 64,
    "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    "platform": {"architecture": "unknown", "os": "unknown"},
}
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True)
class File:
    """A file of a layer."""

    content: bytes = b""
    mode: int = 0o644


@dataclass
class FakeImage:
    """What an archive is made of.

    Attributes
    ----------
    layers : list of dict
        Each a mapping of path to :class:`File`.
    config : dict
        The image's configuration.
    """

    layers: list[dict[str, File]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(CONFIG))

    def set(self, **settings: Any) -> FakeImage:
        """Change what a container starts with."""
        self.config["config"].update(settings)
        return self

    def label(self, value: str, name: str = "org.grand-challenge.api-method") -> FakeImage:
        """Set a label."""
        self.config["config"]["Labels"][name] = value
        return self

    def add(self, path: str, content: bytes = b"", mode: int = 0o644) -> FakeImage:
        """Add a layer with one file; a name that begins with ``.wh.`` removes one."""
        self.layers.append({path: File(content, mode)})
        return self


def with_weights(checkpoint: Path) -> FakeImage:
    """Return an image that holds a checkpoint (its JSON's path) where the algorithm looks for it."""
    pair = (checkpoint, checkpoint.with_suffix(".safetensors"))
    files = {f"{HOME}/weights/{path.name}": File(path.read_bytes()) for path in pair}
    return FakeImage([{"usr/bin/python3": File(b"python", 0o755)}, files])


def save_old(images: Sequence[FakeImage], path: Path, mode: str = "w") -> Path:
    """Write images as engines before 25 do."""
    entries: dict[str, bytes] = {}
    manifest = []
    for image in images:
        config = json.dumps(image.config).encode()
        name = f"{_digest(config)}.json"
        layers = []
        for layer in image.layers:
            content = _layer(layer)
            layers.append(f"{_digest(content)}/layer.tar")
            entries[layers[-1]] = content
        entries[name] = config
        manifest.append({"Config": name, "RepoTags": ["h2aseg:test"], "Layers": layers})
    entries["manifest.json"] = json.dumps(manifest).encode()
    return _write(entries, path, mode)


def save_oci(
    image: FakeImage, path: Path, mode: str = "w", *, attestation: bool = False, layer_mode: str = "w"
) -> Path:
    """Write an image as engines since 25 do; with an attestation as BuildKit adds it."""
    entries: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

    def blob(content: bytes) -> str:
        entries[f"blobs/sha256/{_digest(content)}"] = content
        return _digest(content)

    layers = [f"blobs/sha256/{blob(_layer(layer, layer_mode))}" for layer in image.layers]
    config = blob(json.dumps(image.config).encode())
    oci_manifest = json.dumps({"mediaType": _MANIFEST_TYPE, "config": {"digest": f"sha256:{config}"}}).encode()
    descriptor: dict[str, Any] = {"mediaType": _MANIFEST_TYPE, "digest": f"sha256:{blob(oci_manifest)}"}
    if attestation:
        index = json.dumps({"mediaType": _INDEX_TYPE, "manifests": [descriptor, ATTESTATION]}).encode()
        descriptor = {"mediaType": _INDEX_TYPE, "digest": f"sha256:{blob(index)}"}
    entries["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode()
    entries["manifest.json"] = json.dumps([{"Config": f"blobs/sha256/{config}", "Layers": layers}]).encode()
    return _write(entries, path, mode)


def _layer(files: Mapping[str, File], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:  # type: ignore[call-overload]
        for path, file in files.items():
            header = tarfile.TarInfo(path)
            header.size, header.mode = len(file.content), file.mode
            tar.addfile(header, io.BytesIO(file.content))
    return stream.getvalue()


def _write(entries: Mapping[str, bytes], path: Path, mode: str) -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in entries.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return path


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
