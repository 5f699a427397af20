from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.cases import list_cases
from algorithm.description import Description, Normalisation
from algorithm.network.architecture import Architecture
from algorithm.network.h2aseg import H2ASeg
from algorithm.weights import save_checkpoint
from evaluation.handover.make import make_bundle
from test.support.bundles import (
    SETTINGS,
    threshold,
)
from test.support.uptake import smooth_uptake


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    architecture = Architecture(channels=(4, 4, 4, 4, 4), mcsa=False)
    how = Normalisation("clip-scale", low=0, high=10)
    description = Description("tiny", architecture, (32, 32, 16), (4.0, 4.0, 3.0), how, how, flip_axes=("x",))
    return save_checkpoint(
        tmp_path_factory.mktemp("weights"), "tiny", H2ASeg(architecture).state_dict(), description
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory, checkpoint) -> Path:
    """Inputs and their bundle, made once; the tests spoil copies."""
    top = tmp_path_factory.mktemp("made")
    folder = top / "inputs"
    for number, name in enumerate(("a", "synthetic_b")):
        suv = smooth_uptake((8, 9, 10), 0.0, 3.9, seed=number)
        truth = (suv > 2.5).astype(np.uint8)
        study = folder / name
        study.mkdir(parents=True)
        for values, file in ((np.where(suv < 1, -1000.0, 100 * suv - 200), "CTres"), (suv, "SUV"), (truth, "SEG")):
            image = sitk.GetImageFromArray(values)
            image.SetSpacing((5.0, 5.0, 6.0))
            image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
            sitk.WriteImage(image, str(study / f"{file}.nii.gz"))
    make_bundle(list_cases(folder), folder, [checkpoint], SETTINGS, top / "bundle", predict=threshold)
    return top


@pytest.fixture
def inputs(made, tmp_path) -> Path:
    return Path(shutil.copytree(made / "inputs", tmp_path / "inputs"))


@pytest.fixture
def bundle(made, tmp_path) -> Path:
    return Path(shutil.copytree(made / "bundle", tmp_path / "bundle"))
