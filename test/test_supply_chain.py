"""What the images are made of: locks, licences, the bill of materials, and what the repository says of itself."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from test.support.audit_report import known_weaknesses, looked_up

ROOT = Path(__file__).resolve().parent.parent
LOCKED = ("requirements", "requirements-eval")
IN_THE_BASE_IMAGE = {"torch"}

ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "ISC", "MIT", "MPL-2.0", "PSF-2.0", "Zlib",
}  # fmt: skip
"""Licences under which the images may be handed on; MPL-2.0 asks only that changed files be published."""

SPELT_OTHERWISE = {"Apache Software License": "Apache-2.0", "BSD License": "BSD-3-Clause", "MIT License": "MIT"}
TOLD_ELSEWHERE = {"evalutils": "MIT"}
"""Packages whose metadata name no licence; this is what their repositories say."""


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> Iterator[tuple[str, str]]:
    """Yield name and version of a requirements file and those that it includes."""
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            yield from pins(path.parent / line.removeprefix("-r ").strip())
        elif line and not line.startswith("#"):
            name, version = line.split("==")
            yield normalised(name), version.strip()


def locked(path: Path) -> dict[str, tuple[str, bool, int]]:
    """Return version, whether a requirements file asks for it, and the number of hashes, by name."""
    entries = re.split(r"^(?=[a-z0-9])", path.read_text(), flags=re.MULTILINE)
    found = {}
    for entry in entries:
        match = re.match(r"([A-Za-z0-9._-]+)==(\S+)", entry)
        if match:
            asked_for = re.search(r"#.*-r requirements", entry) is not None
            found[normalised(match[1])] = (match[2], asked_for, entry.count("--hash=sha256:"))
    return found


@pytest.mark.parametrize("name", LOCKED)
def test_the_lock_is_that_of_the_requirements(name: str) -> None:
    wanted = {key: version for key, version in pins(ROOT / f"{name}.txt") if key not in IN_THE_BASE_IMAGE}
    lock = locked(ROOT / f"{name}.lock")
    direct = {key: version for key, (version, asked_for, _) in lock.items() if asked_for}
    assert direct == wanted, f"{name}.lock is older than {name}.txt; run scripts/lock.sh"


@pytest.mark.parametrize("name", LOCKED)
def test_the_lock_has_hashes_and_leaves_torch_to_the_base_image(name: str) -> None:
    lock = locked(ROOT / f"{name}.lock")
    assert all(hashes > 0 for _, _, hashes in lock.values())
    assert not {key for key in lock if key == "torch" or key.startswith(("nvidia", "triton"))}


def test_both_images_install_their_lock() -> None:
    for dockerfile, lock in (("Dockerfile", "requirements.lock"), ("Dockerfile.eval", "requirements-eval.lock")):
        text = (ROOT / dockerfile).read_text()
        assert f"--no-deps --require-hashes --requirement {lock}" in text
        assert f"pytorch/pytorch:{dict(pins(ROOT / 'requirements.txt'))['torch']}-" in text


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "Dockerfile.eval"])
def test_code_and_weights_can_be_read_by_all_and_changed_by_root_alone(dockerfile: str, tmp_path: Path) -> None:
    text = (ROOT / dockerfile).read_text()
    copied = re.findall(r"^COPY (\w+) \w+$", text, re.MULTILINE)
    for of_file, of_folder in ((0o600, 0o700), (0o644, 0o755), (0o666, 0o777), (0o640, 0o744)):
        for name in copied:
            folder = tmp_path / name / f"{of_folder:o}"
            folder.mkdir(parents=True)
            (folder / "file").touch()
            (folder / "file").chmod(of_file)
            folder.chmod(of_folder)

    (command,) = re.findall(r"^RUN (find [a-z].*) \\$", text, re.MULTILINE)
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)

    assert "--chown" not in text
    assert len(copied) == 2
    modes = {(each.is_dir(), each.stat().st_mode & 0o777) for each in tmp_path.rglob("*")}
    assert modes == {(True, 0o755), (False, 0o644)}


def licences_of(package: Distribution) -> set[str]:
    def entries(key: str) -> list[str]:
        return [each.partition("\n")[0] for each in package.metadata.get_all(key) or []]

    classified = [each.rpartition(" :: ")[2] for each in entries("Classifier") if each.startswith("License :: ")]
    texts = entries("License-Expression") or classified or entries("License")
    parts = [part.strip("() ") for text in texts for part in re.split(" AND | OR ", text)]
    told = {SPELT_OTHERWISE.get(each, each) for each in parts if each}
    return told or {TOLD_ELSEWHERE.get(normalised(package.metadata["Name"]), "none told")}


def test_licences() -> None:
    installed = {normalised(each.metadata["Name"]): each for each in distributions()}
    wanted = {name for lock in LOCKED for name in locked(ROOT / f"{lock}.lock")} | IN_THE_BASE_IMAGE
    assert wanted <= set(installed)
    refused = {name: licences_of(installed[name]) - ALLOWED for name in sorted(wanted)}
    assert not {name: licences for name, licences in refused.items() if licences}


@pytest.fixture(scope="module")
def sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "scripts" / "sbom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bill_of_materials_is_cyclonedx(sbom: ModuleType) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    text = json.dumps(sbom.bill("h2aseg", "0.1.0"))
    problem = validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(text)
    assert problem is None


def test_the_bill_of_materials_lists_what_is_installed() -> None:
    command = [sys.executable, "-", "h2aseg", "0.1.0"]
    program = (ROOT / "scripts" / "sbom.py").read_bytes()
    first, second = (subprocess.run(command, input=program, capture_output=True, check=True).stdout for _ in "ab")
    assert first == second
    bill = json.loads(first)
    purls = {each["purl"] for each in bill["components"]}
    assert f"pkg:pypi/simpleitk@{dict(pins(ROOT / 'requirements.txt'))['simpleitk']}" in purls
    assert len(purls) == len(bill["components"])


def test_debian_packages_are_listed(sbom: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    status.write_text(
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u1\n"
        "Description: GNU C Library\n more: of it\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"
    )
    monkeypatch.setattr(sbom, "DPKG_STATUS", status)
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "debian"})
    purls = [each["purl"] for each in sbom.bill("h2aseg", "0.1.0")["components"] if "deb/" in each["purl"]]
    assert purls == ["pkg:deb/debian/libc6@2.36-9%2Bdeb12u1?arch=amd64"]


REPORT: dict[str, Any] = {
    "dependencies": [
        {"name": "numpy", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]},
        {"name": "scipy", "version": "1.0", "vulns": []},
        {"name": "tqdm", "skip_reason": "could not be audited"},
    ]
}


def test_packages_that_could_not_be_looked_up_are_not_called_safe() -> None:
    assert looked_up(REPORT) == ["numpy", "scipy"]
    assert known_weaknesses(REPORT) == ["numpy 1.0: PYSEC-1 (mended in: 1.1)"]
    assert looked_up({"dependencies": REPORT["dependencies"][2:]}) == []


def yaml_of(name: str) -> dict[Any, Any]:
    yaml = pytest.importorskip("yaml")
    content = yaml.safe_load((ROOT / name).read_text())
    assert isinstance(content, dict)
    return content


def test_the_citation_is_of_this_version() -> None:
    citation = yaml_of("CITATION.cff")
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert citation["version"] == version[1]
    assert citation["license"] == "Apache-2.0"
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_the_workflow_runs_the_commands_of_the_readme() -> None:
    jobs = yaml_of(".github/workflows/ci.yml")["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {"./run.sh", "./test.sh", "./test.sh pytest"} <= set(commands)
