from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

import evaluation.handover.verify
from algorithm import __version__
from algorithm.cases import list_cases
from algorithm.description import Description, Normalisation, read_description
from algorithm.errors import MissingInputError, OutputError, UsageError, WeightsError
from algorithm.images import read_image
from algorithm.lesions import measure_burden
from algorithm.network.architecture import Architecture
from algorithm.network.h2aseg import H2ASeg
from algorithm.report import Geometry
from algorithm.weights import save_checkpoint
from evaluation.__main__ import main as command
from evaluation.handover import bundle as bundles
from evaluation.handover.bundle import (
    BundleSettings,
    Manifest,
    SegmentedCase,
    file_sha256,
    voxels_sha256,
)
from evaluation.handover.make import add_arguments, make_bundle
from evaluation.handover.manifest import read_manifest
from evaluation.handover.verify import dice, main, verify
from test.support.trees import write_tree
from test.support.uptake import smooth_uptake

SETTINGS = BundleSettings(device="cpu", precision="float32", flips=1, overlap=None, threads=1)


def threshold(ct: Path, pet: Path, checkpoints: list[Path], settings: BundleSettings) -> SegmentedCase:
    """Stands in for the network: everything above SUV 2 is tumour."""
    assert all(path.with_suffix(".safetensors").is_file() for path in checkpoints)
    assert ct.is_file()
    image = read_image(pet, "PET")
    mask = (sitk.GetArrayFromImage(image) > 2).astype(np.uint8)
    burden = measure_burden(mask, image)
    weights = [read_description(path) for path in checkpoints]
    report = {
        "device": settings.device,
        "precision": settings.precision,
        "passes": settings.flips,
        "passes_planned": settings.flips,
        "error": None,
        "geometry": dataclasses.asdict(Geometry.of(image)),
        "weights": [{"name": each.name, "sha256": each.sha256} for each in weights],
        "lesions": [dataclasses.asdict(each) for each in burden.lesions],
        "totals": dataclasses.asdict(burden.totals),
        "total_volume_ml": burden.totals.mtv_ml,
    }
    return SegmentedCase(mask, report)


def one_voxel_off(ct: Path, pet: Path, checkpoints: list[Path], settings: BundleSettings) -> SegmentedCase:
    found = threshold(ct, pet, checkpoints, settings)
    found.mask[0, 0, 0] ^= 1
    return found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    architecture = Architecture(channels=(4, 4, 4, 4, 4), mcsa=False)
    how = Normalisation("clip-scale", low=0, high=10)
    description = Description("tiny", architecture, (32, 32, 16), (4.0, 4.0, 3.0), how, how)
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


def rewrite(bundle: Path, **changes: object) -> None:
    """Forge the manifest: new fields, and hashes that fit whatever lies in the bundle now."""
    manifest = dataclasses.replace(read_manifest(bundle), **changes)
    cases = tuple(
        dataclasses.replace(case, voxels_sha256=voxels_sha256(sitk.ReadImage(str(bundle / case.mask))))
        for case in manifest.cases
    )
    files = {path: file_sha256(bundle / path) for path in manifest.files}
    (bundle / "manifest.json").write_text(dataclasses.replace(manifest, cases=cases, files=files).to_json())


def flip_a_voxel(mask: Path) -> None:
    image = sitk.ReadImage(str(mask))
    image[3, 2, 1] = 1 - image[3, 2, 1]
    sitk.WriteImage(image, str(mask), useCompression=True)


def forge_reports(bundle: Path, inputs: Path) -> None:
    """Let the run reports say what the masks in the bundle say now."""
    for case in read_manifest(bundle).cases:
        report = bundle / f"reports/{case.name}.json"
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(bundle / case.mask)))
        burden = measure_burden(mask, read_image(inputs / case.pet.path, "PET"))
        content = json.loads(report.read_text())
        content["lesions"] = [dataclasses.asdict(each) for each in burden.lesions]
        content["totals"] = dataclasses.asdict(burden.totals)
        content["total_volume_ml"] = burden.totals.mtv_ml
        report.write_text(json.dumps(content))


def verdict(capsys) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_a_bundle_holds_what_it_promises(bundle, inputs, checkpoint):
    manifest = read_manifest(bundle)
    names = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert names - {"manifest.json"} == set(manifest.files)
    assert {
        "weights/tiny.json",
        "weights/tiny.safetensors",
        "masks/a.mha",
        "reports/a.json",
        "metrics.csv",
    } <= names
    assert (bundle / "weights/tiny.safetensors").read_bytes() == checkpoint.with_suffix(
        ".safetensors"
    ).read_bytes()
    assert [case.name for case in manifest.cases] == ["a", "synthetic_b"]
    assert [case.synthetic for case in manifest.cases] == [False, True]
    assert manifest.cases[0].pet.path == "a/SUV.nii.gz"
    assert manifest.cases[0].pet.sha256 == file_sha256(inputs / "a" / "SUV.nii.gz")
    assert manifest.settings == SETTINGS
    metrics = json.loads((bundle / "metrics.json").read_text())
    assert [result["case"] for result in metrics["results"]] == ["a", "synthetic_b"]
    assert metrics["results"][1]["subset"] == "synthetic"
    assert 0 < metrics["results"][0]["dice"] < 1


def test_requirements_are_exact_and_list_what_is_imported(bundle):
    lines = (bundle / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in lines)
    names = {line.split("==")[0].lower() for line in lines}
    assert {"torch", "numpy", "scipy", "simpleitk", "safetensors", "pytest"} <= names


def test_the_manifest_survives_its_json(bundle):
    manifest = read_manifest(bundle)
    assert isinstance(manifest, Manifest)
    assert manifest.to_json() == (bundle / "manifest.json").read_text()


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
    files = {**manifest.files, "masks/a.mha": file_sha256(bundle / "masks/a.mha")}
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


def test_metrics_are_scored_again(bundle, inputs, capsys):
    content = (bundle / "metrics.json").read_text()
    first = json.loads(content)["results"][0]["dice"]
    (bundle / "metrics.json").write_text(content.replace(repr(first), repr(first + 0.01), 1))
    rewrite(bundle)
    assert verify(bundle, inputs, predict=threshold) == 1
    assert verdict(capsys) == "DIFFERS: metrics.json is not what the masks score by the rules of edition III"


def test_without_truth_the_masks_still_verify_if_that_is_asked(bundle, inputs, capsys):
    (inputs / "a" / "SEG.nii.gz").unlink()
    with pytest.raises(MissingInputError, match=r"truth of case a is not at .*, or give --masks-alone"):
        verify(bundle, inputs, predict=threshold)
    assert verify(bundle, inputs, predict=threshold, masks_alone=True) == 0
    assert verdict(capsys).startswith("VERIFIED: 2 masks (the metrics were not checked) repeated bit for bit")


def forge(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


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


def test_bad_input_is_no_verdict(bundle, inputs, tmp_path):
    (inputs / "a" / "SUV.nii.gz").unlink()
    with pytest.raises(MissingInputError, match="the PET of case a is not at"):
        verify(bundle, inputs, predict=threshold)
    with pytest.raises(MissingInputError, match="is not a hand-over bundle"):
        verify(tmp_path, inputs, predict=threshold)
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace("a/SUV.nii.gz", "../SUV.nii.gz"))
    with pytest.raises(UsageError, match=r"damaged .*\.\./SUV\.nii\.gz lies outside"):
        verify(bundle, inputs, predict=threshold)
    manifest.write_text(manifest.read_text()[:-20])
    with pytest.raises(UsageError, match="damaged"):
        verify(bundle, inputs, predict=threshold)
    assert MissingInputError.exit_code == UsageError.exit_code == 2


def test_an_interrupted_handover_is_no_bundle(tmp_path, inputs, checkpoint):
    def fail(*_: object) -> SegmentedCase:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_bundle(list_cases(inputs), inputs, [checkpoint], SETTINGS, tmp_path / "b", predict=fail)
    with pytest.raises(MissingInputError, match="not a hand-over bundle"):
        read_manifest(tmp_path / "b")


def test_a_bundle_overwrites_nothing(bundle, inputs, checkpoint):
    before = (bundle / "manifest.json").read_bytes()
    with pytest.raises(OutputError, match="choose a new one"):
        make_bundle(list_cases(inputs), inputs, [checkpoint], SETTINGS, bundle, predict=threshold)
    assert (bundle / "manifest.json").read_bytes() == before


def test_damaged_weights_are_not_handed_over(tmp_path, inputs, checkpoint):
    for suffix in (".json", ".safetensors"):
        (tmp_path / f"tiny{suffix}").write_bytes(checkpoint.with_suffix(suffix).read_bytes())
    content = bytearray((tmp_path / "tiny.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "tiny.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="sha256"):
        make_bundle(
            list_cases(inputs), inputs, [tmp_path / "tiny.json"], SETTINGS, tmp_path / "b", predict=threshold
        )


def test_cases_from_a_table_must_lie_in_one_folder(tmp_path, inputs, checkpoint):
    table = inputs / "cases.csv"
    table.write_text("case,ct,pet,synthetic\nx,a/CTres.nii.gz,a/SUV.nii.gz,yes\n")
    manifest = make_bundle(list_cases(table), inputs, [checkpoint], SETTINGS, tmp_path / "b", predict=threshold)
    assert manifest.cases[0].synthetic
    assert manifest.cases[0].truth is None
    assert "metrics.json" not in manifest.files
    with pytest.raises(UsageError, match="lies outside"):
        make_bundle(list_cases(table), inputs / "b", [checkpoint], SETTINGS, tmp_path / "c", predict=threshold)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**27 - 1), st.integers(0, 26))
def test_voxel_hash_sees_each_voxel_and_the_geometry(bits, place):
    values = np.array([bits >> shift & 1 for shift in range(27)], np.uint8).reshape(3, 3, 3)
    image = sitk.GetImageFromArray(values)
    values.flat[place] ^= 1
    changed = sitk.GetImageFromArray(values)
    assert voxels_sha256(image) != voxels_sha256(changed)
    moved = sitk.Image(image)
    moved.SetOrigin((0, 0, 1e-9))
    assert voxels_sha256(image) != voxels_sha256(moved)


def test_dice_of_empty_masks_is_one():
    empty = np.zeros((2, 2, 2), bool)
    assert dice(empty, empty) == 1
    assert dice(empty, ~empty) == 0


def test_image_digest_is_taken_as_given_or_asked_of_docker(tmp_path, monkeypatch):
    digest = "sha256:" + "a" * 64
    assert bundles.image_digest(digest) == digest
    fake = tmp_path / "docker"
    fake.write_text(f'#!/bin/sh\n[ "$5" = known ] && echo {digest}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert bundles.image_digest("known") == digest
    with pytest.raises(MissingInputError, match="Docker knows no image other"):
        bundles.image_digest("other")


def test_commands_take_their_options(bundle, inputs, monkeypatch, capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parsed = parser.parse_args(["--input", "i", "--out", "o", "--device", "cpu"])
    assert (parsed.flips, parsed.overlap, parsed.edition) == (1, None, "III")

    parser = argparse.ArgumentParser()
    evaluation.handover.verify.add_arguments(parser)
    monkeypatch.setattr(evaluation.handover.verify, "verify", functools.partial(verify, predict=threshold))
    assert main(parser.parse_args([str(bundle), "--input", str(inputs)])) == 0
    assert verdict(capsys).startswith("VERIFIED")
    with pytest.raises(UsageError, match="--tolerance must be a Dice"):
        main(parser.parse_args([str(bundle), "--input", str(inputs), "--tolerance", "2"]))


def test_the_product_itself_hands_over_and_verifies(checkpoint, tmp_path, capsys):
    inputs = write_tree(tmp_path / "inputs", "a", "b")
    out = tmp_path / "bundle"
    assert (
        command(
            [
                "handover",
                "--input",
                str(inputs),
                "--out",
                str(out),
                "--weights",
                str(checkpoint),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert f"manifest sha256 {file_sha256(out / 'manifest.json')}" in verdict(capsys)
    manifest = read_manifest(out)
    assert manifest.settings.device == "cpu"
    assert manifest.settings.precision in ("float32", "bfloat16")
    assert json.loads((out / "reports/a_study.json").read_text())["weights"][0]["name"] == "tiny"
    assert command(["verify", str(out), "--input", str(inputs)]) == 0
    assert verdict(capsys).startswith("VERIFIED: 2 masks repeated bit for bit")

    flip_a_voxel(out / "masks/a_study.mha")
    for study in inputs.iterdir():
        (study / "study" / "SEG.nii.gz").unlink()
    rewrite(out)
    forge_reports(out, inputs)
    rewrite(out)
    assert command(["verify", str(out), "--input", str(inputs), "--masks-alone"]) == 1
    assert verdict(capsys).startswith(
        "DIFFERS: the mask of case a_study is not repeated: 1 of 34560 voxels differ"
    )
    (inputs / "a" / "study" / "SUV.nii.gz").unlink()
    assert command(["verify", str(out), "--input", str(inputs)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Error: the PET of case a_study is not at ")
