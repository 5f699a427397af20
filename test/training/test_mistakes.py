from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from algorithm.description import Description
from algorithm.errors import UsageError
from algorithm.weights import describe_again, load_checkpoint
from test.support.training_runs import STILL, assert_identical, options, state_of
from test.support.trees import SPACING
from training import mining
from training.__main__ import main
from training.cache import Cache
from training.mining import LEAST_ML, find_mistakes, untouched
from training.mistakes import Mistakes, read_mistakes, write_mistakes
from training.preparation import PreparedData, _of_these
from training.sampling import CropSampler, Source


def mask_with(*boxes: tuple[slice, slice, slice]) -> np.ndarray:
    mask = np.zeros((12, 14, 16), np.uint8)
    for box in boxes:
        mask[box] = 1
    return mask


def test_a_piece_that_nothing_touches_is_named_by_its_middle_in_x_y_z():
    far, touched = np.s_[1:4, 2:5, 9:12], np.s_[8:11, 8:11, 1:6]
    pieces, other = mask_with(far, touched), mask_with(np.s_[10:12, 10:12, 5:9])

    assert untouched(pieces, other, 1) == ((10, 3, 2),)
    assert untouched(pieces, np.zeros_like(other), 28) == ((3, 9, 9),)
    assert untouched(np.zeros_like(pieces), other, 1) == ()


def test_the_middle_of_a_bent_piece_lies_in_it():
    pieces = mask_with(np.s_[2:10, 2, 2], np.s_[2:10, 10, 2], np.s_[9, 2:11, 2])
    ((x, y, z),) = untouched(pieces, np.zeros_like(pieces), 1)
    assert pieces[z, y, x]


def test_mistakes_are_those_of_the_product_s_mask(cases, description, monkeypatch):
    (case,) = (each for each in cases if each.name.startswith("a"))
    truth = np.array(case.seg().transpose(2, 1, 0))
    false = np.zeros_like(truth)
    false[1:4, 1:4, 1:4] = truth.max() == 1
    assert not (false & truth).any()
    for mask, expected in (
        (truth, (0, 0)),
        (false, (1, 1)),
        (truth | false, (0, 1)),
        (np.zeros_like(truth), (1, 0)),
    ):
        monkeypatch.setattr(mining, "segment_cached", lambda *args, mask=mask: mask)
        found = find_mistakes(None, case, description)
        assert (len(found.missed), len(found.false)) == expected
        assert found.sha256 == case.sha256
        for x, y, z in found.missed:
            assert case.seg()[x, y, z]
        assert found.false in ((), ((2, 2, 2),))
    assert false.sum() * np.prod(case.spacing) / 1000 >= LEAST_ML


def test_what_was_written_is_read(trained, tmp_path):
    mistakes = {"a": Mistakes("0" * 64, ((1, 2, 3),), ((4, 5, 6), (7, 8, 9))), "b": Mistakes("1" * 64)}
    write_mistakes(mistakes, load_checkpoint(trained), tmp_path / "m.json")

    assert read_mistakes(tmp_path / "m.json", SPACING) == mistakes
    with pytest.raises(UsageError, match=r"lie on a grid of 4x4x3 mm, and the training's is 5x5x5; give that"):
        read_mistakes(tmp_path / "m.json", (5.0, 5.0, 5.0))


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"spacing": 4, "cases": {}},
        {"spacing": [4, 4, 3], "cases": []},
        {"spacing": [4, 4, 3], "cases": {"a": {"sha256": "", "missed": [[1, 2]], "false": []}}},
        {"spacing": [4, 4, 3], "cases": {"a": {"sha256": "", "missed": [], "false": [[1, 2, "x"]]}}},
        {"spacing": [4, 4, 3], "cases": {"a": {"sha256": "", "missed": 1, "false": []}}},
    ],
)
def test_another_file_is_one_sentence(content, tmp_path):
    (tmp_path / "m.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"m\.json is no list of mistakes; make one with"):
        read_mistakes(tmp_path / "m.json", SPACING)


def test_crops_are_cut_around_mistakes_as_often_as_asked(cases, description):
    marked = tuple(case for case in cases if case.tumour_ml > 0)
    missed, false = ((marked[0], (9, 8, 7)),), ((cases[-1], (3, 2, 1)), (marked[0], (4, 5, 6)))
    source = Source(cases, 1.0, missed, false)

    def centres(share: float) -> list[tuple[int, ...]]:
        sampler = CropSampler([source], description, STILL, 0, share)
        return [
            tuple(map(int, sampler.draw_centre(number, np.random.default_rng(number))[1])) for number in range(200)
        ]

    assert set(centres(1.0)[::2]) == {(9, 8, 7)}
    assert set(centres(1.0)[1::2]) == {(3, 2, 1), (4, 5, 6)}
    half = centres(0.5)
    assert 30 <= sum(each == (9, 8, 7) for each in half[::2]) <= 70
    plain = CropSampler([Source(cases, 1.0)], description, STILL, 0, 0.5)
    for number in range(8):  # what was drawn before there were such places
        assert_identical(plain.crop(number), CropSampler([Source(cases, 1.0)], description, STILL, 0).crop(number))


def test_mistakes_go_with_their_cases_and_roles(cases, caplog):
    _, *training = cases
    mistakes = {case.name: Mistakes(case.sha256, ((1, 1, 1),), ((2, 2, 2),)) for case in cases}
    mistakes[training[0].name] = dataclasses.replace(mistakes[training[0].name], sha256="of other images")
    mistakes["not here"] = Mistakes("")
    cache = Cache(cases, ())
    with caplog.at_level("INFO"):
        kept = _of_these(mistakes, [cache])
    data = PreparedData((SimpleNamespace(folder=cases[0].folder),), (cache,), (1.0,), kept)
    (source,) = data.sources([case.patient for case in training])

    assert [case for case, _ in source.missed] == [case for case, _ in source.false] == training[1:]
    assert data.names([case.patient for case in training])[0]["missed"] == len(training) - 1
    assert caplog.messages[-1].startswith(f"2 of the {len(cases) + 1} cases with listed mistakes are not here, or")


def test_from_a_checkpoint_s_mistakes_to_a_run(tree, cache_folder, trained, tmp_path, capsys):
    out = tmp_path / "mistakes.json"
    command = ["mistakes", "--weights", str(trained), "--cases", str(tree), "--cache", str(cache_folder)]
    assert main([*command, "--out", str(out), "--device", "cpu"]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    content = json.loads(out.read_text())
    count = sum(len(each["missed"]) + len(each["false"]) for each in content["cases"].values())
    assert told.startswith("5 cases: ")
    assert count > 0, "the network of five steps errs"

    run = options(tree, cache_folder, tmp_path / "run", "--steps", "5", "--split", "all", "--mistakes", str(out))
    assert main([*run, "--mistaken", "0.8", "--seed", "4"]) == 0
    assert "mistakes: " in capsys.readouterr().out
    stored = json.loads((tmp_path / "run" / "last.json").read_text())["provenance"]
    assert stored["settings"]["mistaken"] == 0.8
    assert stored["data"][0].keys() >= {"missed", "false"}
    assert "mistakes" in state_of(tmp_path / "run")["recipe"]
    assert main([*run[: run.index("--mistakes")], "--mistaken", "0.8", "--seed", "4"]) == 2  # another run's data
    assert "other values of mistakes" in capsys.readouterr().err


def test_cases_of_one_name_are_refused(tree, cache_folder, trained, tmp_path, capsys):
    twice = ["--cases", str(tree), "--cases", str(tree), "--cache", str(cache_folder)]
    assert main(["mistakes", "--weights", str(trained), *twice, "--out", str(tmp_path / "mistakes.json")]) == 2
    assert "hold a patient" in capsys.readouterr().err


def test_what_lies_at_out_stays(tree, cache_folder, trained, tmp_path, capsys):
    out = tmp_path / "notes.json"
    out.write_text("{}")
    command = ["mistakes", "--weights", str(trained), "--cases", str(tree), "--cache", str(cache_folder)]
    assert main([*command, "--out", str(out)]) == 2
    assert out.read_text() == "{}"
    assert capsys.readouterr().err.count("\n") == 1


def test_weights_without_a_grid_are_refused(tree, cache_folder, trained, tmp_path, capsys):
    for suffix in (".json", ".safetensors"):
        (tmp_path / f"w{suffix}").write_bytes(trained.with_suffix(suffix).read_bytes())
    describe_again(load_checkpoint(tmp_path / "w.json"), spacing=None)
    command = [
        "mistakes",
        "--weights",
        str(tmp_path / "w.json"),
        "--cases",
        str(tree),
        "--cache",
        str(cache_folder),
    ]
    assert main([*command, "--out", str(tmp_path / "m.json")]) == 2
    assert "has no grid on which training cuts crops; give a checkpoint of" in capsys.readouterr().err
    assert Description.orientation == "LPS"
