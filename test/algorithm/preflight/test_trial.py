"""How preflight judges a job, with a stand-in for the container; test/preflight.sh takes real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import SimpleITK as sitk

from algorithm.dicom.study import read_pet
from algorithm.preflight import trial
from algorithm.preflight.engine import Ended
from algorithm.preflight.findings import Finding, PreflightError, Verdict, carried_out, raise_first
from algorithm.preflight.trial import Conditions, both_flags, try_job
from algorithm.sockets import CT_FOLDER, PET_FOLDER, find_job
from test.support.studies import write_study

EXAMPLE = Path(__file__).resolve().parents[2] / "input"
SOCKET = "images/automated-petct-lesion-segmentation"
WELL = Ended(0, 10.0, "", "")


def do_job(
    inputs: Path, output: Path, *, names: Sequence[str] = ("mask.mha",), label: int = 1, moved: float = 0
) -> None:
    """Write the PET above SUV 4 as the platform wants it, or not quite."""
    pet = sitk.ReadImage(str(next((inputs / "images" / "pet").iterdir())))
    mask = sitk.Cast(pet > 4, sitk.sitkUInt8) * label
    mask.SetOrigin([place + moved for place in mask.GetOrigin()])
    (output / SOCKET).mkdir(parents=True)
    for name in names:
        sitk.WriteImage(mask, str(output / SOCKET / name))
    (output / "data-centric-model.json").write_text("false")


class StandIn:
    """A container that does its job in this process and ends as it is told."""

    def __init__(self, work: Callable[[Path, Path], None], ended: Ended, out_of_memory: bool = False) -> None:
        self.work, self.ended, self.oom = work, ended, out_of_memory
        self.flags: list[list[str]] = []

    def __call__(self, image: str, flags: list[str]) -> StandIn:
        self.flags.append(flags)
        return self

    def __enter__(self) -> StandIn:
        volumes = dict(reversed(each.split("=", 1)[1].split(":")[:2]) for each in self.flags[-1] if ":/" in each)
        self.work(Path(volumes["/input"]), Path(volumes["/output"]))
        return self

    def __exit__(self, *error: object) -> None:
        return

    def wait(self, seconds: float) -> Ended:
        return self.ended

    def out_of_memory(self) -> bool:
        return self.oom

    def peak_bytes(self) -> int | None:
        return 2 * 2**30


def judged(monkeypatch: pytest.MonkeyPatch, scratch: Path, container: StandIn) -> list[Finding]:
    monkeypatch.setattr(trial, "Container", container)
    monkeypatch.setattr(trial, "has_gpu", lambda: False)
    monkeypatch.setattr(trial, "give_back_files", lambda image, folder: None)
    return try_job(conditions(), scratch)


def conditions() -> Conditions:
    return Conditions("image", "exec", EXAMPLE, None, None, 30.0, None)


def test_a_good_job_passes_every_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    findings = judged(monkeypatch, tmp_path, StandIn(do_job, WELL))
    assert [each.verdict for each in findings] == [Verdict.PASSED] * 6
    assert {each.check for each in findings} >= {"strict flags: job", "strict flags: mask"}
    assert "10.0 s of 300 s" in findings[3].found
    assert "at most 2.0 GiB" in findings[4].found
    raise_first(findings)


def test_a_job_of_dicom_files_is_judged_by_all_slices_of_its_pet(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    source = tmp_path / "source"
    write_study(source / "images")
    (source / "images" / "ct").rename(source / CT_FOLDER)
    (source / "images" / "pet").rename(source / PET_FOLDER)
    pet = read_pet(source / PET_FOLDER).image
    job = find_job(source, tmp_path / "output")
    job.mask.parent.mkdir(parents=True)
    for size, said in (
        ((40, 32, 20), "0 and 1, the PET's geometry"),
        ((40, 32, 1), "must have the PET's geometry"),
    ):
        sitk.WriteImage(sitk.Cast(pet > 4, sitk.sitkUInt8)[: size[0], : size[1], : size[2]], str(job.mask))
        found = carried_out("mask", partial(trial._mask, trial._Outcome(job, 300.0, WELL, None)))
        assert said in found.found


@pytest.mark.parametrize(
    ("work", "ended", "out_of_memory", "check", "reason"),
    [
        (lambda i, o: do_job(i, o, names=("a.mha", "b.mha")), WELL, False, "outputs", "got a.mha, b.mha"),
        (lambda i, o: do_job(i, o, names=()), WELL, False, "outputs", f"there is no image in /output/{SOCKET}"),
        (lambda i, o: do_job(i, o, names=("mask.nii.gz",)), WELL, False, "mask", "takes .mha and .tiff"),
        (lambda i, o: do_job(i, o, label=2), WELL, False, "mask", "0 and 1 only, got 2"),
        (lambda i, o: do_job(i, o, moved=1.0), WELL, False, "mask", "must have the PET's geometry"),
        (do_job, Ended(0, 290.0, "", ""), False, "time", "290.0 s of 300 s on this machine leave no room"),
        (do_job, Ended(None, 300.0, "", ""), False, "job", "it still ran after 300 s"),
        (do_job, Ended(137, 9.0, "", ""), True, "job", "killed for using more than 24.0 GiB"),
        (
            do_job,
            Ended(3, 9.0, "", "Traceback\nError: no weights\n\n"),
            False,
            "job",
            "code 3, .*: Error: no weights",
        ),
    ],
)
def test_a_bad_job_fails_for_its_reason(
    work: Callable[[Path, Path], None],
    ended: Ended,
    out_of_memory: bool,
    check: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    findings = judged(monkeypatch, tmp_path, StandIn(work, ended, out_of_memory))
    assert [each.check for each in findings if each.verdict is Verdict.FAILED] == [f"strict flags: {check}"]
    with pytest.raises(PreflightError, match=reason) as caught:
        raise_first(findings)
    assert caught.value.exit_code == 1


def test_words_on_stderr_are_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    findings = judged(monkeypatch, tmp_path, StandIn(do_job, Ended(0, 9.0, "", "UserWarning: old\n")))
    assert findings[-1].verdict is Verdict.WARNING
    assert "UserWarning: old" in findings[-1].found
    raise_first(findings)


def test_both_sets_of_flags_are_tried_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    container = StandIn(do_job, WELL)
    judged(monkeypatch, tmp_path / "first", container)
    container.flags.clear()
    assert len(both_flags(conditions(), tmp_path)) == 12
    strict, today = container.flags
    for flags in (strict, today):
        assert {"--network=none", f"--memory={24 * 2**30}", f"--memory-swap={24 * 2**30}"} <= set(flags)
    assert {"--read-only", "--cap-drop=ALL", "--shm-size=128m"} <= set(strict)
    assert "--pids-limit=128" in today
    assert "--read-only" not in today
