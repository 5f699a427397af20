"""One job in a real container, as the platform runs it, and what it left.

Two sets of flags: those that the organisers of AutoPET used from 2022 to 2024, made stricter by a read-only root
without ``/tmp``, and those of the platform's starter kit since 2026.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from algorithm.errors import UserError
from algorithm.images import geometry_text, other_geometry_text, read_mask, same_geometry
from algorithm.postprocessing import voxel_volume_ml
from algorithm.preflight.case import copy_job
from algorithm.preflight.engine import Container, Ended, give_back_files, has_gpu
from algorithm.preflight.findings import DoubtfulError, Finding, NotTriedError, RefusedError, carried_out
from algorithm.reading import grid_of
from algorithm.server import HEALTH_ATTEMPTS, HEALTH_DELAY_S, HEALTH_TIMEOUT_S, PORT
from algorithm.sockets import Edition, Job, find_job

SHARE_OF_LIMIT = 0.95
"""Of the time limit that a job may take: the platform's machine is another one, and starts and stops take time."""

SHARE_OF_MEMORY = 0.8
"""Of the platform's memory that the container gets here, so that what passes has room to spare there."""

_GRACE_S = 5  # from SIGTERM to SIGKILL
_GIB = 2**30

_STRICT = (
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--shm-size=128m",
    "--pids-limit=256",
    "--read-only",  # nothing can be written but /output, not even /tmp
)
_ASK = f"""
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", {PORT}, timeout=float(sys.argv[3]))
try:
    connection.request(sys.argv[1], sys.argv[2])
    answer = connection.getresponse()
    print(answer.status, answer.read().decode(errors="replace").strip())
except OSError as error:
    print("000", error)
"""


@dataclass(frozen=True)
class Conditions:
    """What a trial runs under.

    Attributes
    ----------
    image : str
    method : str
        ``exec`` or ``invoke``.
    source : Path
        Folder like ``/input``.
    edition : Edition or None
        None: recognised.
    time_limit_s : float or None
        None: the edition's.
    memory_gib : float
        The platform's, for one job.
    model : Path or None
        Folder to mount at ``/opt/ml/model``.
    strict : bool
        The strict set of flags, or today's.
    """

    image: str
    method: str
    source: Path
    edition: Edition | None
    time_limit_s: float | None
    memory_gib: float
    model: Path | None
    strict: bool = True


@dataclass(frozen=True)
class _Outcome:
    """What a run that ended well left behind."""

    job: Job
    limit_s: float
    ended: Ended
    peak_bytes: int | None


def try_job(conditions: Conditions, scratch: Path) -> list[Finding]:
    """Run one job in a container and judge what it left.

    Parameters
    ----------
    conditions : Conditions
    scratch : Path
        Folder for inputs and outputs.
    """
    done: list[_Outcome] = []
    name = "strict flags" if conditions.strict else "today's flags"

    def run() -> str:
        done.append(_run(conditions, scratch))
        return f"{conditions.method}, no network: done in {done[0].ended.seconds:.1f} s"

    findings = [carried_out(f"{name}: job", run)]
    for check, judge in (("outputs", _outputs), ("mask", _mask), ("time", _time)):
        findings.append(carried_out(f"{name}: {check}", partial(_judged, done, judge)))
    findings.append(carried_out(f"{name}: memory", partial(_judged, done, partial(_memory, conditions))))
    findings.append(carried_out(f"{name}: stderr", partial(_judged, done, _silence)))
    return findings


def both_flags(conditions: Conditions, scratch: Path) -> list[Finding]:
    """Try a job under either set of flags."""
    return [
        finding
        for strict in (True, False)
        for finding in try_job(replace(conditions, strict=strict), scratch / ("strict" if strict else "today"))
    ]


def _judged(done: list[_Outcome], judge: Callable[[_Outcome], str]) -> str:
    if not done:
        raise NotTriedError("the job did not end well")
    return judge(done[0])


def _run(conditions: Conditions, scratch: Path) -> _Outcome:
    inputs, outputs = scratch / "input", scratch / "output"
    inputs.mkdir(parents=True)
    outputs.mkdir()
    outputs.chmod(0o777)  # the image's user is none of this machine's
    job = find_job(conditions.source, outputs, conditions.edition)
    limit_s = conditions.time_limit_s or job.edition.time_limit_s
    if conditions.method == "exec":
        copy_job(conditions.source, inputs)
    try:
        with Container(conditions.image, _flags(conditions, inputs, outputs)) as container:
            if conditions.method == "exec":
                ended = container.wait(limit_s)
                _check_end(ended, container, conditions, limit_s)
            else:
                ended = _invoke(container, conditions, inputs, limit_s)
            return _Outcome(_in(job, conditions, inputs), limit_s, ended, container.peak_bytes())
    finally:
        give_back_files(conditions.image, outputs)


def _in(job: Job, conditions: Conditions, inputs: Path) -> Job:
    """Return the job with its images where they were copied to."""
    ct, pet = (inputs / path.relative_to(conditions.source) for path in (job.ct, job.pet))
    return replace(job, ct=ct, pet=pet)


def _flags(conditions: Conditions, inputs: Path, outputs: Path) -> list[str]:
    memory = int(conditions.memory_gib * SHARE_OF_MEMORY * _GIB)
    flags = [
        "--network=none",
        f"--memory={memory}",
        f"--memory-swap={memory}",  # the same: no swap on top of the memory
        f"--volume={inputs}:/input:ro",
        f"--volume={outputs}:/output",
        f"--env=GRAND_CHALLENGE_COMPONENT_API_METHOD={conditions.method}",
        f"--env=GRAND_CHALLENGE_COMPONENT_MAX_MEMORY_MB={memory // 2**20}",
    ]
    flags += _STRICT if conditions.strict else ["--pids-limit=128", f"--shm-size={memory // 2}", "--volume=/tmp"]
    if conditions.model is not None:
        flags.append(f"--volume={conditions.model}:/opt/ml/model:ro")
    if has_gpu():
        flags.append("--gpus=all")
    return flags


def _check_end(ended: Ended, container: Container, conditions: Conditions, limit_s: float) -> None:
    """Raise RefusedError where a container did not end well."""
    if ended.code is None:
        raise RefusedError(f"it still ran after {limit_s:g} s, the limit for a job; make it faster, or use a GPU")
    if ended.code == 137 or container.out_of_memory():
        raise RefusedError(
            f"it was killed for using more than {conditions.memory_gib * SHARE_OF_MEMORY:.1f} GiB of memory, "
            f"{SHARE_OF_MEMORY:.0%} of the platform's {conditions.memory_gib:g} GiB; make it need less"
        )
    if ended.code != 0:
        raise RefusedError(f"exit code {ended.code}, and its last words are: {ended.last_words}")


def _invoke(container: Container, conditions: Conditions, inputs: Path, limit_s: float) -> Ended:
    """Ask a server as the platform does: health, one job, SIGTERM."""
    _await_health(container, conditions, limit_s)
    copy_job(conditions.source, inputs)
    left = max(1.0, limit_s - (time.monotonic() - container.started))
    answer = _ask(container, "POST", "/invoke", left)
    took = time.monotonic() - container.started
    if not answer.startswith("201"):
        container.note_memory()
        if took >= limit_s:
            answer = f"nothing within {limit_s:g} s, the limit for a job"
        elif not container.running():
            _check_end(container.wait(1.0), container, conditions, limit_s)
        raise RefusedError(f"POST /invoke must answer 201, got {answer or 'no answer'}; see to that first")
    ended = container.stop(_GRACE_S)
    if ended.code != 0:
        raise RefusedError(
            f"SIGTERM must end it with exit code 0 within {_GRACE_S} s, got {ended.code}: {ended.last_words}"
        )
    return replace(ended, seconds=took)


def _await_health(container: Container, conditions: Conditions, limit_s: float) -> None:
    """Ask for health as often, and with as much patience, as the platform does."""
    health = ""
    for _ in range(HEALTH_ATTEMPTS):
        if not container.running():
            ended = container.wait(1.0)
            _check_end(ended, container, conditions, limit_s)
            raise RefusedError(
                f"its label says invoke, but nothing went on answering at port {PORT}: it ended with exit code "
                f"{ended.code}; make the entry point serve, or build with API_METHOD=exec"
            )
        health = _ask(container, "GET", "/health", HEALTH_TIMEOUT_S)
        if health.startswith("200"):
            return
        if time.monotonic() - container.started > limit_s:
            break
        time.sleep(HEALTH_DELAY_S)
    raise RefusedError(
        f"GET /health at port {PORT} gave no 200 in {time.monotonic() - container.started:.0f} s (last answer: "
        f"{health or 'none'}); make the entry point serve, or build with API_METHOD=exec"
    )


def _ask(container: Container, method: str, path: str, seconds: float) -> str:
    """Ask from inside, as no network reaches the container; return status and text, or nothing."""
    try:
        return container.execute("python", "-c", _ASK, method, path, str(seconds), timeout=seconds + 5).strip()
    except subprocess.TimeoutExpired:
        return ""


def _outputs(outcome: _Outcome) -> str:
    """Check that each socket's folder holds exactly one image, and the edition's further files are there."""
    mask = outcome.job.mask
    images = mask.parent.parent
    if not mask.parent.is_dir() or not any(mask.parent.iterdir()):
        raise RefusedError(f"there is no image in /output/images/{mask.parent.name}; write the mask there")
    for folder in sorted(images.iterdir()):
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        if len(names) != 1:
            raise RefusedError(
                f"/output/images/{folder.name} must hold exactly one image, got {', '.join(names) or 'none'}; "
                "write one file per socket"
            )
    for path in outcome.job.extras:
        try:
            json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise RefusedError(f"/output/{path.name} must be JSON ({error}); write it whole") from error
    return ", ".join([f"images/{mask.parent.name}", *(path.name for path in outcome.job.extras)])


def _mask(outcome: _Outcome) -> str:
    """Check labels and geometry of the mask."""
    folder = outcome.job.mask.parent
    path = next(iter(sorted(folder.iterdir())), None) if folder.is_dir() else None
    if path is None:
        raise NotTriedError("there is no mask to look at")
    if path.suffix not in (".mha", ".tif", ".tiff"):
        raise RefusedError(f"the platform takes .mha and .tiff, got {path.name}; write .mha")
    try:
        mask, pet = read_mask(path), grid_of(outcome.job.pet)
    except UserError as error:
        raise RefusedError(str(error).replace(str(path), path.name)) from error
    if not same_geometry(mask, pet):
        raise RefusedError(
            f"the mask must have the PET's geometry, {geometry_text(pet)}, got {other_geometry_text(mask, pet)}; "
            "copy it from the PET (CopyInformation)"
        )
    voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(mask)))
    return f"0 and 1, the PET's geometry, {voxels * voxel_volume_ml(mask.GetSpacing()):.1f} ml of tumour"


def _time(outcome: _Outcome) -> str:
    text = f"{outcome.ended.seconds:.1f} s of {outcome.limit_s:g} s on this machine"
    if outcome.ended.seconds > SHARE_OF_LIMIT * outcome.limit_s:
        raise RefusedError(f"{text} leave no room (at most {SHARE_OF_LIMIT:.0%} should be taken); make it faster")
    return text


def _memory(conditions: Conditions, outcome: _Outcome) -> str:
    given = f"within {conditions.memory_gib * SHARE_OF_MEMORY:.1f} GiB of the platform's {conditions.memory_gib:g}"
    peak = outcome.peak_bytes
    return given if peak is None else f"{given}; at most {peak / _GIB:.1f} GiB with the files' cache"


def _silence(outcome: _Outcome) -> str:
    if outcome.ended.stderr.strip():
        raise DoubtfulError(f"the platform flags a job that writes there, got: {outcome.ended.last_words}")
    return "nothing was written there"
