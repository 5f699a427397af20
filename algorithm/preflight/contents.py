"""What an image is and holds, told from its archive without an engine."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from algorithm.errors import UserError
from algorithm.preflight.archive import ImageArchive
from algorithm.preflight.findings import Finding, NotTriedError, RefusedError, carried_out
from algorithm.preflight.trained import check_trained
from algorithm.weights import Checkpoint, find_checkpoints, load_checkpoint

LARGEST_IMAGE_BYTES = 10e9
"""Grand-challenge takes 10 GB (some of its versions 10 GiB, which is more)."""

API_LABEL = "org.grand-challenge.api-method"
API_METHODS = ("exec", "invoke")
WEIGHTS_LABEL = "h2aseg.weights.sha256"
MODEL_FOLDER = "opt/ml/model"

_COMPILER = re.compile(
    r"(.+-)?(gcc|g\+\+|cc|c\+\+|clang|clang\+\+|nvcc|rustc)(-[0-9.]+)?|cc1(plus|obj)?|collect2|lto1"
)
_CACHE = re.compile(r"(root|home/[^/]+)/\.cache/(pip|uv)/.+|var/cache/apt/archives/.+\.deb")
_SETUID_OR_SETGID = 0o6000
_SHOWN = 3


def examine(archive: ImageArchive, archive_bytes: int, *, compressed: bool, model: Path | None) -> list[Finding]:
    """Check what the archive says.

    Parameters
    ----------
    archive : ImageArchive
    archive_bytes : int
        Size of its file.
    compressed : bool
        Whether that file is compressed, as the upload is.
    model : Path, optional
        Weights that are uploaded beside the image and come before those in it.
    """
    findings = [
        carried_out("architecture", partial(_architecture, archive)),
        carried_out("no attestation", partial(_no_attestation, archive)),
        carried_out("size", partial(_size, archive_bytes, compressed)),
        carried_out("user", partial(_user, archive)),
        carried_out("label and command", partial(_label_and_command, archive)),
        carried_out("no setuid files", partial(_no_setuid, archive)),
        carried_out("no compiler", partial(_no_compiler, archive)),
        carried_out("no package cache", partial(_no_cache, archive)),
    ]
    return findings + _weights(archive, model)


def api_method(archive: ImageArchive) -> str:
    """Return how the platform would run the image; without a label once per case."""
    return archive.labels.get(API_LABEL, "exec")


def _architecture(archive: ImageArchive) -> str:
    kind = f"{archive.config.get('os')}/{archive.config.get('architecture')}"
    if kind != "linux/amd64":
        raise RefusedError(f"it must be linux/amd64, got {kind}; build with `--platform linux/amd64`")
    return kind


def _no_attestation(archive: ImageArchive) -> str:
    for each in archive.index_entries():
        platform = each.get("platform") or {}
        kind = (each.get("annotations") or {}).get("vnd.docker.reference.type", "")
        if kind == "attestation-manifest" or platform.get("architecture") == "unknown":
            raise RefusedError(
                "the archive holds an attestation, with which imports have failed; build with `--provenance=false`"
            )
        if "index" in str(each.get("mediaType", "")) or "list" in str(each.get("mediaType", "")):
            raise RefusedError(
                "the archive holds an OCI index in place of one image, with which imports have failed; build for "
                "one platform with `--provenance=false`"
            )
    return "one image"


def _size(archive_bytes: int, compressed: bool) -> str:
    text = f"{archive_bytes / 1e9:.2f} GB{'' if compressed else ' uncompressed'}"
    if archive_bytes <= LARGEST_IMAGE_BYTES:
        return f"{text} of {LARGEST_IMAGE_BYTES / 1e9:.0f}"
    if not compressed:
        raise NotTriedError(f"{text}, more than the limit; check the archive that `./export.sh` compresses")
    raise RefusedError(
        f"{text}, and the platform takes {LARGEST_IMAGE_BYTES / 1e9:.0f} GB; leave out what no job needs"
    )


def _user(archive: ImageArchive) -> str:
    user = str(archive.settings.get("User") or "")
    name, _, group = user.partition(":")
    if name in ("", "root") or name.strip("0") == "":
        raise RefusedError(
            f"it runs as root (USER {user or 'is not set'}); add `USER 10001:10001` to the Dockerfile"
        )
    if not name.isdecimal() or not (group or "0").isdecimal():
        raise RefusedError(f"the user must be a number, got USER {user}; write its number into the Dockerfile")
    return user


def _label_and_command(archive: ImageArchive) -> str:
    method = api_method(archive)
    if method not in API_METHODS:
        raise RefusedError(
            f"the label {API_LABEL} must be exec or invoke, got {method!r}; build with API_METHOD=invoke"
        )
    command = [*(archive.settings.get("Entrypoint") or []), *(archive.settings.get("Cmd") or [])]
    if not archive.settings.get("Entrypoint"):
        raise RefusedError("it has no entry point, so nothing would run; add ENTRYPOINT to the Dockerfile")
    return f"{method}: {' '.join(map(str, command))}"


def _no_setuid(archive: ImageArchive) -> str:
    found = [path for path, member in archive.files.items() if member.isreg() and member.mode & _SETUID_OR_SETGID]
    if found:
        raise RefusedError(f"{_few(found)} give another user's rights; take them off with `chmod a-s`")
    return f"{len(archive.files)} files"


def _no_compiler(archive: ImageArchive) -> str:
    found = [
        path
        for path, member in archive.files.items()
        if (member.isreg() or member.islnk())
        and member.mode & 0o111
        and _COMPILER.fullmatch(PurePosixPath(path).name)
    ]
    if found:
        raise RefusedError(f"{_few(found)} can compile code, which inference never needs; remove the package")
    return "none"


def _no_cache(archive: ImageArchive) -> str:
    found = [path for path, member in archive.files.items() if member.isreg() and _CACHE.fullmatch(path)]
    if found:
        raise RefusedError(f"{_few(found)} are left from installing; remove them in the step that leaves them")
    return "none"


def _weights(archive: ImageArchive, model: Path | None) -> list[Finding]:
    """Check that the weights are there, are those of their description, and were trained."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "weights"
        shown = str(model)
        if model is None:
            folder = _weights_folder(archive)
            shown = f"/{folder}"
            _extract(archive, folder, copy)
        loaded: list[Checkpoint] = []

        def present() -> str:
            try:
                found = find_checkpoints(model or copy)
            except UserError as error:
                raise RefusedError(_without(copy, shown, error)) from error
            return ", ".join(path.with_suffix(".safetensors").name for path in found)

        def verified() -> str:
            try:
                loaded.extend(load_checkpoint(path) for path in find_checkpoints(model or copy))
            except UserError as error:
                raise RefusedError(_without(copy, shown, error)) from error
            for each in loaded:
                if not each.description.sha256:
                    raise RefusedError(f"{each.path.name} has no sha256, so nothing tells whose weights these are")
            labelled = archive.labels.get(WEIGHTS_LABEL, "unknown")
            if model is None and labelled not in ("unknown", *(each.description.sha256 for each in loaded)):
                raise RefusedError(
                    f"the label {WEIGHTS_LABEL} is {labelled[:12]}..., and the image holds weights of sha256 "
                    f"{loaded[0].description.sha256[:12]}...; build the image again"
                )
            return ", ".join(f"sha256 {each.description.sha256[:12]}..." for each in loaded)

        def trained() -> str:
            if not loaded:
                raise NotTriedError("there are no verified weights to look at")
            return "; ".join(check_trained(each) for each in loaded)

        return [
            carried_out("weights present", present),
            carried_out("weights verified", verified),
            carried_out("weights trained", trained),
        ]


def _weights_folder(archive: ImageArchive) -> str:
    """Return where the algorithm looks for weights: beside its package, or where the platform unpacks a model."""
    home = str(archive.settings.get("WorkingDir") or "/").strip("/")
    baked_in = f"{home}/weights".lstrip("/")
    return next((each for each in (MODEL_FOLDER, baked_in) if any(_within(archive, each))), baked_in)


def _within(archive: ImageArchive, folder: str) -> Iterator[str]:
    for path, member in archive.files.items():
        if member.isreg() and path.startswith(f"{folder}/") and path.endswith((".json", ".safetensors")):
            yield path


def _extract(archive: ImageArchive, folder: str, target: Path) -> None:
    target.mkdir()
    for path in _within(archive, folder):
        name = path.removeprefix(f"{folder}/")
        if "/" not in name:
            (target / name).write_bytes(archive.read(path))


def _without(folder: Path, shown: str, error: UserError) -> str:
    """Return an error's sentence with the place in the image instead of that of the copy."""
    return str(error).replace(str(folder), shown)


def _few(paths: list[str]) -> str:
    text = ", ".join(f"/{path}" for path in sorted(paths)[:_SHOWN])
    return text + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
