"""``suv``: one PET of a DICOM folder to one image in SUV."""

from __future__ import annotations

import argparse

from algorithm.commands.common import tell
from algorithm.dicom.convert import convert
from algorithm.dicom.reckoning import SuvOverrides


def suv(args: argparse.Namespace) -> int:
    """Convert the PET of a DICOM folder to SUVbw and print how it was reckoned."""
    convert(args.folder, args.out, overrides_of(args), tell, series=args.pet_series)
    return 0


def overrides_of(args: argparse.Namespace) -> SuvOverrides:
    """Return what the options supply in place of the headers; raises UsageError for values that make no sense."""
    return SuvOverrides(args.weight_kg, args.dose_mbq, args.injection_time, args.half_life_s)
