"""The input contract as a table; imports nothing slow, so that the command line can offer the names.

``docs/formats.md`` shows the same table; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from algorithm.errors import UsageError

LEAST_VOXELS = 8
"""Along each axis; fewer slices show no organ, and no window of the network."""

LEAST_EXTENT_MM = 25.0
"""Along each axis; eight slices of a usual PET have 26 mm."""

LEAST_WIDTH_MM = 40.0
"""Along two of the three axes; a newborn's trunk is 100 mm wide, a crop of a child's limb 45 mm."""

MOST_EXTENT_MM = 3000.0
"""Along each axis; a total-body scanner shows 2 m."""

SPACING_MM = (0.2, 15.0)
"""Shortest and longest step between voxels of human PET/CT."""

OFFSETS = (1024.0, 1000.0)
"""What is added to HU where a CT is stored in whole numbers from 0 on (DICOM's rescale intercept, left out)."""

LEAST_COVER = 0.7
"""Share of the PET's body that the CT must show; in 41 real patients at least 0.88."""


@dataclass(frozen=True)
class Check:
    """One row of the contract.

    Attributes
    ----------
    name : str
        For ``--no-checks``.
    refused, corrected, noted : str
        What ends in exit 2, what is put right and said, and what is only said; empty where there is nothing.
    """

    name: str
    refused: str
    corrected: str = ""
    noted: str = ""


CONTRACT = (
    Check(
        "grid",
        f"fewer than {LEAST_VOXELS} voxels along an axis; an axis below {LEAST_EXTENT_MM:g} mm, two below "
        f"{LEAST_WIDTH_MM:g} mm or one above {MOST_EXTENT_MM:g} mm; voxels below {SPACING_MM[0]:g} or above "
        f"{SPACING_MM[1]:g} mm; axes that are scaled or not at right angles (left-handed ones are read as they "
        "are)",
    ),
    Check(
        "hu",
        "a CT that is constant, noise, all air, a window of grey levels (0 to 255), clipped, scaled or shifted, "
        "so that air, fat and soft tissue are not at about -1000, -100 and 40 HU; a PET in its place",
        corrected="HU stored with 1024 or 1000 added: taken away again",
    ),
    Check(
        "suv",
        "a PET that is negative, constant, noise, or a CT; Bq/ml, kBq/ml, counts, percent or grey levels, told by "
        "the maximum and by the uptake of the body and of its fat",
        noted="a PET without any uptake",
    ),
    Check(
        "overlap",
        f"a CT that shows less than {LEAST_COVER:.0%} of the body that the PET shows, or a PET that shows less "
        "than half of the CT's",
        noted="how much of the PET's body the CT shows, always in the report; with a warning below 75%",
    ),
    Check(
        "alignment",
        "a CT that fits the PET clearly better when mirrored along an axis or moved by 40 mm or more, or that "
        "does not go with it at all",
    ),
)

CHECK_NAMES = tuple(check.name for check in CONTRACT)


@dataclass(frozen=True)
class Findings:
    """What checks corrected and noted.

    Attributes
    ----------
    notes : tuple of str
        One sentence each, for the log and the report.
    ct_cover : float or None
        Share of the PET's body that the CT shows; None where nobody looked.
    """

    notes: tuple[str, ...] = ()
    ct_cover: float | None = None

    @classmethod
    def of(cls, parts: Sequence[Findings]) -> Findings:
        """Join the findings of several checks."""
        covers = [part.ct_cover for part in parts if part.ct_cover is not None]
        return cls(tuple(note for part in parts for note in part.notes), covers[-1] if covers else None)


NO_FINDINGS = Findings()


@dataclass(frozen=True)
class Checks:
    """Which checks of the contract are done; those that are not are told of.

    Attributes
    ----------
    without : frozenset of str
        Names of the checks that are switched off.
    """

    without: frozenset[str] = frozenset()

    @classmethod
    def but(cls, names: Iterable[str] | None) -> Checks:
        """Return all checks but those named; raises UsageError for a name that the contract has not."""
        without = frozenset(names or ())
        for name in sorted(without - set(CHECK_NAMES)):
            raise UsageError(f"--no-checks must be one of {', '.join(CHECK_NAMES)}, got {name!r}")
        return cls(without)

    def on(self, name: str) -> bool:
        """Tell whether a check is done."""
        return name not in self.without

    @property
    def findings(self) -> Findings:
        """What the report says of checks that are not done."""
        return Findings(
            tuple(f"the check {name!r} was switched off by --no-checks {name}" for name in sorted(self.without))
        )


def contract_table() -> str:
    """Return the contract as a Markdown table."""
    lines = ["| Check | Refused (exit 2) | Corrected, with a message | Noted |", "| --- | --- | --- | --- |"]
    lines += [f"| `{each.name}` | {each.refused} | {each.corrected} | {each.noted} |" for each in CONTRACT]
    return "\n".join(lines)
