"""Waiting threads sleep beside a busy neighbour, and spin again when it has gone."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from algorithm.inference import neighbour
from algorithm.inference.neighbour import giving_way, waited_s

ROOT = Path(__file__).resolve().parents[3]
_SPINNING = """
import json, os, time

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
import torch
from algorithm.inference import neighbour

torch.set_num_threads(2)
values = torch.zeros(2**18)


def spent() -> float:
    began = time.process_time()
    for _ in range(8):
        values.add_(1)
        time.sleep(0.05)
    return time.process_time() - began


library = neighbour._libgomp()
values.add_(1)
found = [spent()]
for _ in range(2):
    with neighbour.idle_team(library):
        found.append(spent())
    found.append(spent())
print(json.dumps(found))
"""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="libgomp and /proc are Linux's")


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose user said nothing and whose torch computes with two threads."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


@linux
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one processor libgomp never spins")
def test_beside_an_idle_team_threads_do_not_spin() -> None:
    environment = {**os.environ, "GOMP_SPINCOUNT": "3000000", "OMP_NUM_THREADS": "2"}
    for last in (False, False, True):  # beside other tests a thread may have no processor to spin on
        done = subprocess.run(
            [sys.executable, "-c", _SPINNING],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        alone, held, between, again, after = json.loads(done.stdout)
        if last or max(held, again) < 0.3 * min(alone, between, after):
            break
    assert max(held, again) < 0.3 * min(alone, between, after)


@linux
def test_who_has_no_processor_waits() -> None:
    processors = len(os.sched_getaffinity(0))
    stop = threading.Event()
    counter = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)])
    with contextlib.ExitStack() as stack:
        for _ in range(2 * processors):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(busy.wait)
            stack.callback(busy.kill)
        stack.callback(counter.join)
        stack.callback(stop.set)
        counter.start()
        before = waited_s()[str(counter.native_id)]
        end = time.monotonic() + 20
        while waited_s()[str(counter.native_id)] - before < 0.1:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert str(threading.get_native_id()) not in waited_s()


@linux
def test_threads_sleep_while_there_is_a_neighbour_and_no_longer(
    two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, began, states = [0.0], [time.monotonic()], []

    def waited() -> dict[str, float]:
        now = time.monotonic()
        waiting[0] += (now - began[0]) * (0.5 if busy.is_set() else 0.01)
        began[0] = now
        return {"1": waiting[0]}

    @contextlib.contextmanager
    def recorded(library: object) -> Iterator[None]:
        states.append("sleep")
        with original(library):
            yield
        states.append("spin")

    busy, original = threading.Event(), neighbour.idle_team
    monkeypatch.setattr(neighbour, "waited_s", waited)
    monkeypatch.setattr(neighbour, "idle_team", recorded)
    monkeypatch.setattr(neighbour, "_SAMPLE_S", 0.02)
    monkeypatch.setattr(neighbour, "_SLEEP_S", (0.05, 0.1))

    def until(count: int) -> None:
        end = time.monotonic() + 20
        while len(states) < count:
            assert time.monotonic() < end
            time.sleep(0.01)

    with giving_way():
        time.sleep(0.2)
        assert states == []
        busy.set()
        until(5)
        busy.clear()
        until(6)
        time.sleep(0.3)
        settled = len(states)
        time.sleep(0.3)
        assert len(states) == settled
        busy.set()
        until(settled + 1)
    assert states == ["sleep", "spin"] * (len(states) // 2)
    assert not {"neighbour", "idle team"} & {thread.name for thread in threading.enumerate()}


def watching() -> bool:
    return "neighbour" in {thread.name for thread in threading.enumerate()}


@linux
def test_a_failure_ends_the_watch(two_threads: None) -> None:
    def fail() -> None:
        with giving_way():
            assert watching()
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert not watching()


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "passive"), ("GOMP_SPINCOUNT", "3000")])
def test_what_the_user_has_decided_stays(
    two_threads: None, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with giving_way():
        assert not watching()
    assert os.environ[name] == value


def test_one_thread_waits_for_none(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with giving_way():
        assert not watching()


def test_without_libgomp_nothing_is_done(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbour, "_libgomp", lambda: None)
    with giving_way():
        assert not watching()
