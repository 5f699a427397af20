"""A case as paths, and what a folder or list of them holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from algorithm.cases.names import named_synthetic, patient_of, tracer_of


@dataclass(frozen=True)
class Case:
    """One PET/CT pair, as paths; nothing has been opened yet.

    Attributes
    ----------
    name : str
        Unique in its list; can be used as a file name.
    ct, pet : Path
    truth : Path or None
        The mask to learn from or to compare with, where there is one.
    synthetic : bool
        The images are not of a patient: the list or the body's own record (``lesions.json``) says so, or the name
        begins with "synthetic".
    patient : str
        Splits never separate the studies of one patient. By the name where left out.
    tracer : str or None
        ``fdg`` or ``psma``; by the name where left out.
    centre, data_set, subset : str or None
        As the list says; see :mod:`algorithm.cases`.
    truth_on_own_grid : bool
        The layout (HECKTOR) or the list allows the truth to lie on another grid than the PET; it is resampled.
    """

    name: str
    ct: Path
    pet: Path
    truth: Path | None = None
    synthetic: bool = False
    patient: str = ""
    tracer: str | None = None
    centre: str | None = None
    data_set: str | None = None
    subset: str | None = None
    truth_on_own_grid: bool = False

    def __post_init__(self) -> None:
        told = {
            "synthetic": self.synthetic or named_synthetic(self.name),
            "patient": self.patient or patient_of(self.name),
            "tracer": self.tracer or tracer_of(self.name),
        }
        for field, value in told.items():
            object.__setattr__(self, field, value)

    @property
    def title(self) -> str:
        """The name as it heads a picture or a table's row: it says if the case is synthetic."""
        return f"{self.name} (synthetic)" if self.synthetic and not named_synthetic(self.name) else self.name

    @property
    def group(self) -> str | None:
        """What scores are averaged in: the subset, else the tracer and the centre, where they are known."""
        return group_of(self.subset, self.tracer, self.centre)

    @property
    def files(self) -> tuple[Path, ...]:
        """CT, PET, and the truth where there is one."""
        return (self.ct, self.pet) if self.truth is None else (self.ct, self.pet, self.truth)


def group_of(subset: str | None, tracer: str | None, centre: str | None) -> str | None:
    """Return the subset, else what editions III and IV average in: tracer and centre, where they are known."""
    return subset or ", ".join(name for name in (tracer, centre) if name) or None


@dataclass(frozen=True)
class Skipped:
    """A case that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class DataSet:
    """The cases with truth below one folder or in one CSV.

    Attributes
    ----------
    folder : Path
        That holds them; of a CSV its own.
    layout : str
        A key of :data:`algorithm.cases.layouts.LAYOUTS`, or ``csv``.
    cases : tuple of Case
        Complete cases with truth, in sorted order.
    skipped : tuple of Skipped
        Incomplete cases.
    """

    folder: Path
    layout: str
    cases: tuple[Case, ...]
    skipped: tuple[Skipped, ...]
