"""``python -m test.fuzz --minutes N [--target NAME]``: coverage-guided fuzzing, target after target."""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from test.fuzz.replay import LONGEST_S, attempt, changed, stored
from test.fuzz.seeds import CORPUS
from test.fuzz.targets import TARGETS

FOUND = Path(__file__).resolve().parents[1] / "output" / "fuzz"
MOST_MIB = 1024
MOST_BYTES = 8192

_EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_PROGRESS = re.compile(r"^#(\d+)\s", re.MULTILINE)
_COVERED = re.compile(r"cov: (\d+)")
_PEAK = re.compile(r"stat::peak_rss_mb:\s*(\d+)")


def main() -> int:
    """Fuzz and print a line per target; exit code 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m test.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, metavar="N", help="for all targets together")
    parser.add_argument("--target", choices=TARGETS, action="append", help="this one alone; may be repeated")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the inputs that added coverage there")
    args = parser.parse_args()
    names = args.target or list(TARGETS)
    guided = importlib.util.find_spec("atheris") is not None
    if not guided:
        print("atheris is not installed: changes are made at random, not guided by coverage", flush=True)
    total = finds = 0
    for name in names:
        seconds = 60 * args.minutes / len(names)
        executed, found = fuzz(name, seconds, args.keep) if guided else shake(name, seconds)
        total, finds = total + executed, finds + found
    print(f"{total:,} executions, {finds} find{'' if finds == 1 else 's'}{f' in {FOUND}' if finds else ''}")
    return 1 if finds else 0


def fuzz(name: str, seconds: float, keep: Path | None) -> tuple[int, int]:
    """Fuzz a target under atheris; return the executions and finds. A find ends a process, and another begins."""
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    end, total, finds, seed = time.monotonic() + seconds, 0, 0, 1
    with tempfile.TemporaryDirectory() as scratch:
        grown = keep / name if keep else Path(scratch)
        grown.mkdir(parents=True, exist_ok=True)
        while (left := int(end - time.monotonic())) > 0 or seed == 1:
            before = set(folder.iterdir())
            options = [
                f"-max_total_time={max(left, 1)}",
                f"-max_len={MOST_BYTES}",
                f"-rss_limit_mb={MOST_MIB}",
                f"-timeout={int(LONGEST_S)}",
                f"-artifact_prefix={folder}/",
                f"-seed={seed}",
                "-print_final_stats=1",
                str(grown),
                str(CORPUS / name),
            ]
            done = subprocess.run(
                [sys.executable, "-m", "test.fuzz.guided", name, *options],
                capture_output=True, text=True, errors="replace", check=False,
            )  # fmt: skip
            output = done.stdout + done.stderr
            executed = max(map(int, _EXECUTED.findall(output) or _PROGRESS.findall(output)), default=0)
            total += executed
            new = set(folder.iterdir()) - before
            finds += len(new)
            covered, peak = (pattern.findall(output)[-1:] or ["?"] for pattern in (_COVERED, _PEAK))
            print(
                f"{name}: {executed:,} executions, coverage {covered[0]}, {peak[0]} MiB, finds: {len(new)}",
                flush=True,
            )
            for path in sorted(new):
                print(f"  {path}\n{_tail(output)}", flush=True)
            if done.returncode != 0 and not new:
                print(f"  ended with {done.returncode}\n{_tail(output)}", flush=True)
                finds += 1
                break
            seed += 1
    return total, finds


def shake(name: str, seconds: float) -> tuple[int, int]:
    """Try random changes of a target's corpus; return how many, and the finds."""
    end, count, finds = time.monotonic() + seconds, 0, 0
    folder = FOUND / name
    with tempfile.TemporaryDirectory() as scratch:
        for data in (*stored(name).values(), *changed(name, 10**6)):
            if time.monotonic() > end:
                break
            count += 1
            find = attempt(name, data, Path(scratch))
            if find is not None:
                finds += 1
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"find-{finds}").write_bytes(data)
                print(f"{name}: {folder / f'find-{finds}'}\n{find.reason}", flush=True)
    print(f"{name}: {count:,} executions, finds: {finds}", flush=True)
    return count, finds


def _tail(output: str) -> str:
    lines = [line for line in output.splitlines() if "instrumented" not in line.lower()]
    return "\n".join(f"    {line[:300]}" for line in lines[-30:])


if __name__ == "__main__":
    raise SystemExit(main())
