"""A service that does what a file tells it, to try the server without a network: ``python -m ... FOLDER PORT``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from algorithm import console
from algorithm.errors import MissingInputError, WeightsError
from algorithm.files import written_whole
from algorithm.server import Job, serve

_FOLDER, _PORT = Path(sys.argv[1]), int(sys.argv[2])


def _load() -> Job:
    while (_FOLDER / "loading").exists():
        time.sleep(0.02)
    if (_FOLDER / "broken").exists():
        raise WeightsError("the weights are broken")
    return _do


def _do(began: float) -> None:
    order = (_FOLDER / "order").read_text()
    with (_FOLDER / "log").open("a") as log:
        log.write(f"{order} begins\n")
    if order == "bad input":
        raise MissingInputError("no CT image\nfound; put one there")
    if order == "odd name":
        raise MissingInputError("no \udcff.mha; put one there")
    if order == "bug":
        raise ZeroDivisionError("by zero")
    with written_whole(_FOLDER / "output" / "result") as temporary:
        temporary.write_text(f"{time.monotonic() - began:.3f}")
        time.sleep({"slow": 30.0, "short": 0.5}.get(order, 0.0))
    with (_FOLDER / "log").open("a") as log:
        log.write(f"{order} ends\n")


def _run(options: object) -> int:
    return serve(_load, "127.0.0.1", _PORT)


def _no_options(parser: object) -> None:
    pass


if __name__ == "__main__":
    command = console.Command("Serve", "__main__:_no_options", "__main__:_run", "fake serve")
    raise SystemExit(console.main("fake", "A fake.", {"serve": command}, ["serve"]))
