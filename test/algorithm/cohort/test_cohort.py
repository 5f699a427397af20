"""Cohorts: every layout in one command, resumed, over bad cases, interrupted, by two processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.__main__ import main
from algorithm.cohort.record import is_done, read_record
from algorithm.cohort.tables import write_tables
from algorithm.job import Segmenter
from test.conftest import ROOT
from test.support.checkpoints import write_checkpoint
from test.support.cohorts import names_in, rows, without_seconds

QUICK = ("--device", "cpu", "--precision", "float32", "--flips", "1", "--no-html")
PATIENTS = ("anna", "bert", "carl")


def test_folders_and_tables(cohort, tree, tmp_path, capsys) -> None:
    assert cohort(tree, tmp_path) == 0

    names = [f"{name}_study" for name in PATIENTS]
    assert names_in(tmp_path) == {*names, "cohort.csv", "lesions.csv"}
    lesions = rows(tmp_path / "lesions.csv")
    for row, name in zip(rows(tmp_path / "cohort.csv"), names, strict=True):
        assert names_in(tmp_path / name) == {"tumour.nii.gz", "picture.png", "report.json", "case.json"}
        totals = json.loads((tmp_path / name / "report.json").read_text())["totals"]
        assert (row["case"], row["status"], int(row["lesions"])) == (name, "done", totals["lesions"])
        for column in ("mtv_ml", "tlg_g", "suv_max", "suv_peak"):
            assert float(row[column]) == pytest.approx(totals[column], abs=1e-3)
        own = [each for each in lesions if each["case"] == name]
        assert [int(each["number"]) for each in own] == list(range(1, totals["lesions"] + 1))
        assert sum(float(each["mtv_ml"]) for each in own) == pytest.approx(totals["mtv_ml"], abs=1e-2)
        assert float(row["seconds"]) >= 0
    streams = capsys.readouterr()
    assert "3/3" in streams.out
    assert streams.err == ""


def test_masks_are_those_of_single_runs(cohort, tree, tmp_path, checkpoint) -> None:
    """Nothing goes over from case to case."""
    assert cohort(tree, tmp_path / "cohort") == 0
    for name in PATIENTS:
        pair = [str(tree / name / "study" / f"{image}.nii.gz") for image in ("CTres", "SUV")]
        assert main(["predict", *pair, str(tmp_path / name), "--weights", str(checkpoint), *QUICK]) == 0
        alone = (tmp_path / name / "tumour.nii.gz").read_bytes()
        assert (tmp_path / "cohort" / f"{name}_study" / "tumour.nii.gz").read_bytes() == alone


class TestResuming:
    def test_what_is_done_is_not_done_again(self, cohort, tree, tmp_path, segmented, capsys) -> None:
        assert cohort(tree, tmp_path) == 0
        table = (tmp_path / "cohort.csv").read_bytes()
        segmented.clear()

        assert cohort(tree, tmp_path) == 0

        assert segmented == []
        assert "3 of 3 cases are done already" in capsys.readouterr().out
        assert (tmp_path / "cohort.csv").read_bytes() == table

    @pytest.mark.parametrize("harm", [Path.unlink, lambda report: report.write_text("{")], ids=["gone", "damaged"])
    def test_tables_outlive_a_report(self, harm, cohort, tree, tmp_path) -> None:
        assert cohort(tree, tmp_path) == 0
        cases = [f"{name}_study" for name in PATIENTS]
        harm(tmp_path / cases[1] / "report.json")

        write_tables(tmp_path, cases, [read_record(tmp_path / case).key for case in cases])

        table = rows(tmp_path / "cohort.csv")
        assert [row["status"] for row in table] == ["done", "not done", "done"]

    @pytest.mark.parametrize("harm", ["mask", "report", "record", "no mask"])
    def test_what_is_not_whole_is_done_again(self, harm, cohort, tree, tmp_path, segmented) -> None:
        assert cohort(tree, tmp_path) == 0
        before = without_seconds(tmp_path / "cohort.csv")
        folder = tmp_path / "bert_study"
        if harm == "no mask":
            (folder / "tumour.nii.gz").unlink()
        else:
            name = {"mask": "tumour.nii.gz", "report": "report.json", "record": "case.json"}[harm]
            (folder / name).write_bytes((folder / name).read_bytes()[:-5])
        segmented.clear()

        assert cohort(tree, tmp_path) == 0

        assert segmented == ["bert"]
        assert without_seconds(tmp_path / "cohort.csv") == before

    def test_a_mask_that_somebody_corrected_stays(self, cohort, tree, tmp_path, capsys) -> None:
        assert cohort(tree, tmp_path) == 0
        mask = tmp_path / "bert_study/tumour.nii.gz"
        image = sitk.ReadImage(mask)
        corrected = sitk.GetImageFromArray(sitk.GetArrayFromImage(image))  # without the note that says whose it is
        sitk.WriteImage(corrected, mask)
        before = mask.read_bytes()

        assert cohort(tree, tmp_path) == 4

        assert mask.read_bytes() == before
        assert "tumour.nii.gz" in capsys.readouterr().out

    def test_somebody_elses_file_where_a_record_goes_stays(
        self, cohort, tree, tmp_path, capsys, segmented
    ) -> None:
        note = tmp_path / "carl_study/case.json"
        note.parent.mkdir()
        note.write_text('{"case": "of mine"}')

        assert cohort(tree, tmp_path) == 2

        assert note.read_text() == '{"case": "of mine"}'
        assert f"{note} is there already and is not a case's record" in capsys.readouterr().err
        assert segmented == []

    @pytest.mark.parametrize("change", ["weights", "threshold", "overlap", "image"])
    def test_another_request_is_done_anew(self, change, checkpoint, tree, tmp_path, segmented) -> None:
        copy = Path(shutil.copytree(tree, tmp_path / "tree"))
        options = ["predict", "--cases", str(copy), str(tmp_path / "out"), *QUICK]
        assert main([*options, "--weights", str(checkpoint)]) == 0
        segmented.clear()
        if change == "image":
            image = sitk.ReadImage(copy / "anna/study/SUV.nii.gz")
            sitk.WriteImage(image * 1.1, copy / "anna/study/SUV.nii.gz")
        if change == "weights":
            checkpoint = write_checkpoint(tmp_path / "other", seed=1)
        if change == "threshold":  # as `training cleanup --write` does
            checkpoint = write_checkpoint(tmp_path / "other", threshold=0.4)

        more = ["--overlap", "0.5"] if change == "overlap" else []
        assert main([*options, "--weights", str(checkpoint), *more]) == 0

        assert segmented == (["anna"] if change == "image" else list(PATIENTS))

    @pytest.mark.slow
    def test_after_sigkill(self, cohort, tree, tmp_path, checkpoint) -> None:
        """Killed after the first case; what goes on gives the table of a run that nobody disturbed."""
        assert cohort(tree, tmp_path / "undisturbed") == 0
        out = tmp_path / "killed"
        process = start(tree, out, checkpoint, environment={"CASES_BEFORE_WAITING": "1"})
        wait_for(lambda: read_record(out / "anna_study") is not None, process)
        process.kill()
        process.wait()
        assert not (out / "cohort.csv").exists()
        (out / ".partial-0123-tumour.nii.gz").write_text("half")  # as a kill amid writing leaves

        assert cohort(tree, out) == 0

        assert without_seconds(out / "cohort.csv") == without_seconds(tmp_path / "undisturbed" / "cohort.csv")
        assert (out / "lesions.csv").read_bytes() == (tmp_path / "undisturbed" / "lesions.csv").read_bytes()
        assert not list(out.glob(".partial*"))


class TestBadCases:
    def test_one_does_not_stop_the_rest(self, cohort, tree, tmp_path, capsys) -> None:
        copy = Path(shutil.copytree(tree, tmp_path / "tree"))
        (copy / "bert/study/SUV.nii.gz").write_bytes(b"")

        assert cohort(copy, tmp_path / "out") == 4

        table = rows(tmp_path / "out" / "cohort.csv")
        assert [row["status"] for row in table] == ["done", "failed", "done"]
        assert "cannot read the PET" in table[1]["notes"]
        streams = capsys.readouterr()
        assert "failed: bert_study: cannot read the PET" in streams.out
        assert streams.err.startswith("Error: 1 of 3 cases could not be segmented (bert_study); ")
        assert streams.err.count("\n") == 1

    def test_a_case_that_fails_now_keeps_no_earlier_result(self, cohort, tree, tmp_path) -> None:
        copy = Path(shutil.copytree(tree, tmp_path / "tree"))
        assert cohort(copy, tmp_path / "out") == 0
        (copy / "bert/study/SUV.nii.gz").write_bytes(b"")

        assert cohort(copy, tmp_path / "out") == 4

        assert names_in(tmp_path / "out" / "bert_study") == {"case.json"}

    def test_a_mended_case_is_tried_again(self, cohort, tree, tmp_path, segmented) -> None:
        copy = Path(shutil.copytree(tree, tmp_path / "tree"))
        (copy / "bert/study/SUV.nii.gz").write_bytes(b"")
        assert cohort(copy, tmp_path / "out") == 4
        shutil.copy(tree / "bert/study/SUV.nii.gz", copy / "bert/study/SUV.nii.gz")
        segmented.clear()

        assert cohort(copy, tmp_path / "out") == 0

        assert segmented == ["bert"]

    def test_a_bug_is_a_failed_case_too(self, cohort, tree, tmp_path, monkeypatch) -> None:
        segment = Segmenter.segment

        def fail(self, ct, pet, *arguments, **options):
            if "carl" in str(ct):
                raise ZeroDivisionError("nothing")
            return segment(self, ct, pet, *arguments, **options)

        monkeypatch.setattr(Segmenter, "segment", fail)

        assert cohort(tree, tmp_path) == 4

        assert rows(tmp_path / "cohort.csv")[2]["notes"].startswith("ZeroDivisionError: nothing. This is a bug")

    def test_somebody_elses_files_stay(self, cohort, tree, tmp_path, capsys) -> None:
        """In a case's folder they fail that case, in the place of a table they end the run before it begins."""
        (tmp_path / "bert_study").mkdir()
        (tmp_path / "bert_study" / "report.json").write_text("{}")
        assert cohort(tree, tmp_path) == 4
        assert [row["status"] for row in rows(tmp_path / "cohort.csv")] == ["done", "failed", "done"]
        assert (tmp_path / "bert_study" / "report.json").read_text() == "{}"

        (tmp_path / "lesions.csv").write_text("mine")
        assert cohort(tree, tmp_path) == 2
        assert (tmp_path / "lesions.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (("--report", "r.json"), "--report is for one case"),
        (("--pet-series", "1.2"), "--pet-series is for one case"),
        (("--weight-kg", "70"), "--weight-kg is for one case"),
        (("--dicom-seg",), "--dicom-seg needs the PET's DICOM files"),
        (("another",), "takes one path, the folder for the results, got 2"),
    ],
)
def test_mistakes_end_before_anything_begins(cohort, tree, tmp_path, capsys, more, part) -> None:
    assert cohort(tree, tmp_path / "out", *more) == 2
    assert part in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
class TestSigint:
    def test_ends_after_the_running_case(self, tree, tmp_path, checkpoint, cohort) -> None:
        process = start(tree, tmp_path, checkpoint, environment={"CASES_BEFORE_WAITING": "1"})
        wait_for(lambda: (tmp_path / "waiting").exists(), process)
        process.send_signal(signal.SIGINT)

        out, err = process.communicate(timeout=60)

        assert process.returncode == 130
        assert err == "Error: interrupted after the running case; the same command goes on from there\n"
        assert "ending after the case that runs now" in out
        assert [row["status"] for row in rows(tmp_path / "cohort.csv")] == ["done", "done", "not done"]

        assert cohort(tree, tmp_path) == 0
        assert [row["status"] for row in rows(tmp_path / "cohort.csv")] == ["done"] * 3

    def test_twice_ends_at_once(self, tree, tmp_path, checkpoint) -> None:
        process = start(tree, tmp_path, checkpoint, environment={"CASES_BEFORE_WAITING": "1", "WAIT_S": "600"})
        wait_for(lambda: (tmp_path / "waiting").exists(), process)
        process.send_signal(signal.SIGINT)
        time.sleep(2)  # two that come before the first is seen are one
        process.send_signal(signal.SIGINT)

        process.communicate(timeout=60)

        assert process.returncode == 130
        assert not (tmp_path / "bert_study").exists()


def test_who_ignores_interrupts_goes_on_doing_so(cohort, tree, tmp_path, monkeypatch) -> None:
    segment = Segmenter.segment

    def interrupted(self, *arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return segment(self, *arguments, **options)

    monkeypatch.setattr(Segmenter, "segment", interrupted)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert cohort(tree, tmp_path) == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_two_processes_give_the_masks_of_one(cohort, tree, tmp_path, checkpoint) -> None:
    assert cohort(tree, tmp_path / "one") == 0
    command = ("predict", "--cases", tree, tmp_path / "two", "--weights", checkpoint, *QUICK)

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "2",
            "-m",
            "algorithm",
            *map(str, command),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    for name in PATIENTS:
        one, two = (sitk.ReadImage(tmp_path / which / f"{name}_study/tumour.nii.gz") for which in ("one", "two"))
        np.testing.assert_array_equal(*map(sitk.GetArrayFromImage, (one, two)))
        record = read_record(tmp_path / "two" / f"{name}_study")
        assert record is not None
        assert is_done(tmp_path / "two" / f"{name}_study", record.key)
    assert without_seconds(tmp_path / "two" / "cohort.csv") == without_seconds(tmp_path / "one" / "cohort.csv")


_SLOW = """
import os, sys, time
from pathlib import Path
from algorithm.__main__ import main
from algorithm.job import Segmenter

segment, calls = Segmenter.segment, []

def slow(self, *arguments, **options):
    calls.append(1)
    if len(calls) > int(os.environ["CASES_BEFORE_WAITING"]):
        Path(os.environ["OUT"], "waiting").touch()
        end = time.monotonic() + float(os.environ.get("WAIT_S", "3"))
        while len(calls) == int(os.environ["CASES_BEFORE_WAITING"]) + 1 and time.monotonic() < end:
            time.sleep(0.05)
    return segment(self, *arguments, **options)

Segmenter.segment = slow
raise SystemExit(main(sys.argv[1:]))
"""


def start(tree: Path, out: Path, checkpoint: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start a cohort in a process that waits a while before a case."""
    command = ("predict", "--cases", tree, out, "--weights", checkpoint, *QUICK)
    return subprocess.Popen(
        [sys.executable, "-c", _SLOW, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "OUT": str(out), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs ignore it, and so would what they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
