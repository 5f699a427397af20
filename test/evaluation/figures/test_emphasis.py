from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithm.cases import Case, list_cases
from algorithm.description import Description, Normalisation
from algorithm.errors import GeometryError, MissingInputError, UsageError
from algorithm.inference.predictor import Predictor
from algorithm.network.architecture import Architecture
from algorithm.network.h2aseg import DECODER_LEVELS, H2ASeg
from algorithm.network.weighting import Gains
from algorithm.weights import save_checkpoint
from evaluation.figures.emphasis import Emphasis, add_arguments, draw, main, measure_case, pet_share, to_rows
from test.support.uptake import smooth_uptake

pytestmark = pytest.mark.numerical

ARCHITECTURE = Architecture(channels=(4, 4, 4, 4, 8), mcsa=False)
HOW = Normalisation("clip-scale", low=0, high=10)
DESCRIPTION = Description("tiny", ARCHITECTURE, (16, 16, 32), (4.0, 4.0, 4.0), HOW, HOW, overlap=0.0)


@pytest.fixture(scope="module")
def network() -> H2ASeg:
    torch.manual_seed(0)
    return H2ASeg(ARCHITECTURE).eval()


@pytest.fixture
def study(tmp_path, unchecked) -> Path:
    """Two windows along x; tumour in the second alone."""
    folder = tmp_path / "cases" / "synthetic_a"
    folder.mkdir(parents=True)
    suv = smooth_uptake((32, 16, 32), 0.5, 3.9, seed=0)
    truth = np.zeros(suv.shape, np.uint8)
    truth[7:9, 7:9, 25:28] = 1
    for values, name in ((100 * suv - 200, "CTres"), (suv, "SUV"), (truth, "SEG")):
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((4.0, 4.0, 4.0))
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    return folder


def placed(network: H2ASeg) -> Predictor:
    return Predictor([network], torch.device("cpu"), torch.float32)


def the_case(study: Path, *, with_truth: bool = True) -> Case:
    truth = study / "SEG.nii.gz" if with_truth else None
    return Case("synthetic_a", study / "CTres.nii.gz", study / "SUV.nii.gz", truth, synthetic=True)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(0, 9))
def test_share_is_the_pets_part_of_the_mean_magnitudes(seed, channels, rest):
    gain = torch.tanh(torch.randn(3, 2 * channels + rest, generator=torch.Generator().manual_seed(seed)))
    shares = pet_share(gain, channels)
    for row, share in zip(gain.tolist(), shares, strict=True):
        ct = sum(abs(value) for value in row[:channels]) / channels
        pet = sum(abs(value) for value in row[channels : 2 * channels]) / channels
        assert share == pytest.approx(pet / (ct + pet))
    swapped = torch.cat([gain[:, channels : 2 * channels], gain[:, :channels], gain[:, 2 * channels :]], dim=1)
    np.testing.assert_allclose(pet_share(swapped, channels), 1 - shares)
    np.testing.assert_allclose(pet_share(-gain * 0.5, channels), shares)


def test_no_gain_has_no_share():
    assert math.isnan(pet_share(torch.zeros(1, 8), 4)[0])


def test_only_windows_with_tumour_count(network, study):
    measured = measure_case(the_case(study), placed(network), DESCRIPTION)
    assert measured.windows == 1
    suv = sitk.GetArrayFromImage(sitk.ReadImage(str(study / "SUV.nii.gz"))).transpose(2, 1, 0)
    pet = torch.from_numpy(np.ascontiguousarray(suv[16:]))[None, None]
    gains: list[Gains] = []
    with torch.inference_mode():
        network.finest((100 * pet - 200).clip(0, 10) / 10, pet / 10, gains)
    assert list(measured.pet_share) == [
        (level, kind) for level in DECODER_LEVELS for kind in ("foreground", "background")
    ]
    for level, (foreground, background) in zip(DECODER_LEVELS, gains, strict=True):
        channels = ARCHITECTURE.channels[level - 1]
        assert measured.pet_share[level, "foreground"] == pytest.approx(
            pet_share(foreground, channels)[0], abs=1e-5
        )
        assert measured.pet_share[level, "background"] == pytest.approx(
            pet_share(background, channels)[0], abs=1e-5
        )


@pytest.mark.parametrize(("bias", "windows"), [(50.0, 2), (-50.0, 0)])
def test_without_truth_the_networks_own_finding_decides(study, bias, windows):
    torch.manual_seed(0)
    network = H2ASeg(ARCHITECTURE).eval()
    with torch.no_grad():
        network.decoder.heads["1"].conv.bias.copy_(torch.tensor([0.0, bias]))
    assert measure_case(the_case(study, with_truth=False), placed(network), DESCRIPTION).windows == windows


def test_a_truth_on_another_grid_is_an_error(network, study):
    image = sitk.ReadImage(str(study / "SEG.nii.gz"))
    image.SetOrigin((9.0, 0.0, 0.0))
    sitk.WriteImage(image, str(study / "SEG.nii.gz"))
    with pytest.raises(GeometryError, match="does not lie on the grid of its PET"):
        measure_case(the_case(study), placed(network), DESCRIPTION)


def shares(value: float) -> dict[tuple[int, str], float]:
    return {(level, kind): value for level in DECODER_LEVELS for kind in ("foreground", "background")}


def test_real_and_synthetic_cases_have_means_of_their_own():
    path = Path("x")
    measured = [
        Emphasis(Case("a", path, path), 2, shares(0.5)),
        Emphasis(Case("b", path, path), 1, shares(0.7)),
        Emphasis(Case("none", path, path), 0, {}),
        Emphasis(Case("synthetic_c", path, path, synthetic=True), 4, shares(0.1)),
    ]
    headings, *rows = to_rows(measured)
    assert headings[-1] == "pet_share"
    assert {row[0] for row in rows} == {"a", "b", "synthetic_c", "mean of 2 cases", "mean of 1 synthetic case"}
    for name, synthetic, _, _, windows, ct, pet in rows:
        assert ct + pet == pytest.approx(1)
        if name == "mean of 2 cases":
            assert (synthetic, windows) == (0, 3)
            assert pet == pytest.approx(0.6)
        if name == "mean of 1 synthetic case":
            assert (synthetic, windows) == (1, 4)
            assert pet == pytest.approx(0.1)
    titles = [axes.get_title() for axes in draw(measured).axes]
    assert titles[0] == "foreground gain, mean of 2 cases"
    assert titles[3] == "background gain, mean of 1 synthetic case"


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args([str(word) for word in words]))


def test_command_writes_table_and_plot(network, study, tmp_path, capsys):
    weights = save_checkpoint(tmp_path / "weights", "tiny", network.state_dict(), DESCRIPTION)
    out = tmp_path / "out"
    assert run("--cases", study.parent, "--weights", weights, "--device", "cpu", "--out", out) == 0
    assert "PET share, mean of 1 synthetic case" in capsys.readouterr().out
    with (out / "emphasis.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == ["synthetic_a"] * 8 + ["mean of 1 synthetic case"] * 8
    assert [row["level"] for row in rows[:8:2]] == ["4", "3", "2", "1"]
    assert all(0 < float(row["pet_share"]) < 1 for row in rows)
    assert (out / "emphasis.png").read_bytes().startswith(b"\x89PNG")
    single = ("--ct", study / "CTres.nii.gz", "--pet", study / "SUV.nii.gz", "--truth", study / "SEG.nii.gz")
    assert run(*single, "--weights", weights, "--device", "cpu", "--out", out) == 0


def test_mistakes_are_sentences(network, study, tmp_path):
    weights = save_checkpoint(tmp_path / "weights", "tiny", network.state_dict(), DESCRIPTION)
    out = ("--device", "cpu", "--out", tmp_path / "out")
    with pytest.raises(UsageError, match="either --cases, or --ct and --pet"):
        run("--weights", weights, *out)
    image = sitk.ReadImage(str(study / "SEG.nii.gz")) * 0
    sitk.WriteImage(image, str(study / "SEG.nii.gz"))
    with pytest.raises(MissingInputError, match="no window of any case holds tumour"):
        run("--cases", study.parent, "--weights", weights, *out)
    assert not (tmp_path / "out").exists()
    plain = Architecture(channels=(4, 4, 4, 4, 8), mcsa=False, tamw=False)
    description = Description("plain", plain, (16, 16, 32), None, HOW, HOW)
    without = save_checkpoint(tmp_path / "plain", "plain", H2ASeg(plain).state_dict(), description)
    with pytest.raises(UsageError, match="has no TAMW"):
        run("--cases", study.parent, "--weights", without, *out)
    save_checkpoint(tmp_path / "plain", "second", H2ASeg(plain).state_dict(), description)
    with pytest.raises(UsageError, match="found 2; name one with --weights"):
        run("--cases", study.parent, "--weights", tmp_path / "plain", *out)


def test_real_patients_are_found_with_their_truth(real_data):
    cases = list_cases(real_data / "sts")
    assert len(cases) == 41
    assert all(case.truth is not None and not case.synthetic for case in cases)
