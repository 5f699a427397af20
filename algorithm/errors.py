"""One exception per kind of user mistake; the command line turns each into one sentence and an exit code."""

from __future__ import annotations

from typing import ClassVar


class UserError(Exception):
    """A mistake that the user can correct; its text is one sentence that says what is wrong and what to do.

    Attributes
    ----------
    exit_code : int
        What the process returns: 2 for bad input, 3 for a broken installation.
    """

    exit_code: ClassVar[int] = 2


class UsageError(UserError):
    """A command-line option or environment variable has a value that makes no sense."""


class MissingInputError(UserError):
    """An expected input (image, folder, socket) is not there, or there are several."""


class UnreadableImageError(UserError):
    """An image file exists but cannot be decoded."""


class InvalidImageError(UserError):
    """An image decodes but is not what was asked for (dimension, channels, finite values, intensity range)."""


class GeometryError(UserError):
    """Two images that belong together do not cover the same space."""


class UnsupportedEditionError(UserError):
    """The input belongs to a challenge task that this algorithm does not solve."""


class OutputError(UserError):
    """The result cannot be written where it was asked for."""


class ResourceError(UserError):
    """The case does not fit into the memory or the time that is there."""


class InstallationError(UserError):
    """Something that came with the installation is broken."""

    exit_code: ClassVar[int] = 3


class WeightsError(InstallationError):
    """A checkpoint or its description is missing, damaged or does not fit the network."""


class DeviceError(InstallationError):
    """The requested device is not there or cannot be used."""
