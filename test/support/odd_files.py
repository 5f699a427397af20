"""What is no regular file, has an odd name, or is not the image that its name promises."""

from __future__ import annotations

import gzip
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from test.support.bodies import small_pair
from test.support.odd_inputs import Odd, Pair, pair_with, put


def pet_file(folder: Path, name: str = "pet.mha", *, compressed: bool = False) -> Path:
    return put(small_pair()[1], folder / name, compressed=compressed)


def _bytes(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pet.nii.gz")
    return folder / "pet.nii.gz"


def _socket(folder: Path) -> Path:
    here = Path.cwd()
    os.chdir(folder)  # a socket's whole path must be short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("pet.mha")
    finally:
        os.chdir(here)
    return folder / "pet.mha"


def _link(target: str, name: str = "pet.mha") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).symlink_to(target)
        return folder / name

    return make


def _loop(folder: Path) -> Path:
    (folder / "a.mha").symlink_to("b.mha")
    (folder / "b.mha").symlink_to("a.mha")
    return folder / "a.mha"


def _folder(folder: Path) -> Path:
    (folder / "pet.mha").mkdir()
    pet_file(folder / "pet.mha")
    return folder / "pet.mha"


def _dicom(folder: Path) -> Path:
    path = folder / "series" / "1.dcm"
    path.parent.mkdir()
    path.write_bytes(bytes(128) + b"DICM" + bytes(100))
    return path


def _latin(folder: Path) -> Path:
    name = os.fsdecode("käse.nii.gz".encode("latin-1"))
    pet_file(folder, "good.nii.gz").rename(folder / name)
    return folder / name


def _renamed(new: str, old: str = "good.mha") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        return pet_file(folder, old).rename(folder / new)

    return make


def _linked(folder: Path) -> Path:
    (folder / "pet.mha").symlink_to(pet_file(folder, "there.mha"))
    return folder / "pet.mha"


def _detached(
    name: str, *, link: str | None = None, change: Callable[[Path], object] | None = None
) -> Callable[..., Path]:
    """Return a maker of .mhd whose header names ``name``; the data lie beside it as pet.raw and are changed."""

    def make(folder: Path) -> Path:
        path = pet_file(folder, "pet.mhd")
        path.write_bytes(path.read_bytes().replace(b"= pet.raw", b"= " + name.encode()))
        if change is not None:
            change(folder / "pet.raw")
        if link is not None:
            (folder / "pet.raw").unlink()
            (folder / "pet.raw").symlink_to(link)
        return path

    return make


def _replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def _elsewhere(folder: Path) -> Path:
    path = _detached("sub/pet.raw")(folder)
    (folder / "sub").mkdir()
    (folder / "pet.raw").rename(folder / "sub/pet.raw")
    return path


def _linked_out(folder: Path) -> Path:
    path = _detached("pet.raw")(folder)
    (folder / "sub").mkdir()
    (folder / "pet.raw").rename(folder / "sub/pet.raw")
    (folder / "pet.raw").symlink_to("sub/pet.raw")
    return path


def _flat(folder: Path) -> Path:
    return put(sitk.Cast(small_pair()[1][:, :, 20], sitk.sitkUInt8), folder / "pet.tif")


def _cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def _longer(path: Path, more: bytes = bytes(64)) -> Path:
    path.write_bytes(path.read_bytes() + more)
    return path


def _damaged(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 60] = np.random.default_rng(0).bytes(60)
    path.write_bytes(content)
    return path


def _checksum(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[-6] ^= 255
    path.write_bytes(content)
    return path


def _repacked(folder: Path, change: Callable[[bytes], bytes]) -> Path:
    path = pet_file(folder, "pet.nii")
    packed = folder / "pet.nii.gz"
    packed.write_bytes(gzip.compress(change(path.read_bytes()), 1))
    return packed


def _both_pets(folder: Path) -> Pair:
    return put(small_pair()[0], folder / "ct.mha"), folder / "pet.mha"


FILES = (
    Odd("no such file", 2, "there is no PET image at", _both_pets),
    Odd("no such folder", 2, "there is no PET image at", pair_with(lambda folder: folder / "none/pet.mha")),
    Odd("a file taken for a folder", 2, "there is no PET image at", pair_with(lambda f: pet_file(f) / "pet.mha")),
    Odd("empty file", 2, "it is empty (0 bytes)", pair_with(_bytes("pet.mha", b""))),
    Odd("one byte", 2, "not a MetaImage's header", pair_with(_bytes("pet.mha", b"O"))),
    Odd("Git-LFS pointer", 2, "run `git lfs pull`",
        pair_with(_bytes("pet.nii.gz", b"version https://git-lfs.github.com/"))),
    Odd("text", 2, "not a MetaImage's header", pair_with(_bytes("pet.mha", b"hello\n" * 99))),
    Odd("null bytes", 2, "not a MetaImage's header", pair_with(_bytes("pet.mha", bytes(9999)))),
    Odd("null bytes in .nii", 2, "does not begin with a NIfTI header", pair_with(_bytes("pet.nii", bytes(9999)))),
    Odd("null bytes in .nii.gz", 2, "is not compressed with gzip", pair_with(_bytes("pet.nii.gz", bytes(9999)))),
    Odd("null bytes in .nrrd", 2, "does not begin with NRRD", pair_with(_bytes("pet.nrrd", bytes(9999)))),
    Odd("short .nii", 2, "does not begin with a NIfTI header", pair_with(_bytes("pet.nii", b"\x5c\x01\0\0"))),
    Odd("folder", 2, "it is a folder, where one image file is needed", pair_with(_folder)),
    Odd("folder of DICOM", 2, "folder of DICOM files", pair_with(lambda folder: _dicom(folder).parent)),
    Odd("single DICOM file", 2, "it is a single DICOM file", pair_with(_dicom)),
    Odd("TIFF", 2, "not in an image format that is read", pair_with(_flat)),
    Odd("unknown suffix", 2, "give .mha, .mhd, .nii", pair_with(_renamed("pet.xyz"))),
    Odd("no suffix", 2, "not in an image format that is read", pair_with(_renamed("pet"))),
    Odd("NIfTI named .mha", 2, "not a MetaImage's header", pair_with(_renamed("pet.mha", "good.nii"))),
    Odd("MetaImage named .nii", 2, "does not begin with a NIfTI header", pair_with(_renamed("pet.nii"))),
    Odd(".nii named .nii.gz", 2, "is not compressed with gzip", pair_with(_renamed("pet.nii.gz", "good.nii"))),
    Odd(".nii.gz named .nii", 2, "is compressed with gzip", pair_with(_renamed("pet.nii", "good.nii.gz"))),
    Odd("NIfTI of one file named .hdr", 2, "does not go with its name",
        pair_with(_renamed("pet.hdr", "good.nii"))),
    Odd("named pipe", 2, "it is a named pipe", pair_with(_fifo)),
    Odd("named pipe as CT", 2, "cannot read the CT", pair_with(_fifo, "CT")),
    Odd("socket", 2, "it is a socket", pair_with(_socket)),
    Odd("link to /dev/zero", 2, "it is a device", pair_with(_link("/dev/zero"))),
    Odd("link to /dev/null", 2, "it is a device", pair_with(_link("/dev/null", "pet.nii"))),
    Odd("dangling link", 2, "there is no PET image at", pair_with(_link("gone.mha"))),
    Odd("loop of links", 2, "links lead in a circle", pair_with(_loop)),
    Odd("link to itself", 2, "links lead in a circle", pair_with(_link("pet.mha"))),
    Odd("over-long name", 2, "longer than a file's can be",
        pair_with(lambda folder: folder / ("a" * 300 + ".mha"))),
    Odd("over-long path", 2, "longer than a file's can be",
        pair_with(lambda folder: folder / ("a/" * 3000 + "b.mha"))),
    Odd("name in Latin-1", 2, "its name is not valid UTF-8; rename", pair_with(_latin)),
    Odd("null byte in the name", 2, "cannot hold a null byte", pair_with(lambda folder: folder / "a\0b.mha")),
    Odd(".MHA in capitals", 0, "", pair_with(_renamed("PET.MHA"))),
    Odd(".NII.GZ in capitals", 0, "", pair_with(_renamed("PET.NII.GZ", "good.nii.gz"))),
    Odd(".NRRD in capitals", 0, "", pair_with(_renamed("PET.NRRD", "good.nrrd"))),
    Odd("name with umlaut and space", 0, "", pair_with(_renamed("Käse 1.mha"))),
    Odd("name with a line break", 0, "", pair_with(_renamed("a\nb.mha"))),
    Odd("link to an image", 0, "", pair_with(_linked)),
    Odd(".mhd with its data", 0, "", pair_with(_detached("pet.raw"))),
    Odd(".mhd, data missing", 2, "its data 'gone.raw' cannot be read", pair_with(_detached("gone.raw"))),
    Odd(".mhd, data in a sub-folder", 2, "looks for its data elsewhere, at 'sub/pet.raw'", pair_with(_elsewhere)),
    Odd(".mhd, data at an absolute path", 2, "looks for its data elsewhere", pair_with(_detached("/etc/passwd"))),
    Odd(".mhd, data that climb", 2, "looks for its data elsewhere", pair_with(_detached("../pet.raw"))),
    Odd(".mhd, data a link that leads out", 2, "link that leads to another folder", pair_with(_linked_out)),
    Odd(".mhd, data a named pipe", 2, "it is a named pipe",
        pair_with(_detached("pet.raw", change=_replaced(os.mkfifo)))),
    Odd(".mhd, data a device", 2, "link that leads to another folder",
        pair_with(_detached("pet.raw", link="/dev/zero"))),
    Odd(".mhd, data a folder", 2, "it is a folder", pair_with(_detached("pet.raw", change=_replaced(os.mkdir)))),
    Odd(".mhd, data empty", 2, "it is empty",
        pair_with(_detached("pet.raw", change=lambda p: p.write_bytes(b"")))),
    Odd(".mhd, data short", 2, "it is cut off after",
        pair_with(_detached("pet.raw", change=lambda p: _cut(p, 0.9)))),
    Odd(".mhd, data long", 2, "holds more data than", pair_with(_detached("pet.raw", change=_longer))),
    Odd(".mhd, data LOCAL but detached", 2, "it is cut off after 0", pair_with(_detached("LOCAL"))),
    Odd(".mhd, data in a list", 2, "in several files", pair_with(_detached("LIST"))),
    Odd(".mhd, data by a pattern", 2, "in several files", pair_with(_detached("pet%03d.raw 1 40 1"))),
    Odd("raw .mha cut off", 2, "it is cut off after", pair_with(lambda f: _cut(pet_file(f), 0.7))),
    Odd("raw .mha longer", 2, "holds more data than", pair_with(lambda f: _longer(pet_file(f)))),
    Odd("compressed .mha cut off", 2, "bytes of compressed data, but it holds",
        pair_with(lambda f: _cut(pet_file(f, compressed=True), 0.7))),
    Odd("compressed .mha longer", 2, "bytes of compressed data, but it holds",
        pair_with(lambda f: _longer(pet_file(f, compressed=True)))),
    Odd("compressed .mha damaged", 2, "its compressed data are damaged",
        pair_with(lambda f: _damaged(pet_file(f, compressed=True)))),
    Odd("raw .nii cut off", 2, "it is cut off after", pair_with(lambda f: _cut(pet_file(f, "pet.nii"), 0.7))),
    Odd("raw .nii longer", 2, "holds more data than", pair_with(lambda f: _longer(pet_file(f, "pet.nii")))),
    Odd(".nii.gz cut off", 2, "its compressed data end too early",
        pair_with(lambda f: _cut(pet_file(f, "pet.nii.gz"), 0.7))),
    Odd(".nii.gz cut in the header", 2, "its compressed data are damaged",
        pair_with(lambda f: _cut(pet_file(f, "pet.nii.gz"), 0.001))),
    Odd(".nii.gz damaged", 2, "its compressed data are damaged",
        pair_with(lambda f: _damaged(pet_file(f, "pet.nii.gz")))),
    Odd(".nii.gz, wrong checksum", 2, "its compressed data are damaged (CRC",
        pair_with(lambda f: _checksum(pet_file(f, "pet.nii.gz")))),
    Odd(".nii.gz with bytes after it", 2, "its compressed data are damaged (Not a gzipped file",
        pair_with(lambda f: _longer(pet_file(f, "pet.nii.gz"), b"more"))),
    Odd(".nii.gz, whole but with less data", 2, "it is cut off after",
        pair_with(lambda f: _repacked(f, lambda b: b[:-400]))),
    Odd(".nii.gz, whole but with more data", 2, "holds more data than",
        pair_with(lambda f: _repacked(f, lambda b: b + bytes(8)))),
    Odd(".nii.gz of several parts", 0, "",
        pair_with(lambda f: _longer(pet_file(f, "pet.nii.gz"), gzip.compress(b"")))),
    Odd("raw .nrrd cut off", 2, "it is cut off after", pair_with(lambda f: _cut(pet_file(f, "pet.nrrd"), 0.7))),
    Odd("raw .nrrd longer", 2, "holds more data than", pair_with(lambda f: _longer(pet_file(f, "pet.nrrd")))),
    Odd("compressed .nrrd cut off", 2, "its compressed data end too early",
        pair_with(lambda f: _cut(pet_file(f, "pet.nrrd", compressed=True), 0.7))),
    Odd("compressed .nrrd damaged", 2, "cannot read the PET",
        pair_with(lambda f: _damaged(pet_file(f, "pet.nrrd", compressed=True)))),
)  # fmt: skip
