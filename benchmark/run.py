"""One run of the benchmarks: the parts in turn, their sections printed and written."""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

from algorithm.errors import DeviceError, UsageError
from algorithm.files import check_writable
from algorithm.outputs import check_free
from benchmark import history
from benchmark.parts import GPU, PARTS
from benchmark.results import RESULTS, table, write_results
from benchmark.session import Session

log = logging.getLogger(__name__)

_HEAD = """
# Benchmarks

Written by `python -m benchmark`; every row or section names the command that measures it again. Bodies are
synthetic and say nothing of how well tumours are found.

GPUs stand in sections of their own, "On a GPU: ...", each with its machine. **Where there is no such section, no
GPU has been measured**: `python -m benchmark gpu` does it in under ten minutes.

Beside each figure stand two floors, from what this machine was measured to do at its best:

* **Arithmetic floor**: the operations of all convolutions and matrix products of the published network (counted
  with `torch.utils.flop_counter`, a multiplication with its addition being two), over the rate of one large
  square matrix product or 3x3x3 convolution in the same precision, whichever is faster. No program that does all
  these operations at that rate is faster; convolutions by transforms, which need fewer operations, could be.
* **Bytes floor**: parameters, both inputs and the output once, and the output of each convolution (attention
  projections included) twice, as it is written once and read once, over the rate of a large copy, which counts
  reading and writing. It is what remains when everything between two convolutions is fused into them; only what
  stays in the processor's caches between two layers can undercut it.

The two overlap in time at best: the machine's limit is the larger of them, not their sum. A floor of several
windows is that of one times their number.
"""


def main(args: argparse.Namespace) -> int:
    """Measure the chosen parts, print their tables and write them; returns the exit code.

    Raises
    ------
    DeviceError
        The device asked for, or one that a part needs, is not there.
    OutputError
        What ``--out`` or ``--history`` names is something else, or cannot be written.
    UsageError
        Nothing is measured with the options given, or nothing of it can be recorded.
    """
    check_free(args.out, RESULTS)  # before minutes are spent
    if args.record:
        if args.parts and not {"patch", GPU} & set(args.parts):
            raise UsageError(
                f"--record adds what patch and gpu measure, got {', '.join(args.parts)}; "
                "name one of them too, or leave --record out"
            )
        history.earlier_text(args.history)
        check_writable(args.history)
    with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
        session = Session(args, Path(folder))
        machine = table([{"property": name, "value": value} for name, value in session.machine.items()])
        print(machine, flush=True)
        if not session.devices:
            raise DeviceError(f"--device {args.device}: {session.machine['GPU']}; choose another")
        dropped: list[str] = []
        for name in _chosen(session):
            section = PARTS[name](session)
            print(f"\n{section}", flush=True)
            dropped += write_results(args.out, _HEAD, machine, [section])
    if dropped:
        log.info("left out of %s, being of another machine: %s", args.out, ", ".join(dropped))
    log.info("results: %s", args.out)
    return 0


def _chosen(session: Session) -> list[str]:
    """Return the names of the parts to measure; raises DeviceError where one of them needs a GPU."""
    named: list[str] = session.options.parts
    if GPU in named and "cuda" not in session.devices and session.options.device != "cpu":
        raise DeviceError("no usable GPU was found to measure; run `gpu` where there is one, or add --device cpu")
    return named or [name for name in PARTS if name != GPU or "cuda" in session.devices]
