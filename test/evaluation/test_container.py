"""The evaluation container: predictions.json, job folders and truth in, metrics.json out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evaluation.__main__ import main
from evaluation.container import CASES_FILE, duration_s
from evaluation.scoring import crosscheck
from test.conftest import ROOT
from test.evaluation.scoring.test_metrics import EMPTY, ONE
from test.evaluation.scoring.test_score import TWO, write
from test.support.phase import SLUG, job


@pytest.fixture
def phase(tmp_path: Path) -> Path:
    """Three jobs in another order than their truths; the third failed and left no mask."""
    jobs = [job("9c", "psma_c"), job("1a", "fdg_a"), {**job("5b", "fdg_b"), "status": "Failed", "outputs": []}]
    (tmp_path / "input").mkdir()
    (tmp_path / "input/predictions.json").write_text(json.dumps(jobs))
    write(tmp_path / f"input/9c/output/images/{SLUG}/0f-uuid.mha", ONE)
    write(tmp_path / f"input/1a/output/images/{SLUG}/1f-uuid.mha", TWO)
    for case, mask in (("fdg_a", ONE), ("fdg_b", EMPTY), ("psma_c", ONE)):
        write(tmp_path / f"truth/{case}.nii.gz", mask)
    (tmp_path / "output").mkdir()
    return tmp_path


def run(phase: Path, *options: str) -> int:
    folders = [f"--{name}={phase}/{name}" for name in ("input", "truth", "output")]
    return main(["container", *folders, *options])


def metrics(phase: Path, *options: str) -> dict:
    assert run(phase, *options) == 0
    return json.loads((phase / "output/metrics.json").read_text())


def test_three_jobs_are_scored(phase, capsys):
    content = metrics(phase)
    assert [result["case"] for result in content["results"]] == ["fdg_a", "fdg_b", "psma_c"]
    assert [result["dice"] for result in content["results"]] == [2 / 3, None, 1.0]
    assert content["missing"] == ["fdg_b"]
    assert content["aggregates"]["ranking"]["dice"]["value"] == pytest.approx((2 / 3 + 1) / 2)
    assert [path.name for path in (phase / "output").iterdir()] == ["metrics.json"]
    assert capsys.readouterr().err == ""


def test_the_edition_comes_from_the_environment_or_the_option(phase, monkeypatch):
    monkeypatch.setenv("H2ASEG_EDITION", "IV")
    assert metrics(phase)["edition"] == "IV"
    assert metrics(phase, "--edition", "V")["edition"] == "V"


def test_a_wrong_edition_in_the_environment_is_one_sentence(phase, monkeypatch, capsys):
    monkeypatch.setenv("H2ASEG_EDITION", "VI")
    assert run(phase) == 2
    assert "the edition must be one of I, II, III, IV, V, paper, got 'VI'" in capsys.readouterr().err


def test_a_table_among_the_truths_names_them_and_their_subsets(phase):
    for case in ("fdg_a", "fdg_b", "psma_c"):
        (phase / f"truth/{case}.nii.gz").rename(phase / f"truth/label_{case}.nii.gz")
    rows = [f"{case}_0000.nii.gz,label_{case}.nii.gz,{case[-1].upper()}" for case in ("fdg_a", "fdg_b", "psma_c")]
    (phase / "truth" / CASES_FILE).write_text("\n".join(["case,truth,subset", *rows]))
    content = metrics(phase)
    assert list(content["aggregates"]["subsets"]) == ["A", "B", "C"]
    assert content["results"][0]["dice"] == 2 / 3


def test_a_table_says_tracer_and_grid_as_any_list_of_cases(phase):
    rows = ["case,tracer,truth_grid", "fdg_a,PSMA,own", "fdg_b,,", "psma_c,psma,"]
    (phase / "truth" / CASES_FILE).write_text("\n".join(rows))
    labels = write(phase / "truth/fdg_a.nii.gz", 2 * np.repeat(ONE, 2, 0), spacing=(2.0, 2.5, 1.5))
    assert labels.is_file()
    content = metrics(phase)
    assert [each["subset"] for each in content["results"]] == ["psma", "fdg", "psma"]
    assert content["results"][0]["truth_ml"] > 0
    assert content["cross_check"]["cases"] == 2


def test_truths_without_a_name_are_found_in_a_relative_folder(phase, monkeypatch):
    (phase / "truth" / CASES_FILE).write_text("\n".join(["case,subset", "fdg_a,A", "fdg_b,B", "psma_c,C"]))
    monkeypatch.chdir(phase)
    assert len(metrics(Path())["results"]) == 3


def test_a_tarball_of_one_folder_is_entered(phase):
    (phase / "truth").rename(phase / "labels")
    (phase / "truth").mkdir()
    (phase / "labels").rename(phase / "truth/labels")
    (phase / "truth/._labels").write_bytes(b"Mac OS X")
    assert len(metrics(phase)["results"]) == 3


def test_an_output_with_another_slug_is_taken_if_it_is_the_only_image(phase):
    jobs = [job("1a", "fdg_a", slug="lesions")]
    (phase / "input/predictions.json").write_text(json.dumps(jobs))
    (phase / f"input/1a/output/images/{SLUG}").rename(phase / "input/1a/output/images/lesions")
    assert metrics(phase)["missing"] == ["fdg_b", "psma_c"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is not JSON"),
        ('{"a": 1}', "is not grand-challenge's list of jobs"),
        ('[{"pk": "1a"}]', "is not grand-challenge's list of jobs"),
        ("3", "is not grand-challenge's list of jobs"),
        (json.dumps([job("1a", "fdg_z")]), "no truth in"),
        (json.dumps([job("1a", "fdg_a"), job("9c", "fdg_a")]), "several jobs belong to the truth of fdg_a"),
    ],
)
def test_a_wrong_list_of_jobs_is_one_sentence(phase, capsys, text, told):
    (phase / "input/predictions.json").write_text(text)
    assert run(phase) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert err.count("\n") == 1
    assert not list((phase / "output").iterdir())


def test_no_list_of_jobs_and_no_truth_are_told_apart(phase, capsys):
    (phase / "input/predictions.json").rename(phase / "kept.json")
    assert run(phase) == 2
    assert "cannot read the list of jobs" in capsys.readouterr().err
    (phase / "kept.json").rename(phase / "input/predictions.json")
    assert run(phase, f"--truth={phase}/nowhere") == 2
    assert f"no truth in {phase}/nowhere" in capsys.readouterr().err


def today(entry: dict, **changes) -> dict:
    """Return a job as predictions.json has described it since December 2025."""
    kinds = {"is_image_kind": True, "is_panimg_kind": True, "is_dicom_image_kind": False, "is_json_kind": False}

    def value(each: dict) -> dict:
        old = each["interface"]
        about = {"slug": old["slug"], "relative_path": old["relative_path"], **kinds}
        if each["image"] is None:
            about |= {"is_image_kind": False, "is_panimg_kind": False, "is_json_kind": True}
        return {"socket": about, "file": None, "image": each["image"], "value": each["value"]}

    sides = {side: [value(each) for each in entry[side]] for side in ("inputs", "outputs")}
    return {
        "pk": entry["pk"],
        "status": "Succeeded",
        "exec_duration": None,
        "invoke_duration": None,
        **sides,
        **changes,
    }


def test_todays_list_gives_the_metrics_of_the_old_one(phase):
    old = metrics(phase)
    jobs = [today(each) for each in json.loads((phase / "input/predictions.json").read_text())]
    jobs[2]["status"] = "Failed"
    (phase / "input/predictions.json").write_text(json.dumps(jobs))
    assert metrics(phase) == old


def test_run_times_and_failures_are_reported(phase, capsys):
    jobs = [
        today(job("9c", "psma_c"), invoke_duration="P0DT00H01M15.500000S", exec_duration="PT9H"),
        today(job("1a", "fdg_a"), exec_duration="PT5M30S"),
        today(job("5b", "fdg_b"), status="Failed"),
    ]
    write(phase / f"input/5b/output/images/{SLUG}/left.mha", EMPTY)
    (phase / "input/predictions.json").write_text(json.dumps(jobs))
    content = metrics(phase, "--edition", "III")
    assert content["missing"] == ["fdg_b"], "what a failed job left behind does not count"
    told = content["jobs"]
    assert told["failed"] == [{"pk": "5b", "status": "Failed"}]
    assert (told["seconds"]["mean"], told["seconds"]["max"], told["seconds"]["count"]) == (202.75, 330.0, 2)
    assert (told["limit_s"], told["over_limit"]) == (300.0, ["1a"])
    out = capsys.readouterr().out
    assert "Job 5b did not succeed: Failed" in out
    assert "Run time of 2 jobs: mean 202.8 s, most 330.0 s; 1 over the limit of 300 s" in out


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT0S", 0), ("P1DT2H3M4.5S", 93784.5), ("P2D", 172800), ("PT1.5H", 5400), ("-PT1S", -1)],
)
def test_durations(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "P", "PT", "75", "P1Y", "1:15", "PT-1S", "P1DT"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match=r"not a duration of ISO 8601"):
        duration_s(text)


@pytest.mark.parametrize("change", [{"pk": "../1a"}, {"pk": "/etc"}, {"exec_duration": "soon"}, {"outputs": None}])
def test_what_no_platform_writes_is_one_sentence(phase, capsys, change):
    (phase / "input/predictions.json").write_text(json.dumps([today(job("1a", "fdg_a"), **change)]))
    assert run(phase) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_path_out_of_the_jobs_folder_is_refused(phase, capsys):
    entry = today(job("1a", "fdg_a"))
    entry["outputs"][0]["socket"]["relative_path"] = "../../truth"
    (phase / "input/predictions.json").write_text(json.dumps([entry]))
    assert run(phase) == 2
    assert "does not lie below the job's folder" in capsys.readouterr().err


def test_two_masks_of_one_job_are_an_error(phase, capsys):
    write(phase / f"input/1a/output/images/{SLUG}/second.mha", ONE)
    assert run(phase) == 2
    assert "expected one mask in" in capsys.readouterr().err


def test_a_mask_on_another_grid_fails_and_writes_nothing(phase, capsys):
    write(phase / f"input/1a/output/images/{SLUG}/1f-uuid.mha", ONE, origin=(0.0, 0.0, 0.0))
    assert run(phase) == 2
    assert "resample the prediction" in capsys.readouterr().err
    assert not list((phase / "output").iterdir())


def test_it_needs_nothing_that_the_image_lacks():
    absent = ("matplotlib", "monai", "tensorboard")
    code = f"import sys, evaluation.container; print(*(name for name in {absent} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_every_dice_is_counted_a_second_time(phase):
    assert metrics(phase)["cross_check"] == {"library": "grand-challenge-metrics 0.6.0", "cases": 2}


def test_a_dice_that_the_platforms_library_does_not_count_is_not_reported(phase, capsys, monkeypatch):
    counts = crosscheck.calculate_confusion_matrix
    monkeypatch.setattr(crosscheck, "calculate_confusion_matrix", lambda *given: counts(*given) + 1)
    assert run(phase) == 3
    assert "do not use these scores" in capsys.readouterr().err
    assert not list((phase / "output").iterdir())
