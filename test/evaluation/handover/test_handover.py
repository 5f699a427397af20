"""A bundle holds what it promises and overwrites nothing."""

from __future__ import annotations

import argparse
import functools
import json
import os

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

import evaluation.handover.verify
from algorithm.cases import Case, list_cases
from algorithm.errors import MissingInputError, OutputError, UsageError, WeightsError
from algorithm.files import sha256_of
from evaluation.__main__ import main as command
from evaluation.handover import bundle as bundles
from evaluation.handover.bundle import (
    Manifest,
    SegmentedCase,
    voxels_sha256,
)
from evaluation.handover.make import add_arguments, make_bundle
from evaluation.handover.manifest import read_manifest
from evaluation.handover.verify import main, verify
from test.support.bundles import (
    SETTINGS,
    flip_a_voxel,
    forge_reports,
    rewrite,
    threshold,
    verdict,
)
from test.support.trees import write_tree


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
    assert manifest.cases[0].pet.sha256 == sha256_of(inputs / "a" / "SUV.nii.gz")
    assert manifest.settings == SETTINGS
    metrics = json.loads((bundle / "metrics.json").read_text())
    assert [result["case"] for result in metrics["results"]] == ["a", "synthetic_b"]
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


def test_metrics_are_averaged_in_the_subsets_that_the_list_names(tmp_path, inputs, checkpoint):
    study = "a/CTres.nii.gz,a/SUV.nii.gz,a/SEG.nii.gz"
    rows = [f"fdg_x,{study},,LMU,", f"y,{study},psma,,", f"z,{study},psma,UKT,own", f"synthetic_b,{study},psma,,"]
    table = inputs / "cases.csv"
    table.write_text("\n".join(["case,ct,pet,truth,tracer,centre,subset", *rows]))
    bundle = tmp_path / "b"
    make_bundle(list_cases(table), inputs, [checkpoint], SETTINGS, bundle, predict=threshold)
    metrics = json.loads((bundle / "metrics.json").read_text())
    subsets = {result["case"]: result["subset"] for result in metrics["results"]}
    assert subsets == {"fdg_x": "fdg, LMU", "synthetic_b": "psma", "y": "psma", "z": "own"}

    score = ["score", "--cases", str(table), "--prediction", str(bundle / "masks")]
    assert command([*score, "--json", str(tmp_path / "metrics.json")]) == 0
    scored = json.loads((tmp_path / "metrics.json").read_text())
    assert scored["aggregates"] == metrics["aggregates"]
    assert verify(bundle, inputs, predict=threshold) == 0


def test_a_folder_of_dicom_is_no_input(tmp_path, inputs, checkpoint):
    (inputs / "slices").mkdir()
    cases = [Case("x", inputs / "slices", inputs / "slices")]
    with pytest.raises(UsageError, match="takes images in files, got the DICOM folder"):
        make_bundle(cases, inputs, [checkpoint], SETTINGS, tmp_path / "b", predict=threshold)


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
    assert f"manifest sha256 {sha256_of(out / 'manifest.json')}" in verdict(capsys)
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
