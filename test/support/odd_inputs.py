"""Bad and odd images by name, each with the exit code and a part of what is said: the table of docs/formats.md.

``python -m test.support.odd_inputs`` prints it. Every input is made in a folder of its own, from a small synthetic
body.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from algorithm.errors import UserError
from algorithm.images import read_pet_ct
from test.support.bodies import small_pair

Pair = tuple[Path, Path]


@dataclass(frozen=True)
class Odd:
    """One input.

    Attributes
    ----------
    name : str
    code : int
        Exit code: 2 where it is refused, 0 where it is read.
    says : str
        Part of the sentence of the refusal, or of a note; empty where nothing is said.
    make : callable
        Writes the input into an empty folder and returns the paths of CT and PET.
    """

    name: str
    code: int
    says: str
    make: Callable[[Path], Pair]


def put(image: sitk.Image, path: Path, *, compressed: bool = False) -> Path:
    """Write an image and return its path."""
    sitk.WriteImage(image, str(path), useCompression=compressed)
    return path


def pair_with(make: Callable[[Path], Path], what: str = "PET") -> Callable[[Path], Pair]:
    """Return a maker of a good pair but for one file, whose maker is given."""

    def both(folder: Path) -> Pair:
        ct, pet = small_pair()
        odd = make(folder)
        other = put(ct if what == "PET" else pet, folder / "other.nii")
        return (other, odd) if what == "PET" else (odd, other)

    return both


def of_images(make: Callable[[sitk.Image, sitk.Image], tuple[sitk.Image, sitk.Image]]) -> Callable[[Path], Pair]:
    """Return a maker that writes a changed pair."""

    def both(folder: Path) -> Pair:
        ct, pet = make(*small_pair())
        return put(ct, folder / "ct.mha"), put(pet, folder / "pet.mha")

    return both


def outcome(odd: Odd, folder: Path) -> tuple[int, str]:
    """Make an input and read it; return the exit code, and the sentence or the notes."""
    ct, pet = odd.make(folder)
    try:
        pair = read_pet_ct(ct, pet)
    except UserError as error:
        return error.exit_code, str(error)
    return 0, "; ".join(pair.findings.notes)


def all_odd() -> tuple[Odd, ...]:
    """Return every input, by kinds."""
    from test.support.odd_files import FILES
    from test.support.odd_headers import HEADERS
    from test.support.odd_values import VALUES

    return (*FILES, *HEADERS, *VALUES)


def table_rows(inputs: tuple[Odd, ...]) -> Iterator[str]:
    """Yield the table's lines: name, exit code, what is said of it with the folder taken out."""
    yield "| Input | Exit | What is said |"
    yield "| --- | --- | --- |"
    for odd in inputs:
        with tempfile.TemporaryDirectory() as name:
            code, text = outcome(odd, Path(name))
            yield f"| {odd.name} | {code} | {text.replace(name + '/', '').replace('|', '/')} |"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    for row in table_rows(all_odd()):
        print(row)
