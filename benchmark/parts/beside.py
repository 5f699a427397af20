"""The product alone and beside a process that keeps one processor busy."""

from __future__ import annotations

import contextlib
import itertools
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack

from benchmark import process
from benchmark.parts.rows import Row, body_text, command, patches_of
from benchmark.results import Section, short, spread, table
from benchmark.session import Session, times

_WINDOWS = 12  # in a row, so that a neighbour is noticed in a small part of the time
_POLICIES: dict[str, Mapping[str, str]] = {
    "spinning (before)": {"GOMP_SPINCOUNT": "300000"},  # libgomp's own default; a variable switches the watch off
    "sleeping": {"OMP_WAIT_POLICY": "passive"},
    "giving way (now)": {},
}
_BEFORE = "spinning (before)"

Times = dict[tuple[str, str], list[float]]


def neighbour(session: Session) -> Section:
    """Time windows and a whole body, alone and beside a busy process, by how threads wait at a barrier."""
    rows: list[Row] = []
    setting = session.options.setting[0]
    patch = session.settings[setting]["patch"]
    precision = session.precisions("cpu")[-1]
    with _busy_process() as switch:
        for what, measure in (
            (f"window of {times(patch)}", _window_times(session, setting, precision, switch)),
            (f"body of {times(session.options.size)}", _body_times(session, setting, precision, switch)),
        ):
            rows += _rows(session, what, precision, measure)
    text = f"""
{body_text(session)}

A window in a row of {_WINDOWS}, and that body from files to mask with one flip, alone and beside a process that
does nothing but count. Median (smallest to largest) of {session.options.repetitions}; all of a kind take turns.
"Spinning": libgomp's threads wait at a barrier as it does by itself, which is how they did before. "Sleeping":
`OMP_WAIT_POLICY=passive`. "Giving way": `algorithm/inference/neighbour.py`, what the product does where no
variable says otherwise.

{table(rows)}

{session.conditions(patches_of(session))}"""
    return Section("Beside a busy process", text)


def _rows(session: Session, what: str, precision: str, seconds: Times) -> list[Row]:
    medians = {key: statistics.median(each) for key, each in seconds.items()}
    return [
        {
            "what": what,
            "precision": precision,
            "threads wait": policy,
            "alone (s)": spread(seconds[policy, "alone"]),
            "beside (s)": spread(seconds[policy, "beside"]),
            "beside / alone before": short(medians[policy, "beside"] / medians[_BEFORE, "alone"]),
            "alone / alone before": short(medians[policy, "alone"] / medians[_BEFORE, "alone"]),
            "command": command(session, "neighbour", device="cpu", precision=[precision]),
        }
        for policy in _POLICIES
    ]


def _window_times(session: Session, setting: str, precision: str, switch: Callable[[bool], None]) -> Times:
    weights = session.files(setting)["weights"]
    with ExitStack() as stack:
        children = {
            policy: stack.enter_context(
                process.Child(
                    "windows:windows",
                    variables=variables,
                    weights=weights,
                    precision=precision,
                    device="cpu",
                    count=_WINDOWS,
                )
            ).wait_until_ready()
            for policy, variables in _POLICIES.items()
        }
        return _in_turn(session, switch, lambda policy: children[policy].measure()["seconds"])


def _body_times(session: Session, setting: str, precision: str, switch: Callable[[bool], None]) -> Times:
    def seconds(policy: str) -> float:
        answer = process.measure_once(
            "segmentation:product",
            variables=_POLICIES[policy],
            **session.files(setting),
            flips=1,
            precision=precision,
            device="cpu",
            box=True,
            save=str(session.folder / "mask.npy"),
        )
        return float(answer["seconds"])

    return _in_turn(session, switch, seconds)


def _in_turn(session: Session, switch: Callable[[bool], None], seconds: Callable[[str], float]) -> Times:
    found: Times = {}
    for _, beside, policy in itertools.product(range(session.options.repetitions), (False, True), _POLICIES):
        switch(beside)
        found.setdefault((policy, "beside" if beside else "alone"), []).append(seconds(policy))
        switch(False)
    return found


@contextlib.contextmanager
def _busy_process() -> Iterator[Callable[[bool], None]]:
    """Yield a switch of a process that keeps one processor busy; off at first."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        busy.send_signal(signal.SIGSTOP)
        try:
            yield lambda on: busy.send_signal(signal.SIGCONT if on else signal.SIGSTOP)
        finally:
            busy.kill()
