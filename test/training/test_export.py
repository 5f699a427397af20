"""A checkpoint that is exported again keeps what was chosen for its weights."""

from __future__ import annotations

import dataclasses

import pytest

from algorithm.weights import describe_again, load_checkpoint
from test.support.checkpoints import random_network
from training.export import export


@pytest.fixture
def parameters(description):
    return random_network(description.architecture).state_dict()


def test_the_same_weights_keep_their_description(description, parameters, tmp_path):
    path = export(tmp_path, "last", parameters, dataclasses.replace(description, provenance={"steps": 1}))
    first = load_checkpoint(path)
    describe_again(first, threshold=0.3, overlap=0.25, provenance={"steps": 1, "summary": "mine"})
    export(tmp_path, "last", parameters, dataclasses.replace(description, provenance={"steps": 2}))

    wanted = {"threshold": 0.3, "overlap": 0.25, "provenance": {"steps": 2, "summary": "mine"}}
    assert load_checkpoint(path).description == dataclasses.replace(first.description, **wanted)


def test_other_weights_have_a_description_of_their_own(description, parameters, tmp_path):
    path = export(tmp_path, "last", parameters, description)
    describe_again(load_checkpoint(path), threshold=0.3)
    export(tmp_path, "last", {name: value + 1 for name, value in parameters.items()}, description)
    assert load_checkpoint(path).description.threshold == description.threshold


def test_damaged_weights_are_written_again(description, parameters, tmp_path):
    path = export(tmp_path, "last", parameters, description)
    before = load_checkpoint(path)
    path.with_suffix(".safetensors").write_bytes(b"damaged")
    export(tmp_path, "last", parameters, description)
    assert load_checkpoint(path).description == before.description
