"""Preflight of archives without an engine: each deliberately broken one fails for its own reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from algorithm.__main__ import main
from algorithm.network.h2aseg import H2ASeg
from algorithm.preflight.archive import open_archive
from algorithm.preflight.image import _examined, _model_folder
from algorithm.sockets import Edition
from algorithm.weights import load_checkpoint, save_checkpoint
from test.support.checkpoints import write_checkpoint
from test.support.image_archives import HOME, FakeImage, save_oci, save_old, with_weights

SHIPPED = Path(__file__).resolve().parents[3] / "weights" / "h2aseg.json"
WEIGHTS = f"{HOME}/weights/h2aseg.safetensors"

Change = Callable[[FakeImage], object]


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("algorithm.preflight.image.engine_answers", lambda: False)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small network's checkpoint whose kernels are as smooth as if it had been trained."""
    path = write_checkpoint(tmp_path / "weights", "h2aseg", provenance={"summary": "smoothed random numbers"})
    loaded = load_checkpoint(path)
    state = {
        name: smoothed(value) if value.ndim == 5 and value.shape[-1] > 2 else value
        for name, value in loaded.state.items()
    }
    return save_checkpoint(path.parent, "h2aseg", state, loaded.description)


def smoothed(kernel: torch.Tensor) -> torch.Tensor:
    """Return a kernel (out, in, x, y, z) whose neighbouring taps share most of their terms."""
    return torch.nn.functional.avg_pool3d(kernel, 3, stride=1, padding=1)


@pytest.fixture
def image(checkpoint: Path) -> FakeImage:
    """An image that passes."""
    return with_weights(checkpoint)


def ends(capsys: pytest.CaptureFixture[str], archive: Path, *options: str) -> tuple[int, str, str]:
    code = main(["preflight", str(archive), *options])
    said = capsys.readouterr()
    return code, said.out, said.err


def assert_fails(capsys: pytest.CaptureFixture[str], archive: Path, reason: str, *options: str) -> None:
    code, table, sentence = ends(capsys, archive, *options)
    assert code == 1, sentence
    assert sentence.startswith("Error: ")
    assert sentence.count("\n") == 1
    assert reason in sentence
    assert "FAILED" in table


@pytest.mark.parametrize(
    "save",
    [
        lambda image, path: save_old([image], path / "image.tar"),
        lambda image, path: save_old([image], path / "image.tar.gz", "w:gz"),
        lambda image, path: save_oci(image, path / "image.tar"),
        lambda image, path: save_oci(image, path / "image.tar.gz", "w:gz", layer_mode="w:gz"),
    ],
)
def test_a_good_archive_passes_in_every_layout(
    save: Callable[[FakeImage, Path], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = with_weights(SHIPPED)
    code, table, sentence = ends(capsys, save(image, tmp_path))
    assert (code, sentence) == (0, "")
    assert "FAILED" not in table
    assert "weights trained  " in table
    assert "no Docker engine answers here" in table


BROKEN: dict[str, tuple[Change, str]] = {
    "root": (lambda image: image.set(User=""), "user: it runs as root (USER is not set)"),
    "root by number": (lambda image: image.set(User="0:10001"), "user: it runs as root (USER 0:10001)"),
    "named user": (lambda image: image.set(User="h2aseg"), "user: the user must be a number, got USER h2aseg"),
    "other processor": (lambda image: image.config.update(architecture="arm64"), "got linux/arm64"),
    "unknown method": (lambda image: image.label("batch"), "must be exec or invoke, got 'batch'"),
    "no entry point": (lambda image: image.set(Entrypoint=None), "label and command: it has no entry point"),
    "setuid": (lambda image: image.add("usr/bin/su", mode=0o4755), "no setuid files: /usr/bin/su give"),
    "compiler": (
        lambda image: image.add("usr/bin/x86_64-linux-gnu-gcc-12", mode=0o755),
        "no compiler: /usr/bin/x86_64-linux-gnu-gcc-12 can",
    ),
    "pip's cache": (
        lambda image: image.add("root/.cache/pip/http/x"),
        "no package cache: /root/.cache/pip/http/x",
    ),
    "weights removed": (
        lambda image: image.add(f"{HOME}/weights/.wh.h2aseg.safetensors"),
        f"weights present: no weights found in /{HOME}/weights",
    ),
    "weights hidden": (lambda image: image.add(f"{HOME}/weights/.wh..wh..opq"), "weights present: no weights"),
    "Git-LFS pointer": (
        lambda image: image.add(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        f"weights verified: /{WEIGHTS} is a Git-LFS pointer",
    ),
    "other weights": (
        lambda image: image.add(WEIGHTS, SHIPPED.with_suffix(".safetensors").read_bytes()),
        "weights verified: ",
    ),
    "other weights than labelled": (
        lambda image: image.label("1" * 64, "h2aseg.weights.sha256"),
        "weights verified: the label h2aseg.weights.sha256 is 111111111111...",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_image_fails_for_its_reason(
    fault: str, image: FakeImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, reason = BROKEN[fault]
    change(image)
    assert_fails(capsys, save_old([image], tmp_path / "image.tar"), reason)


@pytest.mark.parametrize(
    ("fill", "reason"),
    [
        (torch.zeros_like, "weights that are 0 throughout"),
        (lambda value: torch.full_like(value, 0.25), "weights that are 0.25 throughout"),
        (torch.randn_like, "holds random numbers"),
        (lambda value: torch.rand_like(value) * 0.01, "holds random numbers"),
    ],
)
def test_weights_that_nobody_trained(
    fill: Callable[[torch.Tensor], torch.Tensor],
    reason: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    loaded = load_checkpoint(checkpoint)
    state = {name: fill(value) for name, value in loaded.state.items()}
    save_checkpoint(checkpoint.parent, "h2aseg", state, loaded.description)
    assert_fails(capsys, save_old([with_weights(checkpoint)], tmp_path / "image.tar"), reason)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_network_as_it_is_initialised_is_not_trained(
    seed: int, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(seed)
    description = load_checkpoint(SHIPPED).description
    save_checkpoint(checkpoint.parent, "h2aseg", H2ASeg(description.architecture).state_dict(), description)
    assert_fails(capsys, save_old([with_weights(checkpoint)], tmp_path / "image.tar"), "holds random numbers")


def test_weights_that_do_not_say_where_they_come_from(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    description = dataclasses.replace(load_checkpoint(checkpoint).description, provenance={})
    checkpoint.write_text(description.to_json())
    assert_fails(
        capsys,
        save_old([with_weights(checkpoint)], tmp_path / "image.tar"),
        "the provenance in h2aseg.json is empty",
    )


def test_an_attestation_is_found(image: FakeImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = save_oci(image, tmp_path / "image.tar", attestation=True)
    assert_fails(capsys, archive, "no attestation: the archive holds")


def test_two_images_in_one_archive(image: FakeImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = save_old([image, FakeImage()], tmp_path / "image.tar")
    assert_fails(capsys, archive, "archive: it must hold exactly one image, got 2")


def test_a_file_that_is_no_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "image.tar"
    archive.write_bytes(b"nothing of the kind" * 100)
    assert_fails(capsys, archive, "is not a whole archive of `docker save`")


def test_an_archive_cut_short(image: FakeImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = save_old([image], tmp_path / "image.tar.gz", "w:gz")
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    assert_fails(capsys, archive, "is not a whole archive of `docker save`")


@pytest.mark.parametrize("compression", ["gz", "xz"])
def test_a_damaged_archive(
    compression: str, image: FakeImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = save_old([image], tmp_path / f"image.tar.{compression}", f"w:{compression}")
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    assert_fails(capsys, archive, "is not a whole archive of `docker save`")


def test_bzip2_is_not_taken(image: FakeImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The platform's form lists tar, gzip and xz (rse-grand-challenge, `ContainerImageForm`)."""
    archive = save_old([image], tmp_path / "image.tar.bz2", "w:bz2")
    assert_fails(capsys, archive, "is compressed with bzip2, which no upload takes; use gzip or xz")


def test_an_image_says_which_edition_it_is_for(image: FakeImage, tmp_path: Path) -> None:
    image.set(Env=["PATH=/bin", "H2ASEG_EDITION=V"])
    assert _examined(save_old([image], tmp_path / "v.tar"), False, None)[3] == Edition.V
    image.set(Env=["H2ASEG_EDITION="])
    assert _examined(save_old([image], tmp_path / "any.tar"), False, None)[3] is None


def test_an_archive_above_the_limit(
    image: FakeImage, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("algorithm.preflight.contents.LARGEST_IMAGE_BYTES", 1e4)
    assert_fails(capsys, save_old([image], tmp_path / "image.tar.gz", "w:gz"), "size: 0.00 GB, and the platform")
    code, table, _ = ends(capsys, save_old([image], tmp_path / "image.tar"))
    assert code == 0  # it may be small enough once compressed
    assert "check the archive that `./export.sh` compresses" in table


def test_weights_beside_the_image_come_before_its_own(
    image: FakeImage, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image.add(f"{HOME}/weights/.wh.h2aseg.safetensors")
    archive = save_old([image], tmp_path / "image.tar")
    assert ends(capsys, archive, "--weights", str(checkpoint.parent))[0] == 0


def test_one_checkpoint_of_a_folder_is_checked_and_mounted_alone(
    image: FakeImage, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(checkpoint.parent, "untrained")
    archive = save_old([image], tmp_path / "image.tar")

    assert ends(capsys, archive, "--weights", str(checkpoint.parent))[0] == 1
    code, table, _ = ends(capsys, archive, "--weights", str(checkpoint))

    assert code == 0
    assert "untrained" not in table
    assert _model_folder(checkpoint.parent, tmp_path) == checkpoint.parent
    folder = _model_folder(checkpoint, tmp_path)
    assert folder is not None
    assert sorted(path.name for path in folder.iterdir()) == ["h2aseg.json", "h2aseg.safetensors"]
    assert load_checkpoint(folder / "h2aseg.json").description == load_checkpoint(checkpoint).description


def test_an_image_without_a_label_is_run_once_per_case(
    image: FakeImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image.set(Labels=None)
    assert "exec: python -m algorithm" in ends(capsys, save_old([image], tmp_path / "image.tar"))[1]


def test_layers_are_laid_on_one_another(tmp_path: Path) -> None:
    image = FakeImage()
    image.add("a/one", b"1").add("a/two", b"2").add("b/three", b"3").add("a/one", b"new").add("a/.wh.two")
    image.add("b/.wh..wh..opq").add("b/four", b"4")
    with open_archive(save_old([image], tmp_path / "image.tar")) as archive:
        assert {path: archive.read(path) for path in archive.files} == {"a/one": b"new", "b/four": b"4"}


@pytest.mark.parametrize("compression", ["gz", "xz"])
def test_compressed_archives_are_read(compression: str, tmp_path: Path) -> None:
    path = save_old([FakeImage().add("a", b"1")], tmp_path / "image", f"w:{compression}")
    with open_archive(path) as archive:
        assert archive.read("a") == b"1"
        assert archive.names == ["h2aseg:test"]


def test_an_image_whose_job_was_not_tried_is_not_called_fit(
    image: FakeImage, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("algorithm.preflight.image.engine_answers", lambda: False)
    code, said, _ = ends(capsys, save_old([image], tmp_path / "image.tar"))
    assert code == 0
    assert "fit for an upload" not in said
    assert said.endswith("not everything was (job in a container: no Docker engine answers here)\n")


def test_no_such_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, sentence = ends(capsys, tmp_path / "nothing.tar")
    assert code == 2
    assert "no Docker engine answers" in sentence
    code, _, sentence = ends(capsys, tmp_path)
    assert code == 2
    assert "is no file" in sentence
