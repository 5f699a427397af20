from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from algorithm import weights
from algorithm.__main__ import main
from algorithm.commands import installation, jobs
from test.support.checkpoints import write_checkpoint
from test.support.phantom import CT_NAME, INPUT, PET_NAME

CT = INPUT / "images/ct" / f"{CT_NAME}.mha"
PET = INPUT / "images/pet" / f"{PET_NAME}.mha"
AUTOMATED = f"images/automated-petct-lesion-segmentation/{CT_NAME}.mha"
QUICK = ("--device", "cpu", "--precision", "float32", "--flips", "1")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("H2ASEG_", "GRAND_CHALLENGE_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A folder with the test case as ``input`` and an empty ``output``."""
    shutil.copytree(INPUT, tmp_path / "input")
    (tmp_path / "output").mkdir()
    return tmp_path


def run_job(job: Path, checkpoint: Path, *arguments: object) -> int:
    places = ("--input", job / "input", "--output", job / "output", "--weights", checkpoint)
    return main([str(each) for each in ("run", *places, *QUICK, *arguments)])


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class TestMistakes:
    """Each ends in one sentence on stderr and leaves nothing in the output."""

    def fails(
        self, code: int, job: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], *options: str
    ) -> str:
        assert run_job(job, checkpoint, *options) == code
        assert files_in(job / "output") == set()
        err = capsys.readouterr().err
        assert err.startswith("Error: ")
        assert err.count("\n") == 1
        return err.removeprefix("Error: ").rstrip("\n")

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (("--flips", "9"), "--flips must lie between 1 (no mirroring) and 8, got 9"),
            (("--flips", "0"), "--flips must lie between 1 (no mirroring) and 8, got 0"),
            (("--overlap", "1"), "--overlap must be at least 0 and below 1, got 1"),
            (("--time-limit", "0"), "--time-limit must be a positive number of seconds, got 0"),
            (("--time-limit", "nan"), "--time-limit must be a positive number of seconds, got nan"),
            (("--picture", "picture.jpg"), "--picture must be named .png, got picture.jpg"),
            (
                ("--report", "a.png", "--picture", "a.png"),
                "--picture a.png is the name of another result; choose another name",
            ),
            (("--precision", "int8"), "--precision must be auto, float32, bfloat16 or float16, got 'int8'"),
            (("--edition", "VI"), "the edition must be one of I, II, III, IV, V, got 'VI'"),
        ],
    )
    def test_values(self, options, sentence, job, checkpoint, capsys) -> None:
        assert self.fails(2, job, checkpoint, capsys, *options) == sentence

    @pytest.mark.parametrize(
        ("options", "beginning"),
        [
            (("--flips", "many"), "argument --flips: invalid int value: 'many'; see `"),
            (("--colour", "red"), "unrecognized arguments: --colour red; see `"),
        ],
    )
    def test_usage(self, options, beginning, job, checkpoint, capsys) -> None:
        assert self.fails(2, job, checkpoint, capsys, *options).startswith(beginning)

    def test_unknown_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["segment"]) == 2
        assert (
            "must be one of run, serve, predict, suv, preflight, weights, got 'segment'" in capsys.readouterr().err
        )

    @pytest.mark.parametrize("what", ["CT", "PET"])
    def test_damaged_image(self, what, job, checkpoint, capsys) -> None:
        (path,) = (job / "input/images" / what.lower()).iterdir()
        path.write_bytes(path.read_bytes()[:2000])

        assert self.fails(2, job, checkpoint, capsys).startswith(f"cannot read the {what} {path}: ")

    def test_no_weights(self, job, tmp_path, monkeypatch, capsys) -> None:
        monkeypatch.setattr(weights, "MODEL_FOLDER", tmp_path / "model")
        monkeypatch.setattr(weights, "BAKED_IN_FOLDER", tmp_path / "baked")

        assert self.fails(3, job, tmp_path / "none", capsys).startswith("no weights found in ")

    def test_weights_that_are_a_pointer(self, job, capsys) -> None:
        path = write_checkpoint(job / "weights")
        path.with_suffix(".safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")

        assert "is a Git-LFS pointer, not weights; run `git lfs pull`" in self.fails(3, job, path, capsys)

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (
                ("--device", "cuda"),
                "no usable GPU was found; start the container with --gpus all, or use --device cpu",
            ),
            (("--device", "tpu"), "the device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
            (
                ("--require-gpu",),
                "a GPU is required (--require-gpu) but none was found; start the container with --gpus all",
            ),
            (
                ("--precision", "float16"),
                "float16 needs a GPU; use --precision bfloat16, float32 or auto on a CPU",
            ),
        ],
    )
    def test_devices(self, options, sentence, job, checkpoint, capsys, monkeypatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

        assert self.fails(3, job, checkpoint, capsys, *options) == sentence

    def test_mask_folder_that_holds_something(self, job, checkpoint, capsys) -> None:
        other = job / "output" / Path(AUTOMATED).parent / "other.mha"
        other.parent.mkdir(parents=True)
        other.touch()

        assert run_job(job, checkpoint) == 2

        assert "must hold nothing but the mask" in capsys.readouterr().err
        assert files_in(job / "output") == {str(other.relative_to(job / "output"))}

    def test_too_large_for_the_memory(self, job, checkpoint, capsys, monkeypatch) -> None:
        monkeypatch.setenv("GRAND_CHALLENGE_COMPONENT_MAX_MEMORY_MB", "100")

        assert "but only 0.1 GiB may be used" in self.fails(2, job, checkpoint, capsys)

    def test_too_little_time(self, job, checkpoint, capsys) -> None:
        code = main(
            [
                *("run", "--input", str(job / "input"), "--output", str(job / "output")),
                *("--weights", str(checkpoint), "--device", "cpu", "--time-limit", "0.5"),
            ]
        )

        assert code == 2
        assert "the time limit of 0.5 s is too short for this case" in capsys.readouterr().err
        assert files_in(job / "output") == set()

    def test_interrupted(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        def interrupt(args: object) -> int:
            raise KeyboardInterrupt

        monkeypatch.setattr(installation, "preflight", interrupt)

        assert main(["preflight"]) == 130
        assert capsys.readouterr().err == "Error: interrupted; no file was left half written\n"

    def test_a_bug_is_not_hidden(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail(args: object) -> int:
            raise ZeroDivisionError

        monkeypatch.setattr(installation, "preflight", fail)

        assert main(["preflight"]) == 1
        err = capsys.readouterr().err
        assert "\nZeroDivisionError\n" in err
        assert "This is a bug of this software" in err


class TestEnvironment:
    @pytest.fixture
    def seen(self, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        """Whatever ``run`` would be called with."""
        calls: list[object] = []
        monkeypatch.setattr(jobs, "run", lambda args: calls.append(args) or 0)
        return calls

    def test_variables_are_defaults_and_options_win(self, seen, monkeypatch) -> None:
        monkeypatch.setenv("H2ASEG_FLIPS", "4")
        monkeypatch.setenv("H2ASEG_TIME_LIMIT", "12.5")
        monkeypatch.setenv("H2ASEG_REQUIRE_GPU", "1")
        monkeypatch.setenv("H2ASEG_EVERYWHERE", "1")
        monkeypatch.setenv("H2ASEG_WEIGHTS", "/somewhere")
        monkeypatch.setenv("H2ASEG_OVERLAP", "")

        assert main([]) == 0
        assert main(["--flips", "2", "--no-require-gpu", "--no-everywhere"]) == 0

        first, second = seen
        assert (first.flips, first.time_limit, first.overlap, first.require_gpu) == (4, 12.5, None, True)
        assert (first.everywhere, second.everywhere) == (True, False)
        assert first.weights == Path("/somewhere")
        assert (first.input, first.output) == (Path("/input"), Path("/output"))
        assert (second.flips, second.time_limit, second.require_gpu) == (2, 12.5, False)

    @pytest.mark.parametrize(
        ("variable", "value", "message"),
        [
            ("H2ASEG_FLIPS", "all", "H2ASEG_FLIPS must be of the form of --flips"),
            ("H2ASEG_TIME_LIMIT", "5min", "H2ASEG_TIME_LIMIT must be of the form of --time-limit"),
            ("H2ASEG_REQUIRE_GPU", "yes", "H2ASEG_REQUIRE_GPU must be 0 or 1, got 'yes'"),
        ],
    )
    def test_nonsense_is_named(self, variable, value, message, seen, monkeypatch, capsys) -> None:
        monkeypatch.setenv(variable, value)

        assert main([]) == 2
        assert capsys.readouterr().err.startswith(f"Error: {message}")
        assert seen == []
