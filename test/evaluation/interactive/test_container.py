"""The loop against an image, with a stand-in for docker that does what a container would do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from algorithm.cases import Case
from algorithm.errors import (
    GeometryError,
    InstallationError,
    MissingInputError,
    OutputError,
    UnreadableImageError,
)
from evaluation.__main__ import main as command
from evaluation.interactive.container import STRICT, InContainer
from evaluation.interactive.loop import clicks_json, play
from test.conftest import ROOT
from test.evaluation.interactive.test_loop import SHAPE, case_of

STAND_IN = '''#!{python}
"""Notes what it is asked; a run marks the tumour points on the PET's grid."""
import json, sys, time
from pathlib import Path

arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(arguments) + "\\n")
if arguments[:2] == ["image", "inspect"]:
    if arguments[-1] != "some:image":
        sys.exit("Error: No such image: " + arguments[-1])
    print("sha256:0123")
if arguments[0] == "run" and "--entrypoint" not in arguments:
    volumes = dict(reversed(each.removesuffix(":ro").split(":")) for each in arguments if each.startswith("/"))
    incoming, output, cache = (Path(volumes[name]) for name in ("/input", "/output", "/cache"))
    call = len(list(cache.iterdir()))
    (cache / str(call)).touch()
    exec({extra!r})
    import SimpleITK as sitk
    (pet,) = (incoming / "images" / "pet").iterdir()
    image = sitk.ReadImage(str(pet))
    mask = sitk.Image(image.GetSize(), sitk.sitkUInt8)
    mask.CopyInformation(image)
    for point in json.loads((incoming / "lesion-clicks.json").read_text())["points"]:
        mask[point["point"]] = point["name"] == "tumor"
    folder = output / "images" / "tumor-lesion-segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(mask, str(folder / pet.name))
'''


class Engine:
    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.log = folder / "docker.log"
        self.bin.mkdir()
        self.write("")

    def write(self, extra: str) -> None:
        """Let each run do something first, given ``call`` (0, 1, ...), ``output`` and ``cache``."""
        script = self.bin / "docker"
        script.write_text(STAND_IN.format(python=sys.executable, log=str(self.log), extra=extra))
        script.chmod(0o755)

    def asked(self, what: str) -> list[list[str]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [each for each in lines if each[0] == what]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine(tmp_path)
    monkeypatch.setenv("PATH", f"{engine.bin}:{os.environ['PATH']}")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return engine


@pytest.fixture
def box(tmp_path: Path) -> Case:
    truth = np.zeros(SHAPE, dtype=bool)
    truth[2:6, 4:16, 4:20] = True
    return case_of(tmp_path, truth)


@pytest.fixture
def no_clicks(tmp_path: Path) -> Path:
    path = tmp_path / "clicks.json"
    path.write_text(clicks_json([]))
    return path


def work_folders(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("h2aseg-interact-*"))


def test_the_container_is_as_strict_as_the_tests(engine: Engine, box: Case, no_clicks: Path) -> None:
    script = 'WORK=/nowhere IMAGE=none; . test/container_common.sh; printf "%s\\n" "${STRICT[@]}"'
    shell = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    with InContainer("some:image", edition="V") as player:
        player(box, no_clicks)
    (run,) = engine.asked("run")

    assert list(STRICT) == shell.stdout.split()
    assert " ".join(STRICT) in " ".join(run)
    assert [each.split(":")[1:] for each in run if each.startswith("/")] == [
        ["/input", "ro"],
        ["/output"],
        ["/cache"],
    ]
    assert run[-1] == "some:image"
    assert "--gpus" not in run


def test_output_and_cache_are_kept_within_a_case_and_new_for_the_next(
    engine: Engine, box: Case, no_clicks: Path, tmp_path: Path
) -> None:
    other = Case("another", box.ct, box.pet, box.truth)
    with InContainer("some:image", edition="V") as player:
        for case in (box, box, other):
            player(case, no_clicks)
            (work,) = work_folders(tmp_path)
            assert [path.name for path in (work / "input" / "images" / "ct").iterdir()] == [f"{case.name}.mha"]
            assert (work / "cache").stat().st_mode & 0o777 == 0o777
            assert len(list((work / "cache").iterdir())) == (1 if case is other else len(engine.asked("run")))
    assert work_folders(tmp_path) == []


def test_the_loop_plays_against_it(engine: Engine, box: Case) -> None:
    with InContainer("some:image", edition="V") as player:
        played = play(box, player, edition="V", kind="centreline", steps=4, seed=0)
    dice = played.values("dice")

    assert dice[0] == 0.0
    assert dice == sorted(set(dice))
    assert not any(step.failure for step in played.steps)


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (
            'print("loading", file=sys.stderr); sys.exit("Error: no CT image found")',
            "exit code 1: no CT image found",
        ),
        ("sys.exit(0)", "it wrote 0"),
        ("time.sleep(60)", "ran longer than 3 s"),
    ],
    ids=["fails", "writes nothing new", "hangs"],
)
def test_a_container_that_fails_is_a_failed_call(
    extra: str, sentence: str, engine: Engine, box: Case, no_clicks: Path
) -> None:
    with InContainer("some:image", edition="V", timeout_s=60) as player:
        player(box, no_clicks)
        player.timeout_s = 3
        engine.write(f"if call == 1: {extra}" if ";" not in extra else f"if call == 1:\n    {extra}")
        with pytest.raises(OutputError, match=sentence):
            player(box, no_clicks)
        if "sleep" in extra:
            (removed,) = engine.asked("rm")
            assert removed[:2] == ["rm", "--force"]
            assert removed[2] in engine.asked("run")[0]
        player.timeout_s = 60
        assert player(box, no_clicks).shape == SHAPE


def test_masks_of_earlier_calls_beside_the_new_one_are_a_failed_call(
    engine: Engine, box: Case, no_clicks: Path, tmp_path: Path
) -> None:
    with InContainer("some:image", edition="V") as player:
        player(box, no_clicks)
        (work,) = work_folders(tmp_path)
        (mask,) = (work / "output" / player.mask_folder).iterdir()
        mask.rename(mask.with_name("first.mha"))
        with pytest.raises(OutputError, match=r"must leave one mask in .*segmentation, got also first\.mha of"):
            player(box, no_clicks)


def test_a_mask_off_the_pets_grid_is_a_failed_call(engine: Engine, box: Case, no_clicks: Path) -> None:
    engine.write("import SimpleITK; SimpleITK.Image.CopyInformation = lambda mask, pet: None")
    with (
        InContainer("some:image", edition="V") as player,
        pytest.raises(GeometryError, match="the mask of some:image must lie on the PET's grid"),
    ):
        player(box, no_clicks)


def test_a_case_that_cannot_be_read_fails_at_every_call(
    engine: Engine, box: Case, no_clicks: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mha"
    broken.write_bytes(box.ct.read_bytes()[:300])
    case = Case(box.name, broken, box.pet, box.truth)
    with InContainer("some:image", edition="V") as player:
        for _ in range(2):
            with pytest.raises(UnreadableImageError, match="broken"):
                player(case, no_clicks)
    assert not engine.asked("run")
    assert not work_folders(tmp_path)


def test_no_engine_and_no_image_end_in_a_sentence(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingInputError, match=r"'other:image' \(Error: No such image: other:image\)"):
        InContainer("other:image", edition="V")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InstallationError, match="no docker command"):
        InContainer("some:image", edition="V")


def test_command_plays_against_an_image(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = ["interact", "--cases", str(ROOT / "test" / "cases.csv"), "--image", "some:image"]

    assert command([*cases, "--steps", "2", "--out", str(tmp_path / "out")]) == 0
    content: dict[str, Any] = json.loads((tmp_path / "out" / "interact.json").read_text())
    assert (content["image"], content["image_id"]) == ("some:image", "sha256:0123")
    assert content["cases"][0]["steps"][1]["dice"] > 0
    assert command([*cases, "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "two")]) == 2
    assert "leave them out beside --image" in capsys.readouterr().err


def test_images_are_handed_over_as_the_platform_does(
    engine: Engine, box: Case, tmp_path: Path, no_clicks: Path
) -> None:
    nifti = tmp_path / "ct.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(box.ct)), str(nifti))
    with InContainer("some:image", edition="IV") as player:
        player(Case(box.name, nifti, box.pet, box.truth), no_clicks)
        (work,) = work_folders(tmp_path)
        written = sitk.ReadImage(str(work / "input" / "images" / "ct" / f"{box.name}.mha"))
        assert written.GetSpacing() == sitk.ReadImage(str(box.ct)).GetSpacing()
        assert (work / "input" / "lesion-clicks.json").read_text() == no_clicks.read_text()
