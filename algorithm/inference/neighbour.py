"""A busy neighbour: OpenMP's threads sleep at their barriers while others need the processors, else they spin.

A thread of GNU's OpenMP (libgomp, which torch brings) that arrives first at a barrier spins for some milliseconds
before it sleeps. Alone that is best: waking a sleeper takes longer than most of the network's operations. Beside a
process that keeps a processor busy it is the worst: the thread that waits spins on the processor on which the one
that it waits for could run. On two cores with one other process a window took eight times as long (1.03 s in place
of 0.13 s), and with sleeping threads not twice as long.

``OMP_WAIT_POLICY`` and ``GOMP_SPINCOUNT`` are read once, when the library is loaded, and neighbours come and go.
But libgomp spins 100 times in place of 300,000 while its teams have more threads than there are processors
(``gomp_throttled_spin_count_var`` in libgomp's ``env.c``, ``do_spin`` in ``config/linux/wait.h``). So while
threads of this process have to wait for a processor, a team that does nothing is kept beside the one that
computes. No number changes by that, as it would with fewer threads: how many there are decides how some sums are
formed (in bfloat16 the probabilities of a window of 128x128x64 differ in their last digits between one thread and
two).

Whoever sets one of the two variables has decided, and nothing is done. Nor is it without libgomp or Linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch

_log = logging.getLogger(__name__)

_DECIDED_BY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
_SAMPLE_S = 0.1  # over which waiting is measured while threads spin
_WAITING = 0.2  # of that time, summed over threads: a fair share of one processor with one other process is 0.5
_SLEEP_S = (0.5, 4.0)  # for which threads then sleep; twice as long each time in a row, up to the second
_TASKS = Path("/proc/self/task")


@contextlib.contextmanager
def giving_way() -> Iterator[None]:
    """While the block computes by torch's threads, let those that wait sleep when others need the processors."""
    library = _libgomp() if _worth_it() else None
    if library is None:
        yield
        return
    watch = _Watch(library)
    watch.start()
    try:
        yield
    finally:
        watch.end()


def _worth_it() -> bool:
    return torch.get_num_threads() > 1 and not any(os.environ.get(name) for name in _DECIDED_BY)


def _libgomp() -> ctypes.CDLL | None:
    """Return the libgomp that this process has loaded."""
    try:
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
        path = next(line.split(maxsplit=5)[5] for line in mapped.splitlines() if "/libgomp" in line)
        library = ctypes.CDLL(path)
        library.GOMP_parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        library.GOMP_parallel.restype = None
    except (OSError, StopIteration, AttributeError):
        return None
    return library


class _Watch(threading.Thread):
    """Looks every tenth of a second whether this process's threads have to wait for a processor."""

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__(name="neighbour", daemon=True)
        self._library = library
        self._ended = threading.Event()

    def run(self) -> None:
        """Watch; while threads wait for others, keep the idle team, and look again whether they still would."""
        sleep_s, longest_s = _SLEEP_S
        while True:
            began, before = time.monotonic(), waited_s()
            if self._ended.wait(_SAMPLE_S):
                return
            after, elapsed_s = waited_s(), time.monotonic() - began
            waited = sum(after[thread] - before[thread] for thread in before.keys() & after.keys())
            if waited < _WAITING * elapsed_s:
                sleep_s = _SLEEP_S[0]
                continue
            _log.debug("threads waited %.0f%% of a processor's time: they sleep", 100 * waited / elapsed_s)
            with idle_team(self._library):
                if self._ended.wait(sleep_s):
                    return
            sleep_s = min(2 * sleep_s, longest_s)

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()
        self.join()


def waited_s() -> dict[str, float]:
    """Return for how long each other thread of this process was ready but had no processor, in seconds so far.

    From ``/proc/self/task/*/schedstat`` (Linux, ``Documentation/scheduler/sched-stats.rst``, second number); empty
    where there is no such thing.
    """
    waited = {}
    own = str(threading.get_native_id())
    with contextlib.suppress(OSError):
        for thread in _TASKS.iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
                if thread.name != own:
                    waited[thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
    return waited


@contextlib.contextmanager
def idle_team(library: ctypes.CDLL) -> Iterator[None]:
    """Keep a team of libgomp's that does nothing and brings its threads above the number of processors."""
    missing = max(1, len(os.sched_getaffinity(0)) + 1 - torch.get_num_threads())
    nothing = ctypes.cast(library.omp_get_level, ctypes.c_void_p)  # reads no argument and has no effect
    ready, done = threading.Event(), threading.Event()

    def hold() -> None:
        library.GOMP_parallel(nothing, None, 1 + missing, 0)
        ready.set()
        done.wait()  # libgomp disbands a thread's team when the thread ends

    holder = threading.Thread(target=hold, name="idle team", daemon=True)
    holder.start()
    ready.wait()
    try:
        yield
    finally:
        done.set()
        holder.join()
