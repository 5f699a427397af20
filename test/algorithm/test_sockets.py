from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

from algorithm.errors import MissingInputError, OutputError, UnsupportedEditionError, UsageError
from algorithm.outputs import MASK_NOTE
from algorithm.scribbles import Scribbles
from algorithm.sockets import DATA_CENTRIC_MODEL, Edition, Job, find_job

AUTOMATED = "images/automated-petct-lesion-segmentation/ct-uuid.mha"
INTERACTIVE = "images/tumor-lesion-segmentation/ct-uuid.mha"
CLICKS = {
    "version": {"major": 1, "minor": 0},
    "type": "Multiple points",
    "points": [{"point": [1, 2, 3], "name": "tumor"}, {"point": [4, 5, 6], "name": "background"}],
}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """An input folder with one CT and one PET, and an output folder that does not exist."""
    place(tmp_path, "input/images/ct/ct-uuid.mha", "input/images/pet/pet-uuid.mha")
    return tmp_path / "input", tmp_path / "output"


def place(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def socket_value(slug: str, relative_path: str | None, key: str = "interface") -> dict[str, Any]:
    described = {"slug": slug, "relative_path": relative_path, "super_kind": "Image"}
    return {key: described, "image": {"name": "as the uploader called it.mha"}}


NONE = Scribbles()


def write_sockets(folder: Path, *values: Any) -> None:
    (folder / "inputs.json").write_text(json.dumps(values))


def test_images_alone_are_edition_three(folders: tuple[Path, Path]) -> None:
    input_dir, output_dir = folders

    job = find_job(input_dir, output_dir)

    assert dataclasses.replace(job, scribbles=NONE) == Job(
        edition=Edition.III,
        ct=input_dir / "images/ct/ct-uuid.mha",
        pet=input_dir / "images/pet/pet-uuid.mha",
        mask=output_dir / AUTOMATED,
        extras={output_dir / "data-centric-model.json": DATA_CENTRIC_MODEL},
        scribbles=NONE,
    )
    assert len(job.scribbles) == 0
    assert not output_dir.exists()


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (json.dumps(CLICKS), 2),
        (json.dumps({"tumor": [[1, 2, 3]], "background": [[4, 5, 6], [7, 8, 9]]}), 3),
        (json.dumps({"tumor": [], "background": []}), 0),
        ("{}", 0),
        ("[]", 0),
        ("null", 0),
        (" \n", 0),
        ("\ufeff", 0),
        ('{"type": "Multiple points"}', 0),
    ],
)
def test_clicks_mean_an_interactive_edition(folders: tuple[Path, Path], content: str, count: int) -> None:
    input_dir, output_dir = folders
    (input_dir / "lesion-clicks.json").write_text(content)

    job = find_job(input_dir, output_dir)

    assert job.edition is Edition.V
    assert job.mask == output_dir / INTERACTIVE
    assert job.extras == {}
    assert len(job.scribbles) == count


def test_a_folder_called_like_the_clicks_is_an_error(folders: tuple[Path, Path]) -> None:
    (folders[0] / "lesion-clicks.json").mkdir()

    with pytest.raises(MissingInputError, match=r"lesion-clicks\.json.* no regular file"):
        find_job(*folders)


@pytest.mark.parametrize("content", ['{"points": 3}', '{"dots": []}', "[1, 2]", '"clicks"', '{"points": ['])
def test_malformed_clicks(folders: tuple[Path, Path], content: str) -> None:
    (folders[0] / "lesion-clicks.json").write_text(content)

    with pytest.raises(MissingInputError, match=r"lesion-clicks\.json.*correct "):
        find_job(*folders)


@pytest.mark.parametrize(
    ("edition", "mask", "extras"),
    [
        (Edition.I, AUTOMATED, []),
        (Edition.II, AUTOMATED, []),
        (Edition.III, AUTOMATED, ["data-centric-model.json"]),
        (Edition.IV, INTERACTIVE, []),
        (Edition.V, INTERACTIVE, []),
    ],
)
@pytest.mark.parametrize("clicks", [True, False])
def test_forced_edition(
    folders: tuple[Path, Path], edition: Edition, mask: str, extras: list[str], clicks: bool
) -> None:
    input_dir, output_dir = folders
    if clicks:
        (input_dir / "lesion-clicks.json").write_text(json.dumps(CLICKS))

    job = find_job(input_dir, output_dir, edition)

    assert job.edition is edition
    assert job.mask == output_dir / mask
    assert list(job.extras) == [output_dir / name for name in extras]


@pytest.mark.parametrize("key", ["interface", "socket"])
@pytest.mark.parametrize(
    ("slugs", "edition"),
    [
        (("pet", "ct"), Edition.III),
        (("ct-image", "pet-image"), Edition.III),
        (("lesion-clicks", "ct", "pet"), Edition.V),
    ],
)
def test_sockets_file(folders: tuple[Path, Path], slugs: tuple[str, ...], edition: Edition, key: str) -> None:
    input_dir, output_dir = folders
    paths = {"ct-image": "images/ct", "pet-image": "images/pet", "lesion-clicks": "lesion-clicks.json"}
    write_sockets(input_dir, *(socket_value(slug, paths.get(slug), key) for slug in slugs))

    job = find_job(input_dir, output_dir)

    assert job.edition is edition
    assert job.ct == input_dir / "images/ct/ct-uuid.mha"
    assert job.pet == input_dir / "images/pet/pet-uuid.mha"


def test_sockets_file_says_where_things_lie(tmp_path: Path) -> None:
    place(tmp_path, "images/ct-res/a.mha", "images/suv/b.mha")
    (tmp_path / "scribbles.json").write_text(json.dumps(CLICKS))
    write_sockets(
        tmp_path,
        socket_value("ct", "images/ct-res"),
        socket_value("pet", "images/suv"),
        socket_value("lesion-clicks", "scribbles.json"),
    )

    job = find_job(tmp_path, tmp_path / "output")

    assert (job.ct.name, job.pet.name, len(job.scribbles), job.mask.name) == ("a.mha", "b.mha", 2, "a.mha")


def test_sockets_of_no_known_edition(folders: tuple[Path, Path]) -> None:
    write_sockets(folders[0], socket_value("ct", None), socket_value("pet", None), socket_value("mri", None))

    with pytest.raises(
        MissingInputError, match="names the sockets ct, mri, pet, but the algorithm takes ct and pet"
    ):
        find_job(*folders)
    assert find_job(*folders, Edition.II).edition is Edition.II


def test_sockets_without_pet(folders: tuple[Path, Path]) -> None:
    write_sockets(folders[0], socket_value("ct", None))

    with pytest.raises(MissingInputError, match="names the sockets ct, but"):
        find_job(*folders, Edition.III)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "3",
        '["ct"]',
        '[{"interface": {}}]',
        '[{"image": {}}]',
        '[{"socket": 3}]',
        '[{"socket": {"slug": 3}}]',
    ],
)
def test_malformed_sockets_file(folders: tuple[Path, Path], content: str) -> None:
    (folders[0] / "inputs.json").write_text(content)

    with pytest.raises(MissingInputError, match=r"inputs\.json"):
        find_job(*folders)


@pytest.mark.parametrize("edition", [None, Edition.IV])
def test_task_two_by_its_folders(tmp_path: Path, edition: Edition | None) -> None:
    place(tmp_path, "images/primary-baseline-ct/a.mha", "images/primary-followup-ct/b.mha")

    with pytest.raises(
        UnsupportedEditionError, match=r"AutoPET IV task 2.*primary-baseline-ct, primary-followup-ct"
    ):
        find_job(tmp_path, tmp_path / "output", edition)


def test_task_two_by_its_sockets(tmp_path: Path) -> None:
    slugs = ("primary-followup-ct", "primary-baseline-ct", "primary-followup-lesion-clicks")
    write_sockets(tmp_path, *(socket_value(slug, None) for slug in slugs))

    with pytest.raises(UnsupportedEditionError, match="AutoPET IV task 2"):
        find_job(tmp_path, tmp_path / "output")


@pytest.mark.parametrize("folder_exists", [True, False])
@pytest.mark.parametrize(("what", "folder"), [("CT", "ct"), ("PET", "pet")])
def test_no_image(folders: tuple[Path, Path], what: str, folder: str, folder_exists: bool) -> None:
    path = folders[0] / "images" / folder
    (path / f"{folder}-uuid.mha").unlink()
    if not folder_exists:
        path.rmdir()

    with pytest.raises(MissingInputError) as caught:
        find_job(*folders)
    assert str(caught.value) == (
        f"no {what} image found in {path} (looked for .mha, .mhd, .tif); put exactly one there"
    )


def test_nothing_but_other_files(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "images/ct/ct-uuid.mha"
    path.rename(path.with_suffix(".nii.gz"))

    with pytest.raises(MissingInputError, match=r"put exactly one there; it holds ct-uuid\.nii\.gz$"):
        find_job(*folders)


def test_several_images(folders: tuple[Path, Path]) -> None:
    place(folders[0], "images/pet/second.MHA")

    with pytest.raises(
        MissingInputError, match=r"2 PET images found in .*pet \(pet-uuid\.mha, second\.MHA\); leave"
    ):
        find_job(*folders)


def test_hidden_files_and_raw_data_do_not_count(tmp_path: Path) -> None:
    place(tmp_path, "images/ct/._a.mha", "images/ct/a.mhd", "images/ct/a.raw", "images/pet/b.tif")

    job = find_job(tmp_path, tmp_path / "output")

    assert (job.ct.name, job.pet.name, job.mask.name) == ("a.mhd", "b.tif", "a.mha")


def test_other_file_among_the_output(folders: tuple[Path, Path]) -> None:
    place(folders[1], "images/automated-petct-lesion-segmentation/another.mha")

    with pytest.raises(OutputError, match=r"must hold nothing but the mask ct-uuid\.mha, got another\.mha"):
        find_job(*folders)


def test_mask_of_an_earlier_run_may_be_replaced(folders: tuple[Path, Path]) -> None:
    place(folders[1], AUTOMATED)

    assert find_job(*folders).mask == folders[1] / AUTOMATED


def write_mask_file(path: Path, spacing: float = 2.0, kind: int = sitk.sitkUInt8, note: str = MASK_NOTE) -> None:
    image = sitk.Image([4, 3, 2], kind)
    image.SetSpacing([spacing] * 3)
    image.SetMetaData("ITK_FileNotes", note)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=True)


def test_masks_of_earlier_calls_give_way(folders: tuple[Path, Path]) -> None:
    input_dir, output_dir = folders
    write_mask_file(input_dir / "images/pet/pet-uuid.mha", kind=sitk.sitkFloat32)
    earlier = output_dir / "images/tumor-lesion-segmentation/earlier-uuid.mha"
    write_mask_file(earlier)

    assert find_job(input_dir, output_dir, Edition.V).earlier == (earlier,)


def test_masks_of_other_cases_are_not_of_earlier_calls(folders: tuple[Path, Path]) -> None:
    input_dir, output_dir = folders
    write_mask_file(input_dir / "images/pet/pet-uuid.mha", kind=sitk.sitkFloat32)
    write_mask_file(output_dir / "images/tumor-lesion-segmentation/other-grid.mha", spacing=3.0)

    assert find_job(input_dir, output_dir, Edition.V).earlier == ()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sixteen-bit.mha", {"kind": sitk.sitkUInt16}),
        ("other-format.nii.gz", {}),
        ("other-hand.mha", {"note": "drawn by hand"}),
    ],
)
def test_foreign_files_do_not(folders: tuple[Path, Path], name: str, options: dict[str, Any]) -> None:
    input_dir, output_dir = folders
    write_mask_file(input_dir / "images/pet/pet-uuid.mha", kind=sitk.sitkFloat32)
    write_mask_file(output_dir / "images/tumor-lesion-segmentation" / name, **options)

    with pytest.raises(OutputError, match=f"must hold nothing but the mask ct-uuid.mha, got {name}"):
        find_job(input_dir, output_dir, Edition.V)


def test_a_folder_of_dicom_is_the_image(tmp_path: Path) -> None:
    place(tmp_path, "images/ct/series/1.dcm", "images/ct/series/2.DCM", "images/pet/b.mha")

    job = find_job(tmp_path, tmp_path / "output")

    assert (job.ct, job.mask.name) == (tmp_path / "images/ct", "ct.mha")


@pytest.mark.parametrize("slug", ["ct", "pet", "lesion-clicks"])
@pytest.mark.parametrize("path", ["/etc/passwd", "../elsewhere", "images/../../x", "x" * 300])
def test_paths_that_lead_elsewhere(folders: tuple[Path, Path], slug: str, path: str) -> None:
    places = {"ct": "images/ct", "pet": "images/pet", "lesion-clicks": "lesion-clicks.json"} | {slug: path}
    write_sockets(folders[0], *(socket_value(*each, "socket") for each in places.items()))

    with pytest.raises(MissingInputError, match="does not lie below the job's folder"):
        find_job(*folders)


def test_clicks_may_stand_in_the_sockets_file(folders: tuple[Path, Path]) -> None:
    clicks = {**socket_value("lesion-clicks", "lesion-clicks.json", "socket"), "image": None, "value": CLICKS}
    write_sockets(folders[0], socket_value("ct", None), socket_value("pet", None), clicks)

    scribbles = find_job(*folders).scribbles

    assert scribbles.tumour.tolist() == [[1, 2, 3]]
    assert scribbles.background.tolist() == [[4, 5, 6]]


def test_folder_that_cannot_be_listed(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)  # file modes do not stop root, as whom containers often test

    with pytest.raises(MissingInputError, match=r"cannot look into .*: Permission denied"):
        find_job(*folders)


@pytest.mark.parametrize("name", ["iii", " III ", "III"])
def test_edition_by_name(name: str) -> None:
    assert Edition.named(name) is Edition.III


def test_unknown_edition() -> None:
    with pytest.raises(UsageError, match="must be one of I, II, III, IV, V, got 'VI'"):
        Edition.named("VI")


def test_time_limits() -> None:
    assert [edition.time_limit_s for edition in Edition] == [300, 300, 300, 900, 600]
