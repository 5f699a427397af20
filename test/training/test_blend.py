from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from algorithm.description import Agreement, Description, Normalisation, PrecisionProof, read_description
from algorithm.errors import OutputError, UsageError
from algorithm.network.architecture import Architecture
from algorithm.network.h2aseg import H2ASeg
from algorithm.weights import describe_again, load_checkpoint, save_checkpoint
from training.__main__ import main
from training.blend import blended, write_blend
from training.start import check_never_saw

DESCRIPTION = Description(
    name="first",
    architecture=Architecture(channels=(4, 4, 8, 8, 16)),
    patch=(32, 32, 16),
    spacing=(4.0, 4.0, 4.0),
    ct=Normalisation("clip-scale", low=-1000.0, high=1000.0),
    pet=Normalisation("clip-scale", low=0.0, high=20.0),
)


def written(folder: Path, seed: int, description: Description = DESCRIPTION) -> Path:
    torch.manual_seed(seed)
    state = H2ASeg(description.architecture).state_dict()
    return save_checkpoint(folder, description.name, state, description, torch.float32)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return written(tmp_path / "first", 0)


def trained_on(first: Path, folder: Path, seed: int) -> Path:
    proved = PrecisionProof(40.0, bfloat16=Agreement(cases=12, mean_dice=0.999, least_dice=0.995))
    start = {"name": "first", "sha256": read_description(first).sha256}
    described = dataclasses.replace(DESCRIPTION, name="last", precision=proved, provenance={"initial": start})
    return written(folder, seed, described)


@pytest.fixture
def last(tmp_path: Path, first: Path) -> Path:
    return trained_on(first, tmp_path / "last", 1)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_blend_lies_on_the_way(first: Path, last: Path, share: float) -> None:
    a, b = load_checkpoint(first), load_checkpoint(last)
    for name, value in blended(a, [b], share).items():
        torch.testing.assert_close(value, torch.lerp(a.state[name], b.state[name], share), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("which", ["first", "last"])
def test_a_blend_does_not_replace_what_it_is_made_from(first: Path, last: Path, which: str) -> None:
    target = {"first": first, "last": last}[which]
    before = target.with_suffix(".safetensors").read_bytes()
    with pytest.raises(OutputError, match=f"{target} is what the checkpoint is made from"):
        write_blend(first, [last], 0.5, target.parent, target.stem)
    assert target.with_suffix(".safetensors").read_bytes() == before


@pytest.mark.parametrize("rounded", [(True, True), (True, False), (False, True)])
def test_a_blend_of_parameters_of_bfloat16_is_of_bfloat16(
    first: Path, last: Path, rounded: tuple[bool, bool]
) -> None:
    ends = [
        dataclasses.replace(each, state={name: value.bfloat16().float() for name, value in each.state.items()})
        if of_bfloat16
        else each
        for each, of_bfloat16 in zip(map(load_checkpoint, (first, last)), rounded, strict=True)
    ]
    values = blended(ends[0], [ends[1]], 0.3).values()
    assert all(torch.equal(value.bfloat16().float(), value) for value in values) is all(rounded)


def test_what_was_proved_of_one_end_is_not_said_of_the_blend(first: Path, last: Path, tmp_path: Path) -> None:
    out = tmp_path / "blend"
    words = ["blend", "--first", first, "--last", last, "--share", "0.25", "--out", out, "--name", "half"]
    assert main([str(word) for word in words]) == 0
    description = read_description(out / "half.json")
    assert not description.precision.allows("bfloat16")
    assert read_description(last).precision.allows("bfloat16")
    ends = [read_description(path).sha256 for path in (first, last)]
    assert description.provenance["blend"] == {"share": 0.25, "first": ends[0], "last": [ends[1]]}


def test_what_was_chosen_of_a_blend_stays_and_what_its_end_scored_is_not_its_own(
    first: Path, last: Path, tmp_path: Path
) -> None:
    scored = load_checkpoint(last)
    describe_again(scored, provenance={**scored.description.provenance, "steps": 7, "validation": {"dice": 0.9}})
    path = write_blend(first, [last], 0.5, tmp_path / "blend", "half")
    assert not read_description(path).provenance.keys() & {"steps", "validation"}
    describe_again(load_checkpoint(path), threshold=0.3)

    assert write_blend(first, [last], 0.5, tmp_path / "blend", "half") == path
    assert read_description(path).threshold == 0.3
    write_blend(first, [last], 0.25, tmp_path / "blend", "half")
    assert read_description(path).threshold == 0.5


def test_several_last_ones_count_by_their_mean(first: Path, last: Path, tmp_path: Path) -> None:
    other = trained_on(first, tmp_path / "second", 2)
    out = tmp_path / "blend"
    words = ["blend", "--first", first, "--last", last, "--last", other, "--share", "0.5", "--out", out]
    assert main([str(word) for word in words]) == 0
    a, b, c, ours = (load_checkpoint(path).state for path in (first, last, other, out / "blend.json"))
    for name, value in ours.items():
        torch.testing.assert_close(value.float(), 0.5 * a[name] + 0.25 * (b[name] + c[name]), rtol=1e-3, atol=1e-4)
    assert len(read_description(out / "blend.json").provenance["blend"]["last"]) == 2


def test_what_any_of_the_last_ones_saw_is_said_of_the_blend(first: Path, last: Path, tmp_path: Path) -> None:
    start = {"name": "first", "sha256": read_description(first).sha256, "data": [{"name": "early"}]}
    start["data"].append({"name": "studies", "cases": 1})
    provenance = {"initial": start, "data": [{"name": "studies", "cases": 2}]}
    other = written(tmp_path / "other", 2, dataclasses.replace(DESCRIPTION, name="other", provenance=provenance))
    words = ["blend", "--first", first, "--last", last, "--last", other, "--out", tmp_path / "blend"]
    assert main([str(word) for word in words]) == 0
    for seen in ("early", "studies"):
        with pytest.raises(UsageError, match=f"trained on a data set called {seen}"):
            check_never_saw(tmp_path / "blend" / "blend.json", tmp_path / seen)
    data = read_description(tmp_path / "blend" / "blend.json").provenance["data"]
    assert {"name": "studies", "cases": 2} in data
    assert len(data) == 2


def test_stages_may_lie_between(first: Path, last: Path, tmp_path: Path) -> None:
    start = {"name": "last", "sha256": read_description(last).sha256}
    start |= {"initial": read_description(last).provenance["initial"]}
    described = dataclasses.replace(DESCRIPTION, name="third", provenance={"initial": start})
    third = written(tmp_path / "third", 2, described)
    assert main(["blend", "--first", str(first), "--last", str(third), "--out", str(tmp_path / "blend")]) == 0


def test_strangers_are_not_blended(first: Path, last: Path, tmp_path: Path, capsys) -> None:
    assert main(["blend", "--first", str(last), "--last", str(first), "--out", str(tmp_path / "out")]) == 2
    assert "was not trained on from the first" in capsys.readouterr().err
    other = written(tmp_path / "other", 2, dataclasses.replace(DESCRIPTION, name="other", spacing=(2.0, 2.0, 2.0)))
    assert main(["blend", "--first", str(first), "--last", str(other), "--out", str(tmp_path / "out")]) == 2
    assert "their spacing differ" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_share_beyond_the_ends_is_refused(first: Path, last: Path, tmp_path: Path, capsys) -> None:
    words = ["blend", "--first", first, "--last", last, "--share", "1.5", "--out", tmp_path / "out"]
    assert main([str(word) for word in words]) == 2
    assert "--share must be 0 to 1, got 1.5" in capsys.readouterr().err
