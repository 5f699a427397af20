"""A Docker engine, asked through its command line."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algorithm.errors import MissingInputError
from algorithm.preflight.findings import RefusedError

_PEAK_FILES = "/sys/fs/cgroup/memory.peak /sys/fs/cgroup/memory/memory.max_usage_in_bytes"
"""Where control groups of version 2 (Linux 5.19) and 1 keep the most memory that a container had."""

_PATIENCE_S = 120.0  # for what an engine does at once: inspect, start, remove


@dataclass(frozen=True)
class Ended:
    """How a container ended.

    Attributes
    ----------
    code : int or None
        Exit code; None where it was stopped at its time limit.
    seconds : float
        From its start to its end.
    stdout, stderr : str
    """

    code: int | None
    seconds: float
    stdout: str
    stderr: str

    @property
    def last_words(self) -> str:
        """The last line of stderr that is not empty: all that the platform shows of a failure."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        return lines[-1] if lines else "nothing on stderr"


def engine_answers() -> bool:
    """Tell whether there is a Docker engine."""
    return shutil.which("docker") is not None and _docker("info", check=False).returncode == 0


def has_gpu() -> bool:
    """Tell whether containers of this engine can have a GPU."""
    runtimes = _docker("info", "--format", "{{json .Runtimes}}", check=False).stdout
    return "nvidia" in runtimes and shutil.which("nvidia-smi") is not None


def image_exists(image: str) -> bool:
    """Tell whether the engine has an image of this name."""
    return _identity(image) is not None


def save(image: str, path: Path) -> None:
    """Write an image's archive, uncompressed."""
    _docker("save", "--output", str(path), image, timeout=None)


@contextlib.contextmanager
def loaded(path: Path, names: Sequence[str]) -> Iterator[str]:
    """Have an archive's image in the engine for the moment, and yield the name by which it can be run.

    Parameters
    ----------
    path : Path
    names : sequence of str
        What the archive calls its image. What these names meant in the engine before, they mean again afterwards.
    """
    before = {name: _identity(name) for name in names}
    try:
        _docker("load", "--quiet", "--input", str(path), timeout=None)
        yield names[0]
    finally:
        for name, identity in before.items():
            if identity is None:
                _docker("image", "rm", name, check=False)
            elif _identity(name) != identity:
                _docker("tag", identity, name, check=False)


def give_back_files(image: str, folder: Path) -> None:
    """Let this user remove what a container's user wrote below a folder."""
    if os.geteuid() != 0 and folder.exists():
        mount = f"{folder}:/output"
        _docker(
            "run", "--rm", "--network=none", "--user=0:0", "--volume", mount, "--entrypoint=chmod", image,
            "-R", "a+rwX", "/output", check=False,
        )  # fmt: skip


class Container:
    """A container from its start to its removal; use it in a ``with`` block."""

    def __init__(self, image: str, flags: Sequence[str]) -> None:
        self.name = f"h2aseg-preflight-{uuid.uuid4().hex[:12]}"
        self._image, self._flags = image, flags
        self._peak_bytes: int | None = None

    def __enter__(self) -> Container:
        self.started = time.monotonic()
        result = _docker("run", "--detach", "--name", self.name, *self._flags, self._image, check=False)
        if result.returncode != 0:
            self._remove()
            raise RefusedError(f"it does not start: {_last_line(result.stderr)}")
        return self

    def __exit__(self, *error: object) -> None:
        self._remove()

    def wait(self, seconds: float) -> Ended:
        """Wait for its end, at most this long since its start, and note its memory meanwhile."""
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch_memory, args=(ended,), daemon=True)
        watcher.start()
        code: int | None = None
        try:
            left = max(1.0, seconds - (time.monotonic() - self.started))
            code = int(_docker("wait", self.name, timeout=left).stdout)
        except subprocess.TimeoutExpired:
            _docker("kill", self.name, check=False)
        finally:
            took = time.monotonic() - self.started
            ended.set()
            watcher.join()
        return self._ended(code, took)

    def running(self) -> bool:
        """Tell whether it still runs."""
        return self._state("Running") is True

    def execute(self, *command: str, timeout: float | None = _PATIENCE_S) -> str:
        """Run a command inside and return what it prints; nothing where it cannot run."""
        return _docker("exec", self.name, *command, check=False, timeout=timeout).stdout

    def stop(self, grace_s: int) -> Ended:
        """Send SIGTERM, then SIGKILL after the grace; the seconds are those since the start."""
        self.note_memory()
        _docker("stop", "--time", str(grace_s), self.name, check=False)
        code = self._state("ExitCode")
        return self._ended(int(code) if code is not None else None, time.monotonic() - self.started)

    def out_of_memory(self) -> bool:
        """Tell whether the kernel ended it for its memory."""
        return self._state("OOMKilled") is True

    def peak_bytes(self) -> int | None:
        """Return the most memory that it had, page cache included; None where the kernel does not tell."""
        return self._peak_bytes

    def note_memory(self) -> None:
        """Ask the control group, which counts from the start, while the container still runs."""
        said = self.execute("sh", "-c", f"cat {_PEAK_FILES} 2> /dev/null").split()
        if said and said[0].isdigit():
            self._peak_bytes = max(int(said[0]), self._peak_bytes or 0)

    def _watch_memory(self, ended: threading.Event) -> None:
        while not ended.wait(0.5):
            self.note_memory()

    def _ended(self, code: int | None, seconds: float) -> Ended:
        logs = _docker("logs", self.name, check=False)
        return Ended(code, seconds, logs.stdout, logs.stderr)

    def _state(self, key: str) -> Any:
        result = _docker("inspect", "--format", f"{{{{json .State.{key}}}}}", self.name, check=False)
        return json.loads(result.stdout) if result.returncode == 0 else None

    def _remove(self) -> None:
        _docker("rm", "--force", "--volumes", self.name, check=False)


def _identity(image: str) -> str | None:
    result = _docker("image", "inspect", "--format", "{{.Id}}", image, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def _docker(
    *words: str, check: bool = True, timeout: float | None = _PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """Ask the engine.

    Raises
    ------
    MissingInputError
        The engine refuses, and ``check`` is set.
    """
    result = subprocess.run(
        ["docker", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=timeout,
    )
    if check and result.returncode != 0:
        raise MissingInputError(f"`docker {words[0]}` failed: {_last_line(result.stderr)}; see to the engine")
    return result


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")
