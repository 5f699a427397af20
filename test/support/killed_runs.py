"""Runs of ``python -m algorithm run`` that are killed at random moments.

Each is a fork, so that none has to import torch.

``python -m test.support.killed_runs FOLDER WEIGHTS COUNT SEED`` kills COUNT runs, half by SIGTERM, half by KILL,
each into an output folder of its own below FOLDER, and prints what it did as JSON. Half of the moments lie in
the last fifth of a run, where files are written; how long a run takes is learnt on the way, as a machine is busy
at one moment and idle at the next.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import algorithm.commands.jobs  # noqa: F401  (so that the forks have torch already)
from algorithm.__main__ import main
from test.support.phantom import INPUT

_PATIENCE_S = 120.0
_LONGER = 1.02


def start(output: Path, weights: Path) -> int:
    """Begin a run in a child process; return its number."""
    child = os.fork()
    if child == 0:
        log = os.open(output.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = 70
        try:
            options = ["--input", INPUT, "--output", output, "--weights", weights, "--flips", "1"]
            code = main(["run", *map(str, options), "--device", "cpu", "--precision", "float32"])
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    """Wait for a child; return its exit code, or minus the signal that ended it."""
    before = time.monotonic()
    while time.monotonic() - before < _PATIENCE_S:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -int(signal.SIGALRM)  # it hung


def kill_some(folder: Path, weights: Path, count: int, seed: int) -> list[dict[str, object]]:
    """Kill runs at random moments and let another run follow each; return what became of them."""
    rng = random.Random(seed)
    ended(start(folder / "first", weights))
    began = time.monotonic()
    whole = ended(start(folder / "whole", weights))
    seconds = time.monotonic() - began
    told: list[dict[str, object]] = [{"run": "whole", "signal": 0, "after_s": seconds, "code": whole}]
    for number in range(count):
        name = f"killed_{number}"
        what = signal.SIGTERM if number % 2 else signal.SIGKILL
        moment = seconds * (rng.uniform(0.8, 1.05) if rng.random() < 0.5 else rng.random())
        child = start(folder / name, weights)
        time.sleep(moment)
        os.kill(child, what)  # one that has ended already is a zombie until it is waited for
        code = ended(child)
        seconds = min(seconds, moment) if code == 0 else seconds * _LONGER
        told.append({"run": name, "signal": int(what), "after_s": moment, "code": code})
    return told


if __name__ == "__main__":
    out, checkpoint, kills, start_of_random = sys.argv[1:5]
    print(json.dumps(kill_some(Path(out), Path(checkpoint), int(kills), int(start_of_random))))
