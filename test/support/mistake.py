"""What users do wrong: rows of a table, and how to spoil a small world for them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import algorithm.__main__
import evaluation.__main__
import synthesis.__main__
import training.__main__
from test.support.phantom import CT_NAME
from test.support.world import MASK_FOLDER, World

PROGRAMS = {
    "algorithm": algorithm.__main__.main,
    "evaluation": evaluation.__main__.main,
    "training": training.__main__.main,
    "synthesis": synthesis.__main__.main,
}
MASK = f"{MASK_FOLDER}/{CT_NAME}.mha"
Words = Callable[[World], list[str]]

DEEP = "[" * 100_000


@dataclass(frozen=True)
class Mistake:
    """One row: ``words`` spoils a world and returns the command line; ``left`` is what must lie in the output."""

    name: str
    program: str
    words: Words
    part: str
    code: int = 2
    left: frozenset[str] = field(default_factory=frozenset)


def row(program: str, name: str, words: Words, part: str, code: int = 2, left: Iterable[str] = ()) -> Mistake:
    return Mistake(name, program, words, part, code, frozenset(left))


algorithm_, evaluation_, training_, synthesis_ = (partial(row, program) for program in PROGRAMS)


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def socket_at(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path is short
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)
    return path


def link(path: Path) -> Path:
    path.symlink_to("notes.txt")
    return path


def broken_ct(w: World) -> World:
    w.put(f"input/images/ct/{CT_NAME}.mha", b"no image")
    return w


def small_memory(w: World, *more: object) -> list[str]:
    os.environ["GRAND_CHALLENGE_COMPONENT_MAX_MEMORY_MB"] = "100"
    return w.run(*more)


def earlier(w: World, words: list[str], kind: str = "job") -> list[str]:
    (w.earlier_job if kind == "job" else w.earlier_predict)()
    return words


def environment(words: list[str], **variables: str) -> list[str]:
    os.environ.update(variables)
    return words
