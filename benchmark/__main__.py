"""Benchmarks of the product against the published form: ``python -m benchmark [PART...]``.

Prints tables in Markdown and writes them to ``benchmark/RESULTS.md``; sections of parts that were not
measured stay there as long as the machine is the same. Measure on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from algorithm.errors import UserError
from benchmark.parts import PARTS
from benchmark.process import ChildError
from benchmark.results import table, write_results
from benchmark.session import Session, find_data

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"

_HEAD = """
# Benchmarks

Written by `python -m benchmark`; every row names the command that measures it again. Bodies are synthetic
and say nothing of how well tumours are found.

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen parts and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
            session = Session(options, Path(folder))
            machine = table([{"property": name, "value": value} for name, value in session.machine.items()])
            print(machine, flush=True)
            if not session.devices:
                print(f"Error: --device {options.device}: {session.machine['GPU']}", file=sys.stderr)
                return 3
            dropped: list[str] = []
            for name in options.parts or PARTS:
                section = PARTS[name](session)
                print(f"\n{section}", flush=True)
                dropped += write_results(options.out, _HEAD, machine, [section])
    except ChildError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    if dropped:
        print(f"left out of {options.out}, being of another machine: {', '.join(dropped)}")
    print(f"results: {options.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("parts", nargs="*", type=_part, metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    add("--weights", type=_absolute, help="checkpoint (default: the built-in one, else reference parameters)")
    add("--device", choices=("cpu", "cuda"), help="default: both where there is a GPU")
    add("--precision", nargs="+", choices=("float32", "bfloat16", "float16"), help="default: all of the device")
    add("--repetitions", type=_positive, default=5, help="of patch and startup (default: %(default)s)")
    add("--patch", type=_positive, nargs=3, metavar=("X", "Y", "Z"), help="default: the release's and the default")
    add("--setting", nargs="+", choices=("default", "released"), default=["default"],
        help="of body, startup, growth, deadline: the checkpoint's own patch and spacing, or the release's patch "
        "on the image's own grid (default: default)")  # fmt: skip
    add("--flips", type=int, choices=range(1, 9), default=8, help="of body, agreement (default: %(default)s)")
    add("--windows", type=_positive, help="compute so many windows by MONAI and extrapolate (default: all)")
    add("--size", type=_positive, nargs=3, default=[400, 400, 326], metavar=("X", "Y", "Z"), help="of the body")
    add("--spacing", type=float, nargs=3, default=[2.04, 2.04, 3.0], metavar=("X", "Y", "Z"),
        help="in mm, of a body made without anatomy")  # fmt: skip
    add("--anatomies", type=_absolute, default=find_data("anatomy"), help="folder of STUDY/organs.nii.gz")
    add("--cases", type=_absolute, default=find_data("sts"), help="of agreement: folder or CSV of PET/CT pairs")
    add("--time-limit", type=float, default=60.0, metavar="S", help="of deadline (default: %(default)g)")
    add("--growing-flips", type=int, nargs="+", choices=range(1, 9), default=[1, 2, 4, 8], metavar="N")
    add("--growing-checkpoints", type=_positive, nargs="+", default=[1, 2], metavar="N")
    add("--lesions", type=_positive, default=500, help="of scoring, in each mask (default: %(default)s)")
    add("--out", type=Path, default=RESULTS, metavar="FILE", help="default: benchmark/RESULTS.md")
    return parser


def _absolute(path: str) -> str:
    return str(Path(path).resolve())


def _part(name: str) -> str:
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(PARTS)}, got {name!r}")
    return name


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
