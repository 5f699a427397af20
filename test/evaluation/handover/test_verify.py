"""A bundle is verified, and every way of forging one is seen."""

from __future__ import annotations

import csv
import dataclasses
import json
import os

import pytest
import SimpleITK as sitk
import torch

import evaluation.handover.verify
from algorithm import __version__
from algorithm.errors import DeviceError, MissingInputError, UsageError, WeightsError
from algorithm.files import sha256_of
from evaluation.__main__ import main as command
from evaluation.handover.make import score_bundle
from evaluation.handover.manifest import read_manifest
from evaluation.handover.verify import verify
from evaluation.scoring.score import csv_text, report, to_csv, to_json
from test.support.bundles import (
    flip_a_voxel,
    forge,
    forge_reports,
    one_voxel_off,
    rewrite,
    threshold,
    verdict,
)


def test_an_untouched_bundle_verifies(bundle, inputs, capsys):
    assert verify(bundle, inputs, predict=threshold) == 0
    assert verdict(capsys).startswith("VERIFIED: 2 masks repeated bit for bit on cpu ")


def test_one_voxel_of_one_mask(bundle, inputs, capsys):
    flip_a_voxel(bundle / "masks/a.mha")
    assert verify(bundle, inputs, predict=threshold) == 1
    assert verdict(capsys).startswith("DIFFERS: the mask masks/a.mha was changed: its sha256 is ")


def test_one_voxel_with_the_files_hash_forged(bundle, inputs, capsys):
    flip_a_voxel(bundle / "masks/a.mha")
    manifest = read_manifest(bundle)
    files = {**manifest.files, "masks/a.mha": sha256_of(bundle / "masks/a.mha")}
    (bundle / "manifest.json").write_text(dataclasses.replace(manifest, files=files).to_json())
    assert verify(bundle, inputs, predict=threshold) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("difference: the voxels of mask masks/a.mha were changed") for line in lines)
    assert any(line.startswith("difference: metrics.json is not what the masks score") for line in lines)


def test_one_voxel_with_every_hash_forged(bundle, inputs, capsys):
    for study in inputs.iterdir():
        (study / "SEG.nii.gz").unlink()  # so that the metrics cannot tell
    flip_a_voxel(bundle / "masks/a.mha")
    rewrite(bundle)
    forge_reports(bundle, inputs)
    rewrite(bundle)
    assert verify(bundle, inputs, predict=threshold, masks_alone=True) == 1
    assert verdict(capsys).startswith(
        "DIFFERS: the mask of case a is not repeated: 1 of 720 voxels differ, Dice 0.998"
    )


@pytest.mark.parametrize("file", ["weights/tiny.safetensors", "weights/tiny.json"])
def test_one_weight_file(bundle, inputs, capsys, file):
    content = bytearray((bundle / file).read_bytes())
    content[-2] ^= 1
    (bundle / file).write_bytes(content)
    assert verify(bundle, inputs, predict=threshold) == 1
    assert verdict(capsys).startswith(f"DIFFERS: the weights file {file} was changed")


@pytest.mark.parametrize(("file", "what"), [("CTres", "CT"), ("SUV", "PET"), ("SEG", "truth")])
def test_one_input(bundle, inputs, capsys, file, what):
    path = inputs / "synthetic_b" / f"{file}.nii.gz"
    image = sitk.ReadImage(str(path))
    image[0, 0, 0] = 1 - image[0, 0, 0]
    sitk.WriteImage(image, str(path))
    assert verify(bundle, inputs, predict=threshold) == 1
    expected = f"DIFFERS: the {what} of case synthetic_b (synthetic_b/{file}.nii.gz) was changed"
    assert verdict(capsys).startswith(expected)


@pytest.mark.parametrize("file", ["reports/a.json", "requirements.txt", "metrics.csv"])
def test_any_other_file(bundle, inputs, capsys, file):
    (bundle / file).unlink()
    assert verify(bundle, inputs, predict=threshold) == 1
    assert f"{file} is missing from the bundle" in verdict(capsys)


def test_every_difference_is_named(bundle, inputs, capsys):
    flip_a_voxel(bundle / "masks/a.mha")
    (bundle / "metrics.csv").write_text("")
    assert verify(bundle, inputs, predict=threshold) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "difference: the file metrics.csv is empty" in lines
    assert sum(line.startswith("difference: ") for line in lines) == 2
    assert lines[-1].endswith("(and 1 more, listed above)")


def test_an_inference_that_differs(bundle, inputs, capsys):
    assert verify(bundle, inputs, predict=one_voxel_off) == 1
    out = capsys.readouterr().out
    assert "the mask of case a is not repeated: 1 of 720 voxels differ" in out


def test_another_device_class_is_held_to_dice(bundle, inputs, capsys):
    rewrite(bundle, device_class="cuda NVIDIA Imaginary, torch 2.13.0")
    assert verify(bundle, inputs, predict=one_voxel_off, tolerance=0.99) == 0
    assert "Dice at least 0.99" in (last := verdict(capsys))
    assert last.endswith("made on cuda NVIDIA Imaginary, torch 2.13.0")
    assert verify(bundle, inputs, predict=one_voxel_off, tolerance=0.9999) == 1
    assert "below 0.9999" in verdict(capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a machine without a GPU")
def test_a_bundle_of_a_gpu_is_not_judged_where_there_is_none(bundle, inputs):
    content = json.loads((bundle / "manifest.json").read_text())
    content["settings"]["device"] = "cuda"
    (bundle / "manifest.json").write_text(json.dumps(content))
    rewrite(bundle)
    with pytest.raises(DeviceError, match="no usable GPU"):
        verify(bundle, inputs, predict=threshold)


def test_metrics_are_scored_again(bundle, inputs, capsys):
    content = (bundle / "metrics.json").read_text()
    first = json.loads(content)["results"][0]["dice"]
    (bundle / "metrics.json").write_text(content.replace(repr(first), repr(first + 0.01), 1))
    rewrite(bundle)
    assert verify(bundle, inputs, predict=threshold) == 1
    assert verdict(capsys) == "DIFFERS: metrics.json is not what the masks score by the rules of edition III"


def test_an_older_bundle_ranks_synthetic_cases_too(bundle, inputs, capsys):
    forge(bundle / "manifest.json", lambda c: [case.pop("subset") for case in c["cases"]])
    manifest = read_manifest(bundle)
    pairs, results = score_bundle(bundle, inputs, manifest.cases, manifest.edition)
    mixed = [dataclasses.replace(each, synthetic=False) for each in results]
    content = report(mixed, pairs, manifest.edition)
    assert set(content["aggregates"]["subsets"]) == {"no subset", "synthetic"}
    for each in content["results"]:
        del each["synthetic"]
    (bundle / "metrics.json").write_text(to_json(content))
    (bundle / "metrics.csv").write_text(to_csv(results, manifest.edition))
    rewrite(bundle)
    assert verify(bundle, inputs, predict=threshold) == 0
    forge(bundle / "metrics.json", lambda c: c["aggregates"]["ranking"]["dice"].update(value=1.0))
    rewrite(bundle)
    assert verify(bundle, inputs, predict=threshold) == 1
    assert "metrics.json is not what the masks score" in capsys.readouterr().out


@pytest.mark.parametrize("missing", [("edition",), ("synthetic", "edition"), ("synthetic",)])
def test_metrics_of_a_bundle_that_is_older_than_some_columns(bundle, inputs, capsys, missing):
    """Its table of scores does not say by whose rules it was made, or what is synthetic."""
    table = list(csv.reader((bundle / "metrics.csv").read_text().splitlines()))
    kept = [place for place, name in enumerate(table[0]) if name not in missing]
    assert len(kept) == len(table[0]) - len(missing)
    (bundle / "metrics.csv").write_text(csv_text([[row[place] for place in kept] for row in table]))
    rewrite(bundle)
    assert verify(bundle, inputs, predict=threshold) == 0, capsys.readouterr().out


def test_without_truth_the_masks_still_verify_if_that_is_asked(bundle, inputs, capsys):
    (inputs / "a" / "SEG.nii.gz").unlink()
    with pytest.raises(MissingInputError, match=r"truth of case a is not at .*, or give --masks-alone"):
        verify(bundle, inputs, predict=threshold)
    assert verify(bundle, inputs, predict=threshold, masks_alone=True) == 0
    assert verdict(capsys).startswith("VERIFIED: 2 masks (the metrics were not checked) repeated bit for bit")


@pytest.mark.parametrize(
    ("forged", "said"),
    [
        (
            lambda b: forge(b / "metrics.json", lambda c: c["aggregates"]["dice"].update(mean=1.0)),
            "metrics.json is ",
        ),
        (lambda b: (b / "metrics.json").write_text("[]"), "metrics.json is not what the masks score"),
        (lambda b: (b / "metrics.json").write_text("[" * 10_000), "metrics.json is not JSON"),
        (
            lambda b: (b / "metrics.csv").write_text((b / "metrics.csv").read_text().replace("\na,", "\nb,")),
            "metrics.csv is not what the masks score",
        ),
        (lambda b: (b / "metrics.csv").write_bytes(b"case\xff"), "metrics.csv is no table"),
        (
            lambda b: forge(b / "reports/a.json", lambda c: c.update(total_volume_ml=0.5)),
            "the run report of case a has another total_volume_ml than its mask",
        ),
        (lambda b: forge(b / "reports/a.json", lambda c: c["lesions"].pop()), "case a has another lesions than"),
        (
            lambda b: forge(b / "reports/a.json", lambda c: c["totals"].update(tlg_g=0)),
            "case a has another totals",
        ),
        (
            lambda b: forge(b / "reports/a.json", lambda c: c["weights"][0].update(name="x")),
            "case a has another weights",
        ),
        (lambda b: forge(b / "reports/a.json", lambda c: c.update(passes=8)), "case a has another passes than"),
        (
            lambda b: forge(b / "reports/a.json", lambda c: c.pop("geometry")),
            "the run report of case a lacks geometry",
        ),
        (lambda b: (b / "reports/a.json").write_text("no JSON"), "report or mask of case a cannot be compared"),
    ],
)
def test_figures_that_were_forged_and_hashed_again(bundle, inputs, capsys, forged, said):
    forged(bundle)
    rewrite(bundle)
    assert verify(bundle, inputs, predict=threshold) == 1
    assert said in verdict(capsys)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            lambda b: (b / "notes.txt").write_text("x"),
            "notes.txt lies in the bundle, but the manifest does not list it",
        ),
        (lambda b: (b / "masks/c.mha").touch(), "masks/c.mha lies in the bundle, but"),
        (
            lambda b: (b / "masks/link.mha").symlink_to("a.mha"),
            "masks/link.mha in the bundle is not a regular file",
        ),
        (lambda b: os.mkfifo(b / "pipe"), "pipe in the bundle is not a regular file"),
        (lambda b: (b / "reports/a.json").write_text(""), "the run report reports/a.json is empty"),
        (lambda b: (b / "reports/a.json").unlink(), "the run report reports/a.json is missing"),
    ],
)
def test_files_that_do_not_belong(bundle, inputs, capsys, changed, said):
    changed(bundle)
    assert verify(bundle, inputs, predict=threshold) == 1
    assert said in capsys.readouterr().out


def test_files_that_the_manifest_drops_or_adds(bundle, inputs, capsys):
    (bundle / "extra.txt").write_text("x")
    forge(
        bundle / "manifest.json", lambda c: (c["files"].pop("metrics.csv"), c["files"].update({"extra.txt": "0"}))
    )
    assert verify(bundle, inputs, predict=threshold) == 1
    out = capsys.readouterr().out
    assert "the manifest does not list metrics.csv, which a bundle of these cases must hold" in out
    assert "the manifest lists extra.txt, which is no part of a bundle of these cases" in out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(cases=[]), "it has no cases, so there is nothing to verify"),
        (lambda c: c.update(weights=[]), "it names no weights"),
        (lambda c: c["cases"].append(c["cases"][0]), "it has the case a twice"),
        (lambda c: c["cases"][0].update(mask="masks/synthetic_b.mha"), "masks/synthetic_b.mha twice"),
        (lambda c: c["cases"][0].update(synthetic="no"), "synthetic has a value of the wrong kind, 'no'"),
        (lambda c: c["cases"][0]["pet"].update(path="/etc/passwd"), "/etc/passwd lies outside"),
        (lambda c: c["cases"][0]["pet"].update(sha256="0"), "a SHA-256 has 64 hexadecimal digits"),
        (lambda c: c["cases"][0].pop("pet"), "missing key 'pet'"),
        (lambda c: c.update(cases={}), "cases must be a list"),
        (lambda c: c.update(extra=1), "its keys must be"),
        (lambda c: c["settings"].update(flips=0), "flips must lie between 1 and 8, got 0"),
        (lambda c: c["settings"].update(flips=True), "flips has a value of the wrong kind, True"),
        (lambda c: c["settings"].update(threads=10**9), "threads must lie between 1 and 1024"),
        (lambda c: c["settings"].update(overlap=2), "overlap must be at least 0 and below 1, got 2"),
        (lambda c: c["settings"].update(device="tpu"), "device must be cpu or cuda, got tpu"),
        (lambda c: c["settings"].update(precision="auto"), "precision must be one of"),
        (lambda c: c.update(edition="VI"), "edition must be one of"),
        (lambda c: c.update(code={"version": 1}), "code must have a version of another kind"),
        (lambda c: c.update(files={"a": 1}), "files must map texts to texts"),
        (lambda c: c.update(format=2), "format must be 1, got 2"),
    ],
)
def test_a_manifest_that_cannot_be_judged(bundle, inputs, change, said):
    forge(bundle / "manifest.json", change)
    with pytest.raises(UsageError, match="is damaged") as raised:
        verify(bundle, inputs, predict=threshold)
    assert said in str(raised.value)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[1]", '{"format": 1e999}', '{"format": NaN}', "\ufeff{}"])
def test_a_manifest_that_is_none(bundle, inputs, text):
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match="is damaged"):
        verify(bundle, inputs, predict=threshold)


def test_a_bug_is_no_verdict(bundle, inputs, monkeypatch, capsys):
    def fail(*_: object, **__: object) -> int:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(evaluation.handover.verify, "verify", fail)
    assert command(["verify", str(bundle), "--input", str(inputs)]) == 70
    assert "This is a bug of this software" in capsys.readouterr().err


def test_weights_that_do_not_load_are_no_verdict(bundle, inputs, monkeypatch, capsys):
    def fail(*_: object, **__: object) -> int:
        raise WeightsError("no weights")

    monkeypatch.setattr(evaluation.handover.verify, "verify", fail)
    assert command(["verify", str(bundle), "--input", str(inputs)]) == 2
    assert "the bundle cannot be judged here: no weights" in capsys.readouterr().err


def test_other_code_is_noted(bundle, inputs, capsys):
    rewrite(bundle, code={**read_manifest(bundle).code, "sha256": "0", "commit": "abc"})
    assert verify(bundle, inputs, predict=threshold) == 0
    assert f"{__version__} (commit abc) when the bundle was made" in capsys.readouterr().out
