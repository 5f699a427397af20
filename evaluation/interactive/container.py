"""A Docker image as the other side of the loop: one strict container per call, one work folder per case."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from algorithm.cases import Case
from algorithm.errors import GeometryError, InstallationError, MissingInputError, OutputError
from algorithm.images import geometry_text, other_geometry_text, read_image, read_mask, same_geometry
from algorithm.sockets import CLICKS_FILE, CT_FOLDER, IMAGE_SUFFIXES, PET_FOLDER, Edition

CALL_TIMEOUT_S = 600.0

STRICT = (
    *("--network", "none"),
    *("--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges"),
    *("--memory", "8g", "--memory-swap", "8g"),
    *("--shm-size", "128m"),
    *("--pids-limit", "256"),
    "--read-only",
)
"""What ``test/container_common.sh`` tests the image under; it says why."""

_WRITTEN = ("output", "cache")  # by the image's user, who is none of this machine's


class InContainer:
    """Segments a case by running a Docker image; see :data:`evaluation.interactive.loop.Segment`.

    Each call is a container of its own, as on the platform. ``/output`` and ``/cache`` are kept from call to call
    of a case and are new for the next one. Use it as a context manager: the last case's folder goes at the end.

    Parameters
    ----------
    image : str
        Name of an image on this machine.
    edition : str
        ``IV`` or ``V``; says where the mask lies.
    gpus : bool
        Give the container this machine's GPUs.
    timeout_s : float
        A container that runs longer is a failed call.

    Raises
    ------
    InstallationError
        There is no ``docker``.
    MissingInputError
        The engine does not answer or has no such image.
    """

    def __init__(self, image: str, *, edition: str, gpus: bool = False, timeout_s: float = CALL_TIMEOUT_S) -> None:
        if shutil.which("docker") is None:
            raise InstallationError("there is no docker command on the PATH; install Docker, or leave out --image")
        found = _docker("image", "inspect", "--format", "{{.Id}}", image)
        if found.returncode:
            raise MissingInputError(
                f"docker knows no image {image!r} ({_last(found.stderr)}); build it by ./build.sh"
            )
        self.image = image
        self.image_id = found.stdout.strip()
        self.mask_folder = Edition.named(edition).mask_folder
        self.gpus = gpus
        self.timeout_s = timeout_s
        self._prepared: tuple[Case, Path, sitk.Image] | None = None

    def __enter__(self) -> InContainer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove_work()

    def __call__(self, case: Case, scribbles: Path) -> NDArray[np.uint8]:
        """Return the mask of a case that the image makes of all scribbles in a file."""
        work, pet = self._work_of(case)
        shutil.copyfile(scribbles, work / "input" / CLICKS_FILE)
        (work / "input" / CLICKS_FILE).chmod(0o644)
        before = self._masks(work)
        self._run(work)
        after = self._masks(work)
        new = [path for path, written in after.items() if written != before.get(path)]
        if len(new) != 1:
            raise OutputError(
                f"the container of {self.image} must write one mask to /output/{self.mask_folder}, "
                f"it wrote {len(new)}"
            )
        left = sorted(path.name for path in after if path not in new)
        if left:
            raise OutputError(
                f"the container of {self.image} must leave one mask in /output/{self.mask_folder}, got also "
                f"{', '.join(left)} of an earlier call; let it replace the mask"
            )
        image = read_mask(new[0])
        if not same_geometry(image, pet):
            raise GeometryError(
                f"the mask of {self.image} must lie on the PET's grid ({geometry_text(pet)}), got "
                f"{other_geometry_text(image, pet)}"
            )
        mask: NDArray[np.uint8] = sitk.GetArrayFromImage(image)
        return mask

    def _run(self, work: Path) -> None:
        name = f"h2aseg-interact-{os.getpid()}"
        volumes = [
            *("--volume", f"{work / 'input'}:/input:ro"),
            *(part for folder in _WRITTEN for part in ("--volume", f"{work / folder}:/{folder}")),
        ]
        flags = [*STRICT, *(("--gpus", "all") if self.gpus else ()), *volumes]
        try:
            ran = _docker("run", "--rm", "--name", name, *flags, self.image, timeout_s=self.timeout_s)
        except BaseException as error:  # a time-out or Ctrl-C ends the client, not the container
            _docker("rm", "--force", name)
            if isinstance(error, subprocess.TimeoutExpired):
                raise OutputError(f"the container of {self.image} ran longer than {self.timeout_s:g} s") from None
            raise
        if ran.returncode:
            said = _last(ran.stderr).removeprefix("Error: ")
            raise OutputError(f"the container of {self.image} ended with exit code {ran.returncode}: {said}")

    def _masks(self, work: Path) -> dict[Path, int]:
        """Return the images in the mask's folder and when each was written, ns."""
        folder = work / "output" / self.mask_folder
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return {path: path.stat().st_mtime_ns for path in found if path.suffix in IMAGE_SUFFIXES}

    def _work_of(self, case: Case) -> tuple[Path, sitk.Image]:
        """Return a case's folder with its input, and its PET; made at its first call, whole or not at all."""
        if self._prepared is None or self._prepared[0] != case:
            self._remove_work()
            ct, pet = read_image(case.ct, "CT"), read_image(case.pet, "PET")
            work = Path(tempfile.mkdtemp(prefix="h2aseg-interact-"))
            self._prepared = case, work, pet
            work.chmod(0o755)
            for written in _WRITTEN:
                (work / written).mkdir()
                (work / written).chmod(0o777)
            for image, folder in ((ct, CT_FOLDER), (pet, PET_FOLDER)):
                target = work / "input" / folder / f"{case.name}.mha"
                target.parent.mkdir(parents=True)
                _write_plain(image, target)
            for path in (work / "input").rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)
            (work / "input").chmod(0o755)
        return self._prepared[1:]

    def _remove_work(self) -> None:
        if self._prepared is None:
            return
        work = self._prepared[1]
        shutil.rmtree(work, ignore_errors=True)
        if work.exists():  # folders that the image's user made are his; only root, or a container, removes them
            volume = ("--volume", f"{work}:/work")
            _docker(
                *("run", "--rm", "--network", "none", "--user", "root", "--entrypoint", "rm"),
                *(*volume, self.image, "-rf", *(f"/work/{folder}" for folder in _WRITTEN)),
            )
            shutil.rmtree(work, ignore_errors=True)
        self._prepared = None


def _write_plain(image: sitk.Image, path: Path) -> None:
    """Write voxels and geometry alone; .mha takes none of NIfTI's other header entries."""
    plain = sitk.GetImageFromArray(sitk.GetArrayViewFromImage(image))
    plain.CopyInformation(image)
    sitk.WriteImage(plain, str(path), useCompression=True)


def _docker(*arguments: str, timeout_s: float | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=False, timeout=timeout_s, errors="replace"
    )


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"
