from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from algorithm.description import Agreement, PrecisionProof, read_description
from algorithm.inference.budget import Budget
from algorithm.inference.predictor import Predictor
from algorithm.job import Segmenter
from algorithm.network.attention import BidirectionalAttention
from algorithm.weights import load_checkpoint, save_checkpoint
from test.support.checkpoints import random_network
from test.support.trees import SPACING, write_tree
from training.__main__ import main
from training.cache import build_cache
from training.precision import Simulated, prove_precision, tell
from training.validation import prepare_cached

CPU = torch.device("cpu")
GOOD = Agreement(cases=5, mean_dice=0.999, least_dice=0.995)
BAD = Agreement(cases=5, mean_dice=0.999, least_dice=0.98)


@pytest.mark.parametrize(
    ("proof", "allowed"),
    [
        (PrecisionProof(40.0, GOOD, GOOD), {"bfloat16", "float16"}),
        (PrecisionProof(40.0, GOOD, BAD), {"bfloat16"}),
        (PrecisionProof(40.0, GOOD, None), {"bfloat16"}),
        (PrecisionProof(140.0, GOOD, GOOD), set()),
        (PrecisionProof(None, GOOD, GOOD), set()),
        (PrecisionProof(40.0, dataclasses.replace(GOOD, cases=0), GOOD), {"float16"}),
        (PrecisionProof(), set()),
    ],
)
def test_only_what_was_proved_is_allowed(proof, allowed):
    assert {name for name in ("float32", "bfloat16", "float16", "auto") if proof.allows(name)} == allowed


def test_a_proof_survives_the_json(description, tmp_path):
    proof = PrecisionProof(61.25, GOOD, BAD)
    path = save_checkpoint(
        tmp_path,
        "proved",
        random_network(description.architecture).state_dict(),
        dataclasses.replace(description, precision=proof),
    )
    assert read_description(path).precision == proof
    content = json.loads(path.read_text())
    del content["precision"]  # as older ones are
    path.write_text(json.dumps(content))
    assert read_description(path).precision == PrecisionProof()


@pytest.mark.parametrize("proof", [PrecisionProof(), PrecisionProof(40.0, GOOD, GOOD)])
def test_inference_does_what_the_description_allows(description, tmp_path, proof):
    described = dataclasses.replace(description, precision=proof)
    path = save_checkpoint(tmp_path, "net", random_network(description.architecture).state_dict(), described)
    (placed,) = Segmenter([load_checkpoint(path)], "cpu", "bfloat16").predictor._placed
    low = {name for name, value in placed.named_parameters() if value.dtype == torch.bfloat16}
    exact = {id(value) for part in placed.exact_parts() for value in part.parameters()}
    everywhere = low == {name for name, value in placed.named_parameters() if id(value) not in exact}
    assert everywhere == proof.allows("bfloat16")
    assert low  # the finest level always


@pytest.mark.numerical
def test_what_bfloat16_disturbs_is_not_proved(cases, description):
    """Queries and keys that are much too long: what rounding takes off their products decides the attention."""
    gentle, wild = random_network(description.architecture), random_network(description.architecture)
    with torch.no_grad():
        for attention in wild.attentions().values():
            for direction in (attention.ct, attention.pet):
                for projection in (
                    direction.query_self,
                    direction.key_self,
                    direction.query_cross,
                    direction.key_cross,
                ):
                    projection.weight.mul_(40)
    proofs = [
        prove_precision(network, description, [prepare_cached(case, description) for case in cases[:2]], CPU)
        for network in (gentle, wild)
    ]
    assert proofs[1].largest_logit > 100 * proofs[0].largest_logit > 0
    assert not proofs[1].allows("bfloat16")
    assert proofs[0].float16.cases == 2
    assert proofs[0].float16.mean_dice >= proofs[0].bfloat16.mean_dice - 0.01
    assert "only in the finest level" in tell(proofs[1])


def test_without_a_case_nothing_is_proved(description):
    proof = prove_precision(random_network(description.architecture), description, [], CPU)
    assert proof == PrecisionProof()
    assert "not tried" in tell(proof)


def test_what_overflows_float16_is_not_proved(cases, description):
    network = random_network(description.architecture)
    with torch.no_grad():
        next(network.parameters()).mul_(1e7)
    proof = prove_precision(network, description, [prepare_cached(cases[0], description)], CPU)
    assert proof.float16 == Agreement(cases=1, mean_dice=0.0, least_dice=0.0)
    assert proof.bfloat16.mean_dice > 0


def test_that_nothing_is_found_proves_nothing(cases, description):
    network = random_network(description.architecture)
    with torch.no_grad():
        network.decoder.heads["1"].conv.bias.copy_(torch.tensor([50.0, -50.0]))
    proof = prove_precision(network, description, [prepare_cached(cases[0], description)], CPU)
    assert proof == PrecisionProof()


def test_the_largest_logit_is_that_of_the_network(cases, description):
    network = random_network(description.architecture)
    case, _ = prepare_cached(cases[0], description)
    seen = []
    with Simulated(None) as simulated, torch.no_grad():
        for attention in network.attentions().values():
            attention.observer = lambda q, k, scale: seen.append(
                float((scale * q @ k.transpose(-1, -2)).abs().max())
            )
        patch = case.inputs[0].patch
        window = torch.rand(2, 1, 1, *patch)
        network.finest(*window)
    assert len(seen) == 4 * sum(isinstance(each, BidirectionalAttention) for each in network.modules())
    assert simulated.largest_logit == pytest.approx(max(seen), rel=1e-5)


def test_simulation_rounds_what_is_stored_and_keeps_statistics_exact():
    x = torch.full((1, 1, 4), 1.0) + 2**-12
    with Simulated(torch.float16):
        assert torch.equal(x * 1, torch.ones(1, 1, 4))
        assert torch.isinf(torch.full((3,), 300.0) * 300.0).all()
        assert float((torch.full((4,), 60_000.0)).sum()) == 240_000
        assert not torch.equal(x - 1.0, torch.zeros(1, 1, 4))


def test_simulation_leaves_alone_what_it_looks_at():
    x = torch.full((2, 4), 1.0) + 2**-12
    before = x.clone()
    with Simulated(torch.float16):
        views = [x.view(4, 2), x[0], x.t(), x.unsqueeze(0), *x.split(1)]
        assert torch.equal(x, before)
        assert torch.equal(views[0] * 1, torch.ones(4, 2))
        x.add_(0)  # stored anew
    assert torch.equal(x, torch.ones(2, 4))


def test_the_command_writes_the_proof_and_nothing_else(tree, trained, tmp_path, capsys):
    folder = tmp_path / "copy"
    folder.mkdir()
    for suffix in (".json", ".safetensors"):
        (folder / f"last{suffix}").write_bytes(trained.with_suffix(suffix).read_bytes())
    path = folder / "last.json"
    before = dataclasses.replace(read_description(path), precision=PrecisionProof())
    assert main(["precision", "--weights", str(path), "--cases", str(tree), "--device", "cpu"]) == 0
    after = read_description(path)
    assert after.precision.bfloat16.cases == 5
    assert after.precision.largest_logit > 0
    assert dataclasses.replace(after, precision=PrecisionProof()) == before
    assert "low precision: largest attention logit" in capsys.readouterr().out


def test_where_nothing_was_tried_an_earlier_proof_stays(trained, tmp_path, capsys):
    for suffix in (".json", ".safetensors"):
        (tmp_path / f"last{suffix}").write_bytes(trained.with_suffix(suffix).read_bytes())
    tree = write_tree(tmp_path / "data", "a")
    suv = next(tree.rglob("SUV.nii.gz"))
    image = sitk.ReadImage(str(suv))
    sitk.WriteImage(image * 5000, str(suv))  # in Bq/ml
    before = read_description(tmp_path / "last.json")
    assert before.precision != PrecisionProof()

    assert (
        main(["precision", "--weights", str(tmp_path / "last.json"), "--cases", str(tree), "--device", "cpu"]) == 2
    )
    printed = capsys.readouterr()
    assert "gets a mask, so nothing is proved" in printed.err
    assert "--no-checks" not in printed.out + printed.err
    assert read_description(tmp_path / "last.json") == before


def test_a_run_ends_with_its_proof(trained):
    proof = read_description(trained).precision
    assert proof.largest_logit is not None
    assert proof.bfloat16.cases == proof.float16.cases == 2


def test_proved_levels_compute_the_same_case_nearly_alike(cases, description):
    network = random_network(description.architecture)
    case, _ = prepare_cached(cases[0], description)
    answers = [
        Predictor([network], CPU, dtype, [proved]).predict(case.inputs, Budget(), flips=1).probability
        for dtype, proved in ((torch.float32, ()), (torch.bfloat16, ("bfloat16",)))
    ]
    assert 0 < np.abs(answers[0] - answers[1]).mean() < 0.05


def test_spacing_of_prepared_cases_is_the_networks(cases, description):
    _, pet = prepare_cached(cases[0], description)
    assert isinstance(pet, sitk.Image)
    assert pet.GetSpacing() == pytest.approx(SPACING)
    assert build_cache([], cases[0].folder.parent, SPACING, progress=False).cases == ()
