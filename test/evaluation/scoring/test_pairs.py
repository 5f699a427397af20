"""Cases that bring their truth, a list or a tree, and the predictions that belong to them."""

from __future__ import annotations

import pytest

from evaluation.__main__ import main
from evaluation.scoring.pairs import find_pairs
from test.evaluation.scoring.test_metrics import ONE
from test.evaluation.scoring.test_score import TWO, write


def tree_of_two(root):
    """Two studies of AutoPET's layout, and a mask for the first alone."""
    for name, mask in (("PETCT_a", TWO), ("PETCT_b", ONE)):
        for file in ("CTres", "SUV", "SEG"):
            write(root / f"tree/{name}/study/{file}.nii.gz", mask)
    return root / "tree"


@pytest.mark.parametrize("place", ["masks/PETCT_a_study.mha", "masks/PETCT_a_study/tumour.nii.gz"])
def test_cases_of_a_tree_bring_their_truth(tmp_path, capsys, place):
    tree = tree_of_two(tmp_path)
    write(tmp_path / place, TWO)
    assert main(["score", "--cases", str(tree), "--prediction", str(tmp_path / "masks"), "--edition", "III"]) == 0
    out = capsys.readouterr().out
    assert "PETCT_a_study" in out
    assert "Missing, counted as-empty: PETCT_b_study" in out


def list_of_two(tmp_path, columns, *cells):
    """A list of the studies of a tree, which bring their truth, with one column more."""
    tree = tree_of_two(tmp_path)
    rows = [
        f"{name},{name}/study/CTres.nii.gz,{name}/study/SUV.nii.gz,{name}/study/SEG.nii.gz,{cell}\n"
        for name, cell in zip(("PETCT_a", "PETCT_b"), cells, strict=True)
    ]
    (tree / "cases.csv").write_text(f"case,ct,pet,truth,{columns}\n{''.join(rows)}")
    return tree / "cases.csv"


def test_a_list_with_truths_names_the_predictions_too(tmp_path):
    """Inside the folder, or beside the list, as with --truth; what is named and absent is missing."""
    table = list_of_two(tmp_path, "prediction", "first.mha", "nowhere.mha")
    for name in ("first", "PETCT_a", "PETCT_b"):
        write(tmp_path / f"masks/{name}.mha", TWO)
    pairs, unknown = find_pairs(None, tmp_path / "masks", table)
    assert [pair.prediction for pair in pairs] == [tmp_path / "masks/first.mha", None]
    assert unknown == [tmp_path / "masks/PETCT_a.mha", tmp_path / "masks/PETCT_b.mha"]
    write(table.parent / "nowhere.mha", ONE)
    assert find_pairs(None, tmp_path / "masks", table)[0][1].prediction == table.parent / "nowhere.mha"


@pytest.mark.parametrize("command", ["score", "compare"])
@pytest.mark.parametrize("column", ["predicton", "subst"])
def test_a_misspelt_column_of_a_list_with_truths_is_an_error(tmp_path, capsys, command, column):
    table = list_of_two(tmp_path, column, "x", "x")
    write(tmp_path / "masks/PETCT_a.mha", TWO)
    masks = f"{'ours=' if command == 'compare' else ''}{tmp_path / 'masks'}"
    assert main([command, "--cases", str(table), "--prediction", masks]) == 2
    assert f"has the unknown column {column}; known are case, ct" in capsys.readouterr().err


def test_without_a_truth_there_is_nothing_to_score(tmp_path, capsys):
    tree = tree_of_two(tmp_path)
    (tree / "PETCT_b/study/SEG.nii.gz").unlink()
    (tmp_path / "masks").mkdir()
    words = ["score", "--cases", str(tree), "--prediction", str(tmp_path / "masks")]
    assert main(words) == 2
    assert "the case PETCT_b_study in" in capsys.readouterr().err
    assert main(words[:1] + words[3:]) == 2
    assert "where the truth lies is missing; give --truth, or --cases" in capsys.readouterr().err
