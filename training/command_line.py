"""Frozen dataclasses as command-line options: name, type, default and help of an option stand in one place.

A field made by :func:`option` is an option, a field that is itself such a dataclass a group of them.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from algorithm.errors import UsageError

Options = TypeVar("Options")

REQUIRED: Any = dataclasses.MISSING


def option(otherwise: Any, text: str, *spellings: str, **more: Any) -> Any:
    """Return a dataclass field that is also an option.

    Parameters
    ----------
    otherwise : object
        What the field is where the command line says nothing; a function is called to find out, REQUIRED: none.
    text : str
        Help in whole sentences; the formatter of help adds the default.
    *spellings : str
        The field's name as an option (``--batch``) by default; the first is the one that is shown and taught.
    **more
        For ``add_argument``: what does not follow from the field's type.
    """
    kind: dict[str, Any] = {"default_factory": otherwise} if callable(otherwise) else {"default": otherwise}
    return dataclasses.field(**kind, metadata={"help": text, "spellings": spellings, "argparse": more})


def add_options(parser: argparse.ArgumentParser, kind: type) -> None:
    """Declare the options of a dataclass, in groups by the dataclasses in its fields (``heading``)."""
    types = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(types[field.name]):
            add_options(parser, types[field.name])
    group = parser.add_argument_group(kind.heading) if hasattr(kind, "heading") else parser
    for field in dataclasses.fields(kind):
        if "help" in field.metadata:
            spellings = field.metadata["spellings"] or (f"--{field.name.replace('_', '-')}",)
            keywords = {**_keywords(types[field.name]), **_default(field), **field.metadata["argparse"]}
            group.add_argument(*spellings, dest=field.name, help=field.metadata["help"], **keywords)


def options_from(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """Make the dataclass of parsed options.

    Parameters
    ----------
    kind : type
    values : mapping
        By the fields' names; lists become tuples, and None the field's default.

    Raises
    ------
    UsageError
        A value makes no sense: a ValueError of the dataclass.
    """
    types = get_type_hints(kind)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        inner = types[field.name]
        if dataclasses.is_dataclass(inner):
            fields[field.name] = options_from(inner, values)  # type: ignore[arg-type]
        elif values[field.name] is not None:
            fields[field.name] = _unchanging(values[field.name])
    try:
        return kind(**fields)
    except ValueError as error:
        raise UsageError(f"an option makes no sense: {error}") from error


def _unchanging(value: Any) -> Any:
    return tuple(map(_unchanging, value)) if isinstance(value, list) else value


def _default(field: dataclasses.Field[Any]) -> dict[str, Any]:
    if field.default_factory is not dataclasses.MISSING:
        return {"default": field.default_factory()}
    return {"required": True} if field.default is REQUIRED else {"default": field.default}


def _keywords(kind: Any) -> dict[str, Any]:
    """Return what a field's type says about its option: int, Path, one of several words, so many numbers."""
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is tuple:
        inner, *others = get_args(kind)
        return {**_keywords(inner), "nargs": "+" if Ellipsis in others else 1 + len(others)}
    if kind is bool:
        return {"action": "store_true"}
    if kind not in (int, float, str, Path):
        raise TypeError(f"no option can be made of {kind}")
    return {"type": kind}
