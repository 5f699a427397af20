"""One target under atheris, in a process of its own: ``python -m test.fuzz.guided TARGET [OPTION ...]``."""

from __future__ import annotations

import logging
import random
import sys
import tempfile
from pathlib import Path


def main(name: str, options: list[str]) -> None:
    """Fuzz until the options say stop; libFuzzer ends the process."""
    import atheris

    # What guides the fuzzer must be instrumented before anything imports it.
    with atheris.instrument_imports(include=["algorithm", "evaluation", "pydicom.filereader", "pydicom.valuerep"]):
        from test.fuzz.targets import TARGETS, try_once
    target = TARGETS[name]
    logging.disable(logging.CRITICAL)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if seed % 3 == 0:
            return bytes(atheris.Mutate(data, most))
        return target.mutate(data, random.Random(seed))[:most]

    with tempfile.TemporaryDirectory() as folder:

        def once(data: bytes) -> None:
            try_once(target, data, Path(folder))

        atheris.Setup([sys.argv[0], *options], once, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
