"""Reading ``manifest.json``: whoever sends a bundle may have written anything into it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, get_type_hints

from algorithm.cases import tracer_of
from algorithm.errors import MissingInputError, UsageError, UserError
from algorithm.inference.augmentation import MOST_FLIPS
from algorithm.inference.precision import PRECISIONS
from algorithm.jsonfile import read_json
from evaluation.handover.bundle import FORMAT, MANIFEST, BundleSettings, CaseRecord, File, Manifest
from evaluation.scoring.editions import RULES

_MOST_THREADS = 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CODE = {"version": str, "commit": (str, type(None)), "uncommitted": (bool, type(None)), "sha256": str}

Record = TypeVar("Record")


def read_manifest(bundle: Path) -> Manifest:
    """Read a bundle's manifest.

    Raises
    ------
    MissingInputError
        There is none: no bundle, or its making was interrupted.
    UsageError
        It is damaged, names files outside the bundle, or has no cases or weights that could be verified.
    """
    path = bundle / MANIFEST
    if not path.is_file():
        raise MissingInputError(f"{bundle} is not a hand-over bundle: it has no {MANIFEST}; check the path")
    try:
        return _parse(read_json(path, "the manifest"))
    except (KeyError, TypeError, ValueError, UserError) as error:
        reason = f"missing key {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"the manifest {path} is damaged ({reason}); ask for the bundle again") from error


def _parse(content: Any) -> Manifest:
    if not isinstance(content, dict):
        raise TypeError("it must be an object")
    fields = dict(content)
    if fields.pop("format", None) != FORMAT:
        raise ValueError(f"format must be {FORMAT}, got {content.get('format')}")
    fields["settings"] = _settings(fields["settings"])
    fields["weights"] = tuple(_texts("weights", fields["weights"]))
    fields["cases"] = tuple(map(_case, _list("cases", fields["cases"])))
    manifest = _record(Manifest, fields)
    if manifest.edition not in RULES:
        raise ValueError(f"edition must be one of {', '.join(RULES)}, got {manifest.edition}")
    for key, kind in _CODE.items():
        if not isinstance(manifest.code[key], kind):  # type: ignore[arg-type]
            raise TypeError(f"code must have a {key} of another kind, got {manifest.code[key]!r}")
    for text in (*manifest.files, *manifest.files.values()):
        if not isinstance(text, str):
            raise TypeError(f"files must map texts to texts, got {text!r}")
    _check_paths(manifest)
    return manifest


def _check_paths(manifest: Manifest) -> None:
    """Raise ValueError where the manifest leads outside, leaves something out, or promises nothing at all."""
    cases = manifest.cases
    inputs = [file.path for case in cases for file in (case.ct, case.pet, case.truth) if file is not None]
    for path in (*manifest.files, *manifest.weights, *(case.mask for case in cases), *inputs):
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            raise ValueError(f"{path} lies outside")
    unlisted = {*manifest.weights, *(case.mask for case in cases)} - set(manifest.files)
    if unlisted:
        raise ValueError(f"{min(unlisted)} has no SHA-256")
    if not cases:
        raise ValueError("it has no cases, so there is nothing to verify")
    if not manifest.weights:
        raise ValueError("it names no weights, so no mask can be repeated")
    for what, names in (("case", [case.name for case in cases]), ("mask", [case.mask for case in cases])):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"it has the {what} {twice[0]} twice")
    for case in cases:
        if case.mask != f"masks/{case.name}.mha" or "/" in case.name:
            raise ValueError(f"the mask of case {case.name} must be masks/{case.name}.mha, got {case.mask}")


def _settings(content: Any) -> BundleSettings:
    made = _record(BundleSettings, content)
    if made.device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {made.device}")
    if made.precision not in PRECISIONS or made.precision == "auto":
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS[1:])}, got {made.precision}")
    for name, value, most in (("flips", made.flips, MOST_FLIPS), ("threads", made.threads, _MOST_THREADS)):
        if not 1 <= value <= most:
            raise ValueError(f"{name} must lie between 1 and {most}, got {value}")
    if made.overlap is not None and not 0 <= made.overlap < 1:
        raise ValueError(f"overlap must be at least 0 and below 1, got {made.overlap}")
    return made


def _case(content: Any) -> CaseRecord:
    if not isinstance(content, dict):
        raise TypeError(f"a case must be an object, got {content!r}")
    files = {key: None if content[key] is None else _file(content[key]) for key in ("ct", "pet", "truth")}
    subset = "synthetic" if content["synthetic"] is True else tracer_of(content["name"])
    lacking = {"truth_on_own_grid": False, "subset": subset}  # in older bundles, which were scored by these
    return _record(CaseRecord, {**lacking, **content, **files})


def _file(content: Any) -> File:
    file = _record(File, content)
    if not _SHA256.fullmatch(file.sha256):
        raise ValueError(f"a SHA-256 has 64 hexadecimal digits, got {file.sha256!r}")
    return file


def _record(kind: type[Record], content: Any) -> Record:
    """Make a dataclass whose fields have exactly the types that it declares; raises TypeError and ValueError."""
    if not isinstance(content, dict):
        raise TypeError(f"{kind.__name__} must be an object, got {content!r}")
    types = get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if set(content) != names:
        raise ValueError(
            f"its keys must be {', '.join(sorted(names))}, got {', '.join(sorted(map(str, content)))}"
        )
    for name, value in content.items():
        if not _is_of(types[name], value):
            raise TypeError(f"{name} has a value of the wrong kind, {value!r:.100}")
    return kind(**content)


def _is_of(kind: Any, value: Any) -> bool:
    kinds = getattr(kind, "__args__", None)
    if kinds is not None and getattr(kind, "__origin__", None) not in (dict, tuple):  # a union
        return any(_is_of(each, value) for each in kinds)
    kind = getattr(kind, "__origin__", kind)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{name} must be a list, got {value!r:.100}")
    return value


def _texts(name: str, value: Any) -> Iterable[str]:
    for each in _list(name, value):
        if not isinstance(each, str):
            raise TypeError(f"{name} must hold texts, got {each!r:.100}")
        yield each
