"""Measuring processes: started by the parent, measured on demand, gone when the parent closes them.

The child (``python -m benchmark.process '{"task": "module:function", ...}'``) imports the module, calls
the function with the other entries, and so prepares everything. The function returns a callable; each line on
the child's stdin is one call, answered by one line of JSON. Children that wait use no processor time, so
several can be measured in turn.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

from algorithm.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
MIB = 2**20

Answer = dict[str, Any]
Measure = Callable[[], Answer]


class ChildError(UserError):
    """A measuring process ended without an answer; it has said why on stderr."""

    exit_code: ClassVar[int] = 1


class OutOfTimeError(ChildError):
    """A measuring process was ended because the time given by :func:`within` was up."""


_end_s: ContextVar[float | None] = ContextVar("_end_s", default=None)  # on the clock of time.monotonic


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give the measuring processes that are started in the block so much time; at its end they are killed."""
    outer = _end_s.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _end_s.reset(outer)


class Child:
    """A measuring process; use it in a ``with`` statement.

    Parameters
    ----------
    task : str
        ``module:function`` below :mod:`benchmark`; the function returns what :meth:`measure` calls.
    variables : mapping or None
        What the environment says to OpenMP, whatever is set here or by Python's start-up files
        (``sitecustomize``), which the child does without. None: its environment is this process's.
    **arguments
        Of the function; as JSON can hold them.
    """

    def __init__(self, task: str, *, variables: Mapping[str, str] | None = None, **arguments: Any) -> None:
        self.task = task
        words = ["-m", "benchmark.process", json.dumps({"task": task, **arguments})]
        environment = dict(os.environ)
        if variables is not None:
            words = ["-S", *words]
            kept = {name: each for name, each in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
            environment = {**kept, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
        self._process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._late = False
        self._timer: threading.Timer | None = None
        end_s = _end_s.get()
        if end_s is not None:
            self._timer = threading.Timer(max(0.0, end_s - time.monotonic()), self._end)
            self._timer.daemon = True
            self._timer.start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self._late = True
        self._process.kill()

    def wait_until_ready(self) -> Child:
        """Return when the child has prepared everything; children that are prepared one by one do not disturb."""
        self._answer()
        return self

    def measure(self) -> Answer:
        """Measure once and return what the child says."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the missing answer says it better
        return self._answer()

    def _answer(self) -> Answer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line and self._late:
            raise OutOfTimeError(f"the measuring process {self.task} did not end in the time that it was given")
        if not line:
            raise ChildError(f"the measuring process {self.task} ended with exit code {self._process.wait()}")
        answer: Answer = json.loads(line)
        return answer


def measure_once(task: str, *, variables: Mapping[str, str] | None = None, **arguments: Any) -> Answer:
    """Measure something once in a fresh process."""
    with Child(task, variables=variables, **arguments) as child:
        return child.wait_until_ready().measure()


def peak_host_mib() -> float:
    """Return the largest resident memory of this process so far.

    On Linux from ``VmHWM``: ``ru_maxrss`` is the same figure except that it begins with that of the process that
    started this one.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB on Linux


def serve(specification: str) -> None:
    """Be the child: prepare, then answer every line of stdin; whatever else is printed goes nowhere."""
    arguments = json.loads(specification)
    module, function = arguments.pop("task").split(":")
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers, Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
        measure: Measure = getattr(importlib.import_module(f"benchmark.{module}"), function)(**arguments)
        print("{}", file=answers, flush=True)
        for _ in sys.stdin:
            print(json.dumps(measure()), file=answers, flush=True)


if __name__ == "__main__":
    try:
        serve(sys.argv[1])
    except UserError as error:
        raise SystemExit(f"Error: {error}") from None
