from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from algorithm.weights import load_checkpoint
from evaluation.__main__ import main as evaluate
from test.support.training_runs import (
    folds_options,
    in_two_processes,
    options,
)
from test.support.trees import write_tree
from training.__main__ import main
from training.baselines import best_threshold
from training.splits import read_split

FOLDERS = ("SUV_2.5", "SUV_4", "41_of_SUVmax", "best_threshold_knows_the_truth", "network", "network_8_flips")


def test_crossvalidation_scores_each_patient_once_by_a_network_that_never_saw_them(
    tree, cache_folder, tmp_path, capsys
):
    arguments = folds_options(tree, cache_folder, tmp_path, "--steps", "2", "--folds", "2", "--without", "tamw")
    assert main(arguments) == 0
    first = capsys.readouterr().out

    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    methods = [
        "SUV >= 2.5",
        "SUV >= 4",
        "41 % of SUVmax",
        "best threshold (knows the truth)",
        "network",
        "network, 8 flips",
    ]
    assert sorted((row["case"], row["method"]) for row in rows) == sorted(
        (f"{name}_study", method) for name in "abcde" for method in methods
    )
    for row in rows:
        split = read_split(tmp_path / f"fold_{row['fold']}" / "split.json")
        assert row["patient"] in split.test
        assert row["patient"] not in split.train
    by_method = {row["method"]: row for row in rows if row["case"] == "a_study"}
    assert float(by_method["SUV >= 4"]["dice"]) > 0.95  # the ball has SUV 7, the rest of the body 1
    assert float(by_method["SUV >= 4"]["dice"]) <= float(by_method["best threshold (knows the truth)"]["dice"])
    for fold in range(2):
        description = load_checkpoint(tmp_path / f"fold_{fold}" / "last.json").description
        assert (description.architecture.mcsa, description.architecture.tamw) == (True, False)
    folders = {method: tmp_path / "masks" / name for method, name in zip(methods, FOLDERS, strict=True)}
    for folder in folders.values():
        assert sorted(path.name for path in folder.iterdir()) == [f"{name}_study.nii.gz" for name in "abcde"]
    assert "| network, 8 flips |" in (tmp_path / "table.md").read_text()
    assert set(json.loads((tmp_path / "scores.json").read_text())["summary"]) == set(methods)

    for method, folder in folders.items():
        again = tmp_path / "again.csv"
        score = ["score", "--prediction", str(folder), "--truth", str(tree), "--edition", "paper"]
        assert evaluate([*score, "--cases", str(tmp_path / "cases.csv"), "--csv", str(again)]) == 0
        expected = {row["case"].replace("/", "_"): row for row in rows if row["method"] == method}
        scored = list(csv.DictReader(again.read_text().splitlines()))
        assert sorted(row["case"] for row in scored) == sorted(expected)
        for row in scored:
            for name in ("dice", "fpv_ml", "fnv_ml", "hd95_mm"):
                assert float(row[name] or "nan") == pytest.approx(float(expected[row["case"]][name]), nan_ok=True)
    capsys.readouterr()

    stamps = [path.stat().st_mtime_ns for path in (tmp_path / "masks").rglob("*.nii.gz")]
    assert main(arguments) == 0
    assert stamps == [path.stat().st_mtime_ns for path in (tmp_path / "masks").rglob("*.nii.gz")]
    assert capsys.readouterr().out.splitlines()[-8:] == first.splitlines()[-8:]


@pytest.mark.parametrize("listed", [False, True])
def test_a_start_that_knows_the_patients_is_refused_before_anything_is_preprocessed(
    listed, tree, tmp_path, capsys, trained
):
    a_list = tmp_path / tree.name / "cases.csv"  # its folder has the name of the one that trained
    a_list.parent.mkdir()
    a_list.touch()
    arguments = folds_options(a_list if listed else tree, tmp_path / "cache", tmp_path, "--init", str(trained))
    assert main(arguments) == 2
    assert f"was trained on a data set called {tree.name}, on which it would be tested" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_what_a_start_started_from_counts_too(tree, cache_folder, tmp_path, capsys, trained):
    other = write_tree(tmp_path / "other", "z")
    more = ["--steps", "1", "--split", "all", "--init", str(trained)]
    assert main(options(other, tmp_path / "cache", tmp_path / "run", *more)) == 0

    arguments = folds_options(tree, cache_folder, tmp_path / "cv", "--init", str(tmp_path / "run" / "last.json"))
    assert main(arguments) == 2
    assert f"was trained on a data set called {tree.name}, on which it would be tested" in capsys.readouterr().err


@pytest.mark.parametrize("folds", ["1", "0", "-1"])
def test_too_few_folds_are_refused_before_anything_is_done(tree, tmp_path, capsys, folds):
    arguments = folds_options(tree, tmp_path / "cache", tmp_path / "cv", "--folds", folds)
    assert main(arguments) == 2
    assert f"--folds must be at least 2, got {folds}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_earlier_cross_validation_is_gone_on_from(tree, cache_folder, tmp_path, capsys):
    more = ["--steps", "1", "--folds", "2", "--flips", "1"]
    first, second = (folds_options(tree, cache_folder, tmp_path / name, *more) for name in ("first", "second"))
    assert main(first) == 0
    assert main([*second, "--init", str(tmp_path / "first")]) == 0
    for fold in ("fold_0", "fold_1"):
        before, after = (load_checkpoint(tmp_path / name / fold / "last.json") for name in ("first", "second"))
        assert after.description.provenance["initial"]["sha256"] == before.description.sha256

    assert main([*second, "--init", str(tmp_path / "first"), "--blend", "0.25"]) == 0
    for fold in ("fold_0", "fold_1"):
        ends = (tmp_path / name / fold / "last.json" for name in ("first", "second"))
        start, end, between = map(load_checkpoint, (*ends, tmp_path / "second" / fold / "blend.json"))
        for key, value in between.state.items():
            wanted = torch.lerp(start.state[key].float(), end.state[key].float(), 0.25)
            torch.testing.assert_close(value.float(), wanted, rtol=2e-3, atol=1e-5)
        assert between.description.identity in (tmp_path / "second" / fold / "scores.json").read_text("utf-8")

    third = folds_options(
        tree, cache_folder, tmp_path / "third", *more, "--seed", "3", "--init", str(tmp_path / "first")
    )
    assert main(third) == 2
    assert "held back other patients than this run does" in capsys.readouterr().err


@pytest.mark.parametrize(("share", "said"), [("1.5", "--blend must be 0 to 1, got 1.5"), ("0.5", "give --init")])
def test_a_blend_wants_a_start_and_a_share(share, said, tree, cache_folder, tmp_path, capsys):
    arguments = folds_options(tree, cache_folder, tmp_path / "cv", "--blend", share)
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_two_processes_score_what_one_would(tree, cache_folder, tmp_path, capsys):
    more = ["--steps", "2", "--folds", "2", "--flips", "1", "--dropout", "0", "--precision", "float32"]
    together = in_two_processes(folds_options(tree, cache_folder, tmp_path / "two", *more, "--batch", "2"))
    one = folds_options(tree, cache_folder, tmp_path / "one", *more, "--batch", "2")
    assert main(one) == 0
    capsys.readouterr()

    rows, expected = (
        list(csv.DictReader((tmp_path / name / "scores.csv").read_text().splitlines())) for name in ("two", "one")
    )
    assert [(row["case"], row["method"]) for row in rows] == [(row["case"], row["method"]) for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert float(row["dice"]) == pytest.approx(float(other["dice"]), abs=1e-2, nan_ok=True)
    assert all(f"  {name}_study: Dice" in together for name in "abcde")


def test_the_best_threshold_is_the_best():
    rng = np.random.default_rng(0)
    suv = rng.integers(0, 12, 60).astype(np.float32)
    truth = (suv + rng.normal(0, 3, 60)) > 7

    def dice(threshold: float) -> float:
        return 2 * (truth & (suv >= threshold)).sum() / (truth.sum() + (suv >= threshold).sum())

    assert dice(best_threshold(suv, truth)) == max(dice(value) for value in suv)
    assert best_threshold(suv, np.zeros(60, bool)) == np.inf
