"""What every command that trains shares: device and processes, the data, and one run on one split."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from algorithm.description import Description, Normalisation, PrecisionProof
from algorithm.errors import OutputError, UsageError
from algorithm.files import check_writable, claimed
from algorithm.inference.device import choose_device
from algorithm.inference.memory import reuse_freed_memory
from algorithm.outputs import is_one_of, remove_earlier
from algorithm.weights import DESCRIPTION, WEIGHTS, Checkpoint, build_network, describe_again, load_checkpoint
from training.cache import CachedCase
from training.device import autocast_dtype
from training.held_back import write_lists
from training.options import TrainingOptions
from training.parallel import Processes, is_first_to_be, join_processes, leave_processes
from training.precision import prove_precision, tell
from training.preparation import PreparedData, check_normalisations, describe, parse_normalisation, prepare
from training.splits import Split, write_split
from training.start import continued, notes_on
from training.trainer import Plan, Run, Trainer
from training.validation import prepare_cached

log = logging.getLogger(__name__)

_CPU_CROP_THREADS = 1  # the other cores are the network's
_GPU_CROP_THREADS = 8


@dataclass(frozen=True)
class Session:
    """One command's training: one run of ``fit``, or the folds of a cross-validation.

    Attributes
    ----------
    options : TrainingOptions
    device : torch.device
    processes : Processes
    deadline : float
        On the clock of ``time.monotonic``: when the time budget of all runs together is used up.
    """

    options: TrainingOptions
    device: torch.device
    processes: Processes
    deadline: float

    def prepare_data(self) -> PreparedData:
        """Find and preprocess the cases that the options name.

        Raises
        ------
        UserError
            A normalisation is not understood, or the cases are not as they must be.
        """
        check_normalisations(*self._normalisations(None))
        return prepare(
            self.options.data,
            spacing=self.options.network.spacing,
            workers=self.options.running.workers,
            processes=self.processes,
        )

    def check_start(self, initial: Path, *runs: Path) -> None:
        """Raise UserError for a checkpoint that no run of these options can start from, whatever its data.

        Nor may it be what a run into one of the folders ``runs`` would write.
        """
        if is_one_of(initial, [out / f"{name}.json" for out in runs for name in ("last", "best")]):
            raise OutputError(f"--init {initial} is what this run would write; choose another --out")
        network, start = self.options.network, load_checkpoint(initial)
        ct, pet = self._normalisations(start)
        check_normalisations(ct, pet)
        theirs = start.description
        ours = dataclasses.replace(
            theirs,
            architecture=network.architecture,
            spacing=network.spacing,
            orientation=Description.orientation,  # the cache's
            ct=ct or theirs.ct,
            pet=pet or theirs.pet,
        )
        continued(start, ours)

    def train(self, name: str, data: PreparedData, split: Split, out: Path, initial: Path | None) -> Run:
        """Train on one split, or go on where a run in this folder stopped.

        Parameters
        ----------
        name : str
            Of the checkpoint.
        data : PreparedData
        split : Split
        out : Path
            Folder of the run; made if need be.
        initial : Path or None
            Description of the checkpoint to start from.

        Raises
        ------
        UserError
            The options make no network, or the folder holds another run.
        """
        recipe = self.options.recipe
        out.mkdir(parents=True, exist_ok=True)
        training, validation = data.cases(split.train), data.cases(split.validation)
        log.info(
            "%d training, %d validation cases; split in %s", len(training), len(validation), out / "split.json"
        )
        if validation and all(case.tumour_ml == 0 for case in validation):
            log.info("no validation case has a tumour, so there is no Dice to choose a best checkpoint by")
        start = load_checkpoint(initial) if initial else None
        description = self._description(name, training, data.names(split.train), start)
        trainer = Trainer(
            description, recipe, data.sources(split.train), validation, self.device, self.processes, start
        )
        resumed = trainer.resume(out)
        if resumed:
            log.info("resumed at step %d of %d", trainer.progress.step, recipe.steps)
        if self.processes.is_first:
            if not resumed:
                for note in notes_on(start, description, recipe.seed) if start else ():
                    log.info("%s", note)
                _remove_best(out)
            for role, (path, count) in write_lists(data, split, out).items():
                log.info("%s: %d cases, listed in %s", role, count, path)
            write_split(split, out / "split.json")
        return trainer.fit(self._plan(out))

    def prove(self, run: Run, cases: Sequence[CachedCase]) -> None:
        """Measure a finished run's checkpoint in low precision and write that into its description.

        What stands there already, of these weights, stays.

        Parameters
        ----------
        run : Run
        cases : sequence of CachedCase
            Its validation cases; where it has none, some that it was trained on: masks are compared with masks.
        """
        if self.processes.is_first:
            checkpoint = load_checkpoint(run.checkpoint)
            how = checkpoint.description
            if how.precision == PrecisionProof():
                prepared = (prepare_cached(case, how) for case in cases)
                proof = prove_precision(build_network(checkpoint), how, prepared, self.device)
                log.info(tell(proof))
                describe_again(checkpoint, precision=proof)
        self.processes.wait()

    def _description(
        self, name: str, cases: tuple[CachedCase, ...], data: list[dict[str, object]], start: Checkpoint | None
    ) -> Description:
        network = self.options.network
        ct, pet = self._normalisations(start)
        overlap = network.overlap
        if overlap is None:
            overlap = start.description.overlap if start else Description.overlap
        return describe(
            name,
            network.architecture,
            network.patch,
            network.spacing,
            cases,
            ct=ct,
            pet=pet,
            overlap=overlap,
            flip_axes=self.options.recipe.augmentation.mirrored,
            provenance={"data": data, "settings": dataclasses.asdict(self.options.recipe)},
        )

    def _normalisations(self, start: Checkpoint | None) -> tuple[Normalisation | None, Normalisation | None]:
        """Return those of CT and PET: as given, else as the checkpoint has them; None: to be measured."""
        network = self.options.network
        return (
            _normalisation(network.ct_normalisation, start.description.ct if start else None),
            _normalisation(network.pet_normalisation, start.description.pet if start else None),
        )

    def _plan(self, out: Path) -> Plan:
        running, recipe = self.options.running, self.options.recipe
        epochs = math.ceil(recipe.steps / recipe.steps_per_epoch)
        on_gpu = min(_GPU_CROP_THREADS, os.cpu_count() or 1)
        return Plan(
            out,
            save_every=running.save_every,
            validate_every=running.validate_every or max(1, math.ceil(epochs / 10)),
            time_budget=self.deadline - time.monotonic(),
            crop_threads=running.crop_threads or (_CPU_CROP_THREADS if self.device.type == "cpu" else on_gpu),
        )


@contextmanager
def open_session(options: TrainingOptions) -> Iterator[Session]:
    """Set up memory, threads, device and the process group; leave the group in the end.

    All processes but the first are silent, their warnings and errors aside. The first holds the results' folder.

    Raises
    ------
    UserError
        A folder cannot be written, another run holds the results', or there is no such device.
    """
    running = options.running
    reuse_freed_memory()
    if running.threads:
        torch.set_num_threads(running.threads)
    for folder in (options.data.out, options.data.cache):
        check_writable(folder / "file")
    rank = os.environ.get("LOCAL_RANK", "0")  # torchrun's
    if not rank.isdecimal():
        raise UsageError(f"LOCAL_RANK must be a whole number, as torchrun sets it, got {rank!r}")
    device = choose_device(running.device, gpu=int(rank))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True  # every step has the same shapes
    deadline = time.monotonic() + running.time_budget
    # Claimed first: where that is refused, the other processes have not begun to wait for one another.
    with claimed(options.data.out) if is_first_to_be() else nullcontext():
        processes = join_processes(device)
        if not processes.is_first:
            logging.disable(logging.INFO)
        try:
            processes.share(options.recipe.batch)
            autocast_dtype(options.recipe.precision, device)
            yield Session(options, device, processes, deadline)
        finally:
            leave_processes()


def _remove_best(out: Path) -> None:
    """Remove the best checkpoint that an earlier run left; weights without a description are somebody else's."""
    best = out / "best.json"
    if DESCRIPTION.is_earlier(best):
        remove_earlier({best.with_suffix(".safetensors"): WEIGHTS, best: DESCRIPTION})


def _normalisation(given: str | None, initial: Normalisation | None) -> Normalisation | None:
    return parse_normalisation(given) if given else initial
