"""build.sh, export.sh and run.sh with stand-ins for docker and Python; test/container.sh takes the real ones."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = b"weights of no network"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
COPIED = (
    "build.sh",
    "export.sh",
    "run.sh",
    "scripts",
    "pyproject.toml",
    *(p.name for p in ROOT.glob("requirements*")),
)


class Project:
    """A copy of the scripts with fake weights and a docker that notes what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a clone"
        self.caller = folder / "elsewhere"
        self.docker_log = folder / "docker.log"
        self.bin = folder / "bin"
        for path in (self.root / "weights", self.caller, self.bin):
            path.mkdir(parents=True)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self.root / name)
        self.weights = self.root / "weights" / "h2aseg.safetensors"
        self.weights.write_bytes(WEIGHTS)
        self.weights.with_suffix(".json").write_text(f'{{\n  "sha256": "{SHA256}"\n}}\n')
        self.docker(help_text="--provenance string")

    def docker(
        self, *, help_text: str, save: str = "echo layers", info: str = "true", inspect: str = "exit 1"
    ) -> None:
        write_script(
            self.bin / "docker",
            f"""
            case "$*" in
                'build --help') echo '{help_text}' ;;
                save*) {save} ;;
                info) {info} ;;
                'image inspect '*) {inspect} ;;
                *) printf '%s\\n' "$@" >> '{self.docker_log}' ;;
            esac
            """,
        )

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script from another folder than its own."""
        variables = {"PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": str(self.caller), **environment}
        return subprocess.run(
            [self.root / script, *arguments],
            cwd=self.caller,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )

    def docker_arguments(self) -> list[str]:
        return self.docker_log.read_text().splitlines() if self.docker_log.exists() else []


def write_script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}")
    path.chmod(0o755)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def assert_one_sentence(result: subprocess.CompletedProcess[str], code: int, part: str) -> None:
    assert result.returncode == code, result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert part in result.stderr


@pytest.mark.parametrize("script", [("build.sh",), ("export.sh", "model")])
@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "is missing or empty"),
        (b"", "is missing or empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (WEIGHTS + b"!", "is not the one in"),
    ],
)
def test_bad_weights_are_refused(
    project: Project, script: tuple[str, ...], content: bytes | None, part: str
) -> None:
    if content is None:
        project.weights.unlink()
    else:
        project.weights.write_bytes(content)
    result = project.run(*script)
    assert_one_sentence(result, 3, part)
    assert str(project.weights) in result.stderr
    assert not project.docker_arguments()
    assert not list(project.root.glob("*.tar.gz*"))


def test_build_labels_the_image(project: Project) -> None:
    result = project.run("build.sh", BASE_IMAGE="registry.example/torch:1")
    assert result.returncode == 0, result.stderr
    arguments = project.docker_arguments()
    assert "--provenance=false" in arguments
    assert {f"WEIGHTS_SHA256={SHA256}", "BASE_IMAGE=registry.example/torch:1", "linux/amd64"} <= set(arguments)
    version = next(argument for argument in arguments if argument.startswith("VERSION=")).removeprefix("VERSION=")
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
    assert f"h2aseg:{version}" in arguments
    assert arguments[-1] == str(project.root)


def test_build_keeps_to_what_an_old_docker_knows(project: Project) -> None:
    project.docker(help_text="--tag list")
    assert project.run("build.sh").returncode == 0
    assert "--provenance=false" not in project.docker_arguments()


def test_the_evaluation_image_needs_no_weights(project: Project) -> None:
    shutil.rmtree(project.root / "weights")
    assert project.run("build.sh", "eval").returncode == 0
    assert str(project.root / "Dockerfile.eval") in project.docker_arguments()


def test_model_archive_is_flat_readable_and_repeatable(project: Project) -> None:
    archive = project.root / "model.tar.gz"
    project.weights.chmod(0o600)
    assert project.run("export.sh", "model").returncode == 0
    first = archive.read_bytes()
    with tarfile.open(archive) as content:
        assert {entry.name: entry.mode for entry in content} == {"h2aseg.json": 0o644, "h2aseg.safetensors": 0o644}
        stored = content.extractfile("h2aseg.safetensors")
        assert stored is not None
        assert stored.read() == WEIGHTS
    os.utime(project.weights, (1, 1))
    assert project.run("export.sh", "model").returncode == 0
    assert archive.read_bytes() == first


def test_an_image_averages_nothing_by_accident(project: Project) -> None:
    shutil.copy(project.weights, project.root / "weights" / "mine.safetensors")
    result = project.run("build.sh")
    assert_one_sentence(result, 3, "weights/ holds mine.safetensors beside h2aseg.safetensors")
    assert not project.docker_arguments()


@pytest.mark.parametrize("edition", ["IV", "V", ""])
@pytest.mark.parametrize("which", [(), ("eval",)])
def test_an_image_of_an_edition(project: Project, which: tuple[str, ...], edition: str) -> None:
    assert project.run("build.sh", *which, EDITION=edition).returncode == 0
    assert f"EDITION={edition}" in project.docker_arguments()


@pytest.mark.parametrize("which", [(), ("eval",)])
def test_what_is_packed_is_what_was_built(project: Project, which: tuple[str, ...]) -> None:
    project.docker(help_text="", inspect="""case "$*" in *Env*) echo H2ASEG_EDITION=V ;; *) echo exec ;; esac""")
    assert project.run("export.sh", *which).returncode == 0
    assert {"EDITION=V", "API_METHOD=exec"} < set(project.docker_arguments())
    project.docker_log.unlink()
    assert project.run("export.sh", *which, EDITION="IV", API_METHOD="invoke").returncode == 0
    assert {"EDITION=IV", "API_METHOD=invoke"} < set(project.docker_arguments())


def test_an_edition_that_there_is_not(project: Project) -> None:
    assert_one_sentence(project.run("build.sh", EDITION="6"), 2, "EDITION must be I, II, III, IV or V, got '6'")


def test_model_archive_of_checkpoints_that_are_named(project: Project) -> None:
    for name in ("a/one", "b/two"):
        for suffix in (".json", ".safetensors"):
            copy = (project.caller / name).with_suffix(suffix)
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(project.weights.with_suffix(suffix), copy)
    assert project.run("export.sh", "model", "a/one.json", "b/two.json").returncode == 0
    with tarfile.open(project.root / "model.tar.gz") as content:
        assert content.getnames() == ["one.json", "one.safetensors", "two.json", "two.safetensors"]

    shutil.copy(project.caller / "a/one.json", project.caller / "b/one.json")
    result = project.run("export.sh", "model", "a/one.json", "b/one.json")
    assert_one_sentence(result, 2, "several checkpoints are called one.json")
    assert_one_sentence(project.run("export.sh", "model", "no.json"), 3, "no.safetensors is missing or empty")


def test_image_archive_appears_whole_or_not_at_all(project: Project) -> None:
    project.docker(help_text="", save="echo half; exit 1")
    assert project.run("export.sh").returncode != 0
    assert not list(project.root.glob("*.tar.gz*"))
    project.docker(help_text="")
    assert project.run("export.sh").returncode == 0
    assert [path.suffixes[-2:] for path in project.root.glob("*.tar.gz*")] == [[".tar", ".gz"]]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run.sh", "one"],
        ["run.sh", "--cases", "tree"],
        ["run.sh", "a", "b", "c", "d"],
        ["build.sh", "evil"],
        ["export.sh", "evil"],
        ["export.sh", "handover", "a", "b", "c"],
    ],
)
def test_wrong_arguments(project: Project, arguments: list[str]) -> None:
    assert_one_sentence(project.run(*arguments), 2, "usage: ")


def fake_environment(project: Project) -> None:
    """Make an environment that counts as installed, whose Python prints its arguments."""
    binaries = project.root / ".venv" / "bin"
    binaries.mkdir(parents=True)
    write_script(binaries / "python", 'printf "%s\\n" "$@"\n')
    requirements = b"".join(path.read_bytes() for path in sorted(project.root.glob("requirements*.txt")))
    for name in ("requirements.txt", "requirements-clinic.txt"):
        stamp = project.root / ".venv" / f"{name}.installed"
        stamp.write_text(hashlib.sha256(requirements).hexdigest() + "\n")


def test_run_takes_paths_as_the_caller_means_them(project: Project) -> None:
    fake_environment(project)
    result = project.run("run.sh", "my ct.nii.gz", "/data/pet.mha", "out")
    expected = [
        "-m",
        "algorithm",
        "predict",
        project.caller / "my ct.nii.gz",
        "/data/pet.mha",
        project.caller / "out",
    ]
    # The first line is the check that this Python runs at all.
    assert result.stdout.splitlines()[-6:] == [str(part) for part in expected]


@pytest.mark.parametrize("words", [(), ("ct.mha", "pet.mha", "out")])
def test_run_takes_paths_in_the_environment_as_the_caller_means_them(
    project: Project, words: tuple[str, ...]
) -> None:
    fake_environment(project)
    write_script(project.root / ".venv" / "bin" / "python", 'env | grep "^H2ASEG_" | sort\n')
    options = {
        f"H2ASEG_{name}": f"my {name}" for name in ("CACHE", "CASES", "PICTURE", "REPORT", "TUNING", "WEIGHTS")
    }
    result = project.run("run.sh", *words, **{**options, "H2ASEG_REPORT": "/tmp/r.json", "H2ASEG_DEVICE": "cpu"})
    expected = {name: str(project.caller / value) for name, value in options.items()}
    expected |= {"H2ASEG_REPORT": "/tmp/r.json", "H2ASEG_DEVICE": "cpu"}
    assert dict(line.split("=", 1) for line in result.stdout.splitlines()[-len(expected) :]) == expected


@pytest.mark.parametrize(
    "words", [("my study", "out"), ("--cases", "all of them", "out"), ("my study", "pet.mha", "out")]
)
def test_run_takes_studies_and_cohorts(project: Project, words: tuple[str, ...]) -> None:
    """They need more than the container has: another requirements file."""
    fake_environment(project)
    (project.root / ".venv" / "requirements.txt.installed").unlink()
    (project.caller / "my study").mkdir()
    result = project.run("run.sh", *words)
    assert result.returncode == 0, result.stderr
    expected = [word if word.startswith("--") else str(project.caller / word) for word in words]
    assert result.stdout.splitlines()[-len(words) - 3 :] == ["-m", "algorithm", "predict", *expected]


def test_run_segments_the_example_and_leaves_what_lies_where_its_mask_goes(project: Project) -> None:
    fake_environment(project)
    somebodys = project.root / "output" / "cohort.csv"
    somebodys.parent.mkdir()
    somebodys.touch()
    result = project.run("run.sh")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-6:] == ["algorithm", "run", "--input", "test/input", "--output", "output"]
    assert somebodys.exists()


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("exit 1\n", "no Python 3.11 or newer"),
        ('case "$*" in *ensurepip*) exit 1;; esac\n', "sudo apt install python3-venv"),
    ],
)
def test_a_python_that_will_not_do(project: Project, body: str, part: str) -> None:
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        write_script(project.bin / name, body)
    assert_one_sentence(project.run("run.sh"), 3, part)
    assert not (project.root / ".venv").exists()


def test_handover_of_the_example_names_the_image(project: Project) -> None:
    fake_environment(project)
    result = project.run("export.sh", "handover")
    assert result.returncode == 0, result.stderr
    image = next(argument for argument in project.docker_arguments() if argument.startswith("h2aseg:"))
    out = project.root / f"h2aseg-{image.removeprefix('h2aseg:')}-handover"
    lines = result.stdout.splitlines()
    assert lines[-10:-7] == ["-m", "evaluation", "handover"]
    expected = ["--cases", project.root / "test" / "cases.csv", "--out", out, "--image", image]
    assert lines[-7:-1] == [str(part) for part in expected]
    assert lines[-1].endswith(f"verify {out} --input {project.root / 'test'}")


def test_handover_without_an_engine_takes_the_callers_paths(project: Project) -> None:
    fake_environment(project)
    project.docker(help_text="", info="exit 1")
    (project.caller / "cases").mkdir()
    result = project.run("export.sh", "handover", "cases", "bundle")
    assert result.returncode == 0, result.stderr
    assert "--image" not in result.stdout.splitlines()
    assert "will not name the image" in result.stdout
    folder, out = project.caller / "cases", project.caller / "bundle"
    lines = result.stdout.splitlines()
    assert lines[-5:-1] == ["--cases", str(folder), "--out", str(out)]
    assert lines[-1].endswith(f"verify {out} --input {folder}")
    assert not project.docker_arguments()
