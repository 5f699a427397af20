"""Fixtures of the tests of training: a small data set, its cache, a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from algorithm.cases import find_cases
from algorithm.description import Description, Normalisation
from algorithm.network.architecture import Architecture
from test.support.training_runs import (
    PATCH,
    options,
)
from test.support.trees import SPACING, write_tree
from training.__main__ import main
from training.cache import build_cache


@pytest.fixture(autouse=True)
def _same_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    return write_tree(tmp_path_factory.mktemp("data"), *"abcde", tumour_free=("c",))


@pytest.fixture(scope="session")
def cache_folder(tree, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    build_cache(find_cases(tree).cases, folder, SPACING, progress=False)
    return folder


@pytest.fixture
def cases(tree, cache_folder):
    return build_cache(find_cases(tree).cases, cache_folder, SPACING, progress=False).cases


@pytest.fixture
def description() -> Description:
    return Description(
        name="tiny",
        architecture=Architecture(channels=(2, 4, 8, 16, 32)),
        patch=PATCH,
        spacing=SPACING,
        ct=Normalisation("clip-scale", -1024, 1000),
        pet=Normalisation("clip-scale", 0, 10),
    )


@pytest.fixture(scope="session")
def trained(tree, cache_folder, tmp_path_factory) -> Path:
    """Return a checkpoint after five steps, its number formats proved on two cases."""
    out = tmp_path_factory.mktemp("trained")
    more = ["--steps", "5", "--split", "all", "--seed", "4", "--proof-cases", "2"]
    assert main(options(tree, cache_folder, out, *more)) == 0
    return out / "last.json"
