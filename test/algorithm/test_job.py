from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray

from algorithm import __version__
from algorithm import job as job_module
from algorithm.checks.contract import CHECK_NAMES
from algorithm.description import Description, Normalisation, Postprocessing
from algorithm.errors import WeightsError
from algorithm.images import PetCt, read_pet_ct
from algorithm.inference.case_run import Prediction
from algorithm.inference.focus import Focus
from algorithm.inference.progress import Progress
from algorithm.inference.windows import fit_box
from algorithm.job import Segmenter
from algorithm.network.h2aseg import H2ASeg, tumour_probability
from algorithm.preprocessing import Prepared, prepare, restore
from algorithm.segmentation import prepare_case, segment_prepared
from algorithm.weights import Checkpoint, build_network, load_checkpoint
from test.support.checkpoints import TINY_PATCH, write_checkpoint
from test.support.jobs import CT, PET, QUICK, run, segment

UNCHECKED = replace(QUICK, no_checks=CHECK_NAMES)  # for images that show no body


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return load_checkpoint(write_checkpoint(tmp_path))


def test_mask_equals_the_plain_way(checkpoint: Checkpoint) -> None:
    """MONAI's sliding window over the whole prepared volume, air set to 0, one resampling, one comparison."""
    description, network = checkpoint.description, build_network(checkpoint)
    pair = read_pet_ct(CT, PET)
    case = prepare(pair, description)
    with torch.inference_mode():
        probability = sliding_window_inference(
            torch.from_numpy(np.stack([case.ct, case.pet])[None]),
            TINY_PATCH,
            1,
            lambda x: tumour_probability(network.finest(x[:, :1], x[:, 1:])),
            overlap=description.overlap,
            mode="gaussian",
            sigma_scale=0.125,
        )
    image = sitk.GetImageFromArray((probability[0, 0].numpy() * case.matter).transpose(2, 1, 0))
    image.CopyInformation(case.grid)
    expected = sitk.GetArrayFromImage(sitk.Resample(image, pair.pet, sitk.Transform(), sitk.sitkLinear)) > 0.5

    result = run(checkpoint, replace(QUICK, whole_volume=True))

    assert 0.01 < expected.mean() < 0.99
    assert (result.mask != expected).mean() < 5e-3  # float32 rounding at the threshold


def test_report_tells_what_was_done(checkpoint: Checkpoint) -> None:
    result = run(checkpoint, replace(QUICK, flips=2), edition="III")

    report, pet = result.report, sitk.ReadImage(PET)
    assert result.mask.dtype == np.uint8
    assert result.mask.shape == pet.GetSize()[::-1]
    assert set(np.unique(result.mask)) == {0, 1}
    assert (report.software_version, report.edition, report.ct, report.pet) == (
        __version__,
        "III",
        str(CT),
        str(PET),
    )
    assert report.geometry.size == pet.GetSize()
    assert report.geometry.direction == pet.GetDirection()
    assert [(each.name, each.sha256) for each in report.weights] == [("tiny", checkpoint.description.sha256)]
    assert (report.device, report.precision) == ("cpu", "float32")
    assert (report.passes, report.passes_planned) == (2, 2)
    assert report.stopped_because == "all flips were done"
    assert list(report.seconds) == ["read", "prepare", "predict", "postprocess"]
    assert all(seconds >= 0 for seconds in report.seconds.values())
    assert report.peak_host_memory_mib > 50
    assert report.peak_device_memory_mib is None
    assert report.lesions == result.lesions
    voxel_ml = np.prod(pet.GetSpacing()) / 1000
    assert report.total_volume_ml == pytest.approx(result.mask.sum() * voxel_ml)
    assert report.notes == ()


def test_flips_take_windows_where_they_matter(tmp_path: Path, predictions: list[Prediction]) -> None:
    """Of a network that knows no tumour anywhere near a threshold of 0.9999999 no flip is asked."""
    strict = load_checkpoint(write_checkpoint(tmp_path, threshold=0.9999999))
    once = run(strict)
    highest = predictions[-1].probability.max()
    assert highest < Focus.about(0.9999999).low

    focused = run(strict, replace(QUICK, flips=8, everywhere=False))
    everywhere = run(strict, replace(QUICK, flips=8))

    assert (once.report.passes, once.report.flip_windows) == (1, 0)
    assert (focused.report.passes, focused.report.passes_planned, focused.report.flip_windows) == (8, 8, 0)
    assert everywhere.report.flip_windows == everywhere.report.windows == focused.report.windows > 0
    np.testing.assert_array_equal(predictions[1].probability, predictions[0].probability)
    assert np.abs(predictions[2].probability - predictions[0].probability).max() > 0.01


def test_windows_cover_the_patient_only(checkpoint: Checkpoint) -> None:
    patient = run(checkpoint)
    everything = run(checkpoint, replace(QUICK, whole_volume=True))

    assert patient.report.windows < everything.report.windows


def test_air_is_never_tumour(tmp_path: Path) -> None:
    """At a threshold of next to nothing tumour is called wherever it may be at all."""
    eager = load_checkpoint(write_checkpoint(tmp_path, threshold=1e-9))
    case = prepare(read_pet_ct(CT, PET), eager.description)

    result = run(eager, replace(QUICK, whole_volume=True))

    called = np.zeros(case.ct.shape, np.float32)
    called[case.matter] = 1
    expected = np.concatenate(list(restore(called, case.grid, result.pair.pet))) > 0
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(result.mask, expected)


def test_whoever_segments_gets_0_in_air(checkpoint: Checkpoint) -> None:
    pair = read_pet_ct(CT, PET)
    case = prepare_case([checkpoint.description], lambda how: prepare(pair, how), whole_volume=True)

    probability = segment_prepared(Segmenter([checkpoint], "cpu").predictor, case, flips=1).probability

    assert 0 < case.prepared.matter.mean() < 1
    np.testing.assert_array_equal(probability > 0, case.prepared.matter)


def test_the_same_mask_every_time(checkpoint: Checkpoint) -> None:
    np.testing.assert_array_equal(run(checkpoint).mask, run(checkpoint).mask)


def test_ensemble_is_the_mean_of_probabilities(tmp_path: Path, predictions: list[Prediction]) -> None:
    checkpoints = [load_checkpoint(write_checkpoint(tmp_path, f"fold_{seed}", seed)) for seed in (1, 2)]
    for each in checkpoints:
        run(each)

    result = run(checkpoints)

    first, second, both = (prediction.probability for prediction in predictions)
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-6)
    assert np.abs(first - second).max() > 0.1
    assert [each.name for each in result.report.weights] == ["fold_1", "fold_2"]
    assert result.report.passes == 2


@pytest.mark.parametrize(
    "change",
    [
        {"spacing": (11.0, 11.0, 11.0)},
        {"orientation": "RAS"},
        {"threshold": 0.4},
        {"postprocessing": Postprocessing(suv_floor=1.0)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_ensemble_must_agree(change: dict[str, Any], tmp_path: Path) -> None:
    paths = [write_checkpoint(tmp_path, "one"), write_checkpoint(tmp_path, "two", **change)]

    with pytest.raises(
        WeightsError, match=f"must have the same {next(iter(change))}, got .* in one and .* in two"
    ):
        run([load_checkpoint(path) for path in paths])


def test_ensemble_of_two_patches(tmp_path: Path) -> None:
    one = load_checkpoint(write_checkpoint(tmp_path, "one"))
    two = load_checkpoint(write_checkpoint(tmp_path, "two", 2, patch=(48, 32, 32), overlap=0.0))

    result = run([one, two])

    assert result.report.passes == 2
    assert result.mask.shape == sitk.ReadImage(PET).GetSize()[::-1]


def test_threshold_and_postprocessing_come_from_the_checkpoint(tmp_path: Path) -> None:
    plain = run(load_checkpoint(write_checkpoint(tmp_path, "plain")))
    strict = run(load_checkpoint(write_checkpoint(tmp_path, "strict", threshold=0.9)))
    floor = Postprocessing(suv_floor=3.0)
    hot = run(load_checkpoint(write_checkpoint(tmp_path, "hot", postprocessing=floor)))
    huge = Postprocessing(minimum_lesion_ml=1e6)
    empty = run(load_checkpoint(write_checkpoint(tmp_path, "empty", postprocessing=huge)))

    suv = sitk.GetArrayFromImage(sitk.ReadImage(PET))
    assert strict.mask.sum() < plain.mask.sum()
    assert not (strict.mask & ~plain.mask).any()
    np.testing.assert_array_equal(hot.mask, plain.mask & (suv >= 3))
    assert not empty.mask.any()
    assert (empty.lesions, empty.report.total_volume_ml) == ((), 0)


class TestOtherImages:
    def write(self, folder: Path, size: tuple[int, int, int], ct_spacing: float = 4.0) -> tuple[Path, Path]:
        rng = np.random.default_rng(0)
        paths = folder / "ct.nii.gz", folder / "pet.nii.gz"
        for path, spacing, values in zip(
            paths,
            (ct_spacing, 4.0),
            (rng.normal(0, 100, size[::-1]), rng.uniform(0.5, 5, size[::-1])),
            strict=True,
        ):
            image = sitk.GetImageFromArray(values.astype(np.float32))
            image.SetSpacing((spacing, 4.0, 4.0))
            sitk.WriteImage(image, path)
        return paths

    @pytest.mark.parametrize("size", [(10, 9, 8), (1, 30, 4), (3, 3, 3)])
    def test_smaller_than_the_patch(
        self, size: tuple[int, int, int], checkpoint: Checkpoint, tmp_path: Path
    ) -> None:
        result = segment(*self.write(tmp_path, size), [checkpoint], UNCHECKED)

        assert result.mask.shape == size[::-1]
        assert result.report.windows == 1

    def test_ct_of_another_grid(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        result = segment(*self.write(tmp_path, (20, 18, 12), 5.0), [checkpoint], UNCHECKED)

        assert result.report.ct_resampled
        assert result.report.notes[0] == "the CT was resampled onto the PET's grid"
        assert len(result.report.notes) == 1 + len(CHECK_NAMES)

    def test_own_spacing_and_axes(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, spacing=None, orientation=None, pet=Normalisation("z-score-volume"))

        result = segment(*self.write(tmp_path, (40, 32, 18)), [load_checkpoint(path)], UNCHECKED)

        assert result.mask.shape == (18, 32, 40)
        assert result.report.windows == 4


def test_checkpoints_that_want_the_same_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[str] = []

    def counted(pair: PetCt, description: Description) -> Prepared:
        prepared.append(description.name)
        return prepare(pair, description)

    monkeypatch.setattr(job_module, "prepare", counted)
    same = [load_checkpoint(write_checkpoint(tmp_path, f"fold_{seed}", seed)) for seed in (1, 2)]
    other = write_checkpoint(tmp_path, "other", ct=Normalisation("clip-scale", -100.0, 100.0))

    run([*same, load_checkpoint(other)])

    assert prepared == ["fold_1", "other"]


class TestManyCases:
    """A segmenter serves one case after the other; none changes what comes of the next."""

    @staticmethod
    def another(folder: Path) -> tuple[Path, Path]:
        paths = folder / "ct.mha", folder / "pet.mha"
        for source, path in zip((CT, PET), paths, strict=True):
            sitk.WriteImage(sitk.ReadImage(source)[:, :, 10:40], path)
        return paths

    def test_the_first_again_gives_the_same_mask(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        segmenter = Segmenter([checkpoint], "cpu", "bfloat16")

        before = segmenter.segment(CT, PET, QUICK)
        other = segmenter.segment(*self.another(tmp_path), QUICK)
        after = segmenter.segment(CT, PET, QUICK)

        np.testing.assert_array_equal(after.mask, before.mask)
        assert other.mask.shape != before.mask.shape
        assert (after.report.notes, after.report.precision) == ((), "bfloat16")

    def test_also_after_a_case_that_fell_back_to_float32(
        self, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        segmenter = Segmenter([checkpoint], "cpu", "bfloat16")
        before = segmenter.segment(CT, PET, QUICK)
        finest = H2ASeg.finest

        def broken(self: H2ASeg, *arguments: Any) -> torch.Tensor:
            logits = finest(self, *arguments)
            return logits * torch.nan if logits.dtype == torch.bfloat16 else logits

        with monkeypatch.context() as patch:
            patch.setattr(H2ASeg, "finest", broken)
            fallen_back = segmenter.segment(*self.another(tmp_path), QUICK)
        after = segmenter.segment(CT, PET, QUICK)

        assert (fallen_back.report.precision, len(fallen_back.report.notes)) == ("float32", 1)
        np.testing.assert_array_equal(fallen_back.mask, segment(*self.another(tmp_path), [checkpoint]).mask)
        np.testing.assert_array_equal(after.mask, before.mask)
        assert (after.report.precision, after.report.notes) == ("bfloat16", ())


def test_progress_can_be_turned_down(checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(checkpoint, progress=Progress(logging.DEBUG))
        assert caplog.messages == []
        run(checkpoint)
        assert [line.partition(" took ")[0] for line in caplog.messages][-1] == "pass 1 of 1"


def test_probability_is_restored_without_a_seam(checkpoint: Checkpoint, predictions: list[Prediction]) -> None:
    """The box around the patient is put back where it was cut."""
    result = run(checkpoint)

    pair = read_pet_ct(CT, PET)
    case = prepare(pair, checkpoint.description)
    probability: NDArray[np.float32] = np.zeros(case.ct.shape, np.float32)
    (prediction,) = predictions
    box = fit_box(case.body, case.ct.shape, TINY_PATCH)
    assert prediction.probability.shape == tuple(part.stop - part.start for part in box)
    assert prediction.probability.size < case.ct.size
    probability[box] = prediction.probability
    probability[~case.matter] = 0
    expected = np.concatenate(list(restore(probability, case.grid, pair.pet))) > 0.5
    np.testing.assert_array_equal(result.mask, expected)
