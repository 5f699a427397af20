"""The invoke API against a run per case, and the calls of an interactive case."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmark.parts.rows import Row, body_text, command, patches_of
from benchmark.process import ROOT, ChildError
from benchmark.results import Section, short, spread, table
from benchmark.session import Session

_FEW, _MANY = 5, 50  # jobs of one server, between which its memory must not grow
_PLAIN = ("--tune-s", "0")  # so that masks are those of a run
_HALF = 2  # of the body: for those many jobs
_CALLS = 6  # of an interactive case: one without scribbles, five with one more each
_STROKE = 12  # points of a scribble
_HEALTHY_S = 600.0  # at most, until a server that was started is healthy


def serving(session: Session) -> Section:
    """Time jobs through one server against runs of their own, and calls with scribbles against the first."""
    rows = [_row(session, setting) for setting in session.options.setting]
    text = f"""
{body_text(session)}

`python -m algorithm serve` asked for that body {session.options.repetitions} times, against as many runs of
`python -m algorithm run`, one flip, seconds from outside (median, smallest to largest); the masks are compared
byte for byte. "Grown": the server's resident memory after {_MANY} jobs over that after {_FEW}, on half of the
body. "Calls": AutoPET V with a folder as `/cache`, one more scribble of {_STROKE} points each; the first sends the
body through the network.

{table(rows)}

{session.conditions(patches_of(session))}"""
    return Section("Invoke against exec", text)


def _row(session: Session, setting: str) -> Row:
    files, folder = session.files(setting), session.folder / "serving"
    options = ("--weights", files["weights"], "--device", "cpu", "--flips", "1")
    runs, expected = _exec_runs(session, files, folder, options)
    with _server(folder / "served", options) as (ask, pid, healthy_s):
        jobs, same = [], []
        for _ in range(session.options.repetitions):
            _place(files, folder / "served")
            jobs.append(_timed(ask))
            same.append(_mask(folder / "served") == expected)
        grown = _growth(session.files(setting, _HALF), folder / "served", ask, pid)
    calls = _calls(files, folder / "calls", options)
    return {
        "setting": setting,
        "exec (s)": spread(runs),
        "healthy after (s)": short(healthy_s),
        "invoke (s)": spread(jobs),
        "exec / invoke": short(statistics.median(runs) / statistics.median(jobs)),
        "same mask": "yes" if all(same) else "no",
        "grown": short(grown),
        "first call (s)": short(calls[0]),
        "later calls (s)": spread(calls[1:]),
        "command": command(session, "serving", setting=[setting]),
    }


def _exec_runs(
    session: Session, files: dict[str, str], folder: Path, options: Sequence[str]
) -> tuple[list[float], bytes]:
    seconds = []
    for _ in range(session.options.repetitions):
        _place(files, folder / "exec")
        where = ("--input", str(folder / "exec/input"), "--output", str(folder / "exec/output"))
        began = time.monotonic()
        words = [sys.executable, "-m", "algorithm", "run", *where, *options]
        done = subprocess.run(words, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        seconds.append(time.monotonic() - began)
        if done.returncode:
            raise ChildError(f"algorithm run ended with exit code {done.returncode}")
    return seconds, _mask(folder / "exec")


def _calls(files: dict[str, str], folder: Path, options: Sequence[str]) -> list[float]:
    """Return the seconds of each call of one interactive case; ``/output`` and the cache stay."""
    (folder / "cache").mkdir(parents=True)
    seconds: list[float] = []
    points: list[list[int]] = []
    with _server(folder, (*options, "--edition", "V", "--cache", str(folder / "cache"))) as (ask, _, _):
        for call in range(_CALLS):
            _place(files, folder, keep_output=call > 0)
            (folder / "input/lesion-clicks.json").write_text(json.dumps({"tumor": points, "background": []}))
            seconds.append(_timed(ask))
            points = points + [[100 + step, 120 + 20 * call, 60 + 30 * call] for step in range(_STROKE)]
    return seconds


def _growth(files: dict[str, str], folder: Path, ask: _Ask, pid: int) -> float:
    resident = []
    for number in range(1, _MANY + 1):
        _place(files, folder)
        _timed(ask)
        if number in (_FEW, _MANY):
            status = Path(f"/proc/{pid}/status").read_text()
            resident.append(int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]))
    return resident[1] / resident[0]


class _Ask:
    """Asks a server of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self, method: str, path: str) -> tuple[int, str]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=3600)) as connection:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


@contextlib.contextmanager
def _server(folder: Path, options: Sequence[str]) -> Iterator[tuple[_Ask, int, float]]:
    """Yield a caller, the process and the seconds until it was healthy."""
    for name in ("input", "output"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    where = ("--input", str(folder / "input"), "--output", str(folder / "output"))
    began = time.monotonic()
    address = ("--host", "127.0.0.1", "--port", "0")
    words = [sys.executable, "-m", "algorithm", "serve", *address, *_PLAIN, *where, *options]
    with (folder / "log").open("w") as log, subprocess.Popen(words, cwd=ROOT, stdout=log) as process:
        try:
            ask = _healthy(folder / "log", process)
            yield ask, process.pid, time.monotonic() - began
        finally:
            process.terminate()


def _healthy(log: Path, process: subprocess.Popen[bytes]) -> _Ask:
    """Return who asks a server that was started, once it is healthy; its log tells the port."""
    end = time.monotonic() + _HEALTHY_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise ChildError(f"algorithm serve ended with exit code {process.returncode}")
        told = re.search(r"listening on .*:(\d+)$", log.read_text(), re.MULTILINE)
        if told:
            ask = _Ask(int(told.group(1)))
            if ask("GET", "/health")[0] == http.HTTPStatus.OK:
                return ask
        time.sleep(0.02)
    lines = log.read_text().splitlines() or ["nothing"]
    raise ChildError(f"algorithm serve was not healthy after {_HEALTHY_S:g} s; the last that it said: {lines[-1]}")


def _place(files: dict[str, str], folder: Path, *, keep_output: bool = False) -> None:
    for name in ("input",) if keep_output else ("input", "output"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    for name in ("ct", "pet"):
        target = folder / "input/images" / name
        target.mkdir(parents=True)
        shutil.copy(files[name], target / "case.mha")


def _timed(ask: _Ask) -> float:
    began = time.monotonic()
    status, text = ask("POST", "/invoke")
    if status != http.HTTPStatus.CREATED:
        raise ChildError(f"the server answered {status}: {text.strip()}")
    return time.monotonic() - began


def _mask(folder: Path) -> bytes:
    (path,) = (folder / "output/images").rglob("*.mha")
    return path.read_bytes()
