"""Print what this Python and its operating system hold, as a software bill of materials (CycloneDX 1.6, JSON).

export.sh runs it inside the image, so that it tells what is really there; hence nothing but the standard library.
It has neither a time stamp nor a serial number: the same image gives the same bytes. Usage:
``python - NAME VERSION < scripts/sbom.py``.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

DPKG_STATUS = Path("/var/lib/dpkg/status")
_LONGEST_NAME = 100  # of a licence: some packages put its whole text there


def bill(name: str, version: str) -> dict[str, Any]:
    """Return the bill of the image ``name`` in ``version``."""
    components = {each["purl"]: each for each in (*_python_packages(), *_system_packages())}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": name,
                "name": name,
                "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": [components[purl] for purl in sorted(components)],
    }


def _python_packages() -> Iterator[dict[str, Any]]:
    yield _component("python", platform.python_version(), f"pkg:generic/python@{platform.python_version()}")
    for each in distributions():
        name = str(each.metadata["Name"]).lower().replace("_", "-")
        component = _component(name, each.version, f"pkg:pypi/{name}@{quote(each.version)}")
        licence = _licence_of(each)
        yield {**component, "licenses": [licence]} if licence else component


def _licence_of(package: Distribution) -> dict[str, Any] | None:
    def entries(key: str) -> list[str]:
        return package.metadata.get_all(key) or []

    for expression in entries("License-Expression"):
        return {"expression": expression}
    named = [each.rpartition(" :: ")[2] for each in entries("Classifier") if each.startswith("License :: ")]
    text = ", ".join(named or [each.partition("\n")[0] for each in entries("License")])
    return {"license": {"name": text[:_LONGEST_NAME]}} if text else None


def _system_packages() -> Iterator[dict[str, Any]]:
    """Yield the packages that Debian's or Ubuntu's dpkg installed."""
    if not DPKG_STATUS.exists():
        return
    system = platform.freedesktop_os_release().get("ID", "debian")
    for paragraph in DPKG_STATUS.read_text(encoding="utf-8", errors="replace").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status") == "install ok installed":
            name, version, arch = (fields[key] for key in ("Package", "Version", "Architecture"))
            yield _component(name, version, f"pkg:deb/{system}/{name}@{quote(version)}?arch={arch}")


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    print(json.dumps(bill(*sys.argv[1:3]), indent=1))
