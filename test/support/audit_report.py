"""Judge what pip-audit wrote: ``python -m test.support.audit_report REPORT [--asked]``.

Exit code 0 where no package has a known vulnerability; with ``--asked``, where any package was looked up at all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def looked_up(report: Mapping[str, Any]) -> list[str]:
    """Return the packages that some service could be asked about."""
    return [each["name"] for each in report["dependencies"] if "skip_reason" not in each]


def known_weaknesses(report: Mapping[str, Any]) -> list[str]:
    """Return each known vulnerability as ``package version: identifier``."""
    return [
        f"{each['name']} {each['version']}: {weakness['id']} (mended in: {', '.join(weakness['fix_versions'])})"
        for each in report["dependencies"]
        for weakness in each.get("vulns", [])
    ]


def main(path: Path, *, asked: bool) -> int:
    """Print the verdict; return the exit code."""
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError):
        return 1
    names, weaknesses = looked_up(report), known_weaknesses(report)
    if asked:
        return 0 if names else 1
    print(f"{len(names)} of {len(report['dependencies'])} packages looked up", *weaknesses, sep="\n")
    return 1 if weaknesses else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), asked="--asked" in sys.argv[2:]))
