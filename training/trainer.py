"""The training loop: steps, moving average, validation, checkpoints."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from algorithm.description import Description
from algorithm.errors import UsageError
from algorithm.network.h2aseg import H2ASeg
from algorithm.weights import Checkpoint
from evaluation.scoring.metrics import Scores
from training.cache import CachedCase
from training.device import autocast_dtype, training_layout
from training.export import export
from training.kernels import proven_kernels
from training.logits import LogitLimit, train_attention_in_low_precision
from training.losses import DeepSupervisionLoss
from training.organs import NetworkWithOrgans, OrganLoss
from training.parallel import Processes
from training.recipe import Recipe
from training.sampling import Batch, CropSampler, Source, prefetch
from training.start import continued
from training.state import STATE, Progress, fingerprint, read_state, write_state
from training.validation import choosing, mean_scores, tell, validate

log = logging.getLogger(__name__)

ENOUGH_STEPS = 20
"""Steps after which the gradients are judged: of fewer, one that is not finite says nothing."""


@dataclass(frozen=True)
class Plan:
    """When a run saves, validates and stops; none of it changes what is learned.

    Attributes
    ----------
    out : Path
        Folder of the run: ``state.pt``, the checkpoints ``last`` and ``best``, TensorBoard's ``events``.
    save_every : int
        Steps between two states on disk: what a kill can cost.
    validate_every : int
        Epochs between two validations; there is always one at the end.
    time_budget : float
        Seconds after which the run saves its state and stops.
    crop_threads : int
        Threads that cut and augment crops.
    """

    out: Path
    save_every: int = 250
    validate_every: int = 10
    time_budget: float = math.inf
    crop_threads: int = 1


@dataclass(frozen=True)
class Run:
    """What a run left: its exported moving average, and whether it came to its last step."""

    checkpoint: Path
    finished: bool


class Trainer:
    """One training run.

    Parameters
    ----------
    description : Description
        Goes with the exported checkpoints; its architecture, patch and normalisation are what is trained.
    recipe : Recipe
    sources : sequence of Source
        Training cases.
    validation : sequence of CachedCase
        Scored whole. Empty: there is no ``best`` checkpoint, only the ``last``.
    device : torch.device
    processes : Processes
        Of which this is one.
    initial : Checkpoint, optional
        Start from its parameters rather than from random ones.

    Raises
    ------
    UsageError
        The initial checkpoint is of another architecture, grid or normalisation.
    """

    def __init__(
        self,
        description: Description,
        recipe: Recipe,
        sources: Sequence[Source],
        validation: Sequence[CachedCase],
        device: torch.device,
        processes: Processes | None = None,
        initial: Checkpoint | None = None,
    ) -> None:
        if initial is not None:
            description = continued(initial, description)
        self.description = description
        self.recipe = recipe
        self.validation = tuple(validation)
        self.device = device
        self.processes = processes or Processes()
        self.sampler = CropSampler(sources, description, recipe.augmentation, recipe.seed, recipe.mistaken)
        self.dtype = autocast_dtype(recipe.precision, device)
        self.kernels: AbstractContextManager[object] = nullcontext()
        self.fingerprint = fingerprint(description, recipe, sources, self.dtype)
        torch.manual_seed(recipe.seed)
        self.network = H2ASeg(description.architecture).to(device)
        if initial is not None:
            self.network.load_state_dict(initial.state)
        self.layout = training_layout(device)
        self.network.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.average = {name: value.detach().clone() for name, value in self.network.named_parameters()}
        self.logits = LogitLimit(self.network, recipe.logit_limit)
        if recipe.logit_limit:
            train_attention_in_low_precision(self.network)
        has_organs = any(case.organs() is not None for source in sources for case in source.cases)
        whole = NetworkWithOrgans(self.network, organs=has_organs and recipe.organ_weight > 0).to(device)
        self.whole = whole.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.model = self.processes.wrap(self.whole)
        self.organ_loss = OrganLoss(self.processes)
        self.criterion = DeepSupervisionLoss(hard_voxels=recipe.hard_voxels, processes=self.processes)
        self.optimiser = _optimiser(self.whole, recipe)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        self.judged_by = _hash([case.name, case.sha256] for case in self.validation)
        self.progress = Progress(validation=self.judged_by)

    def fit(self, plan: Plan) -> Run:
        """Train until the last step or the time budget, from the state of :meth:`resume` on.

        Returns
        -------
        Run
            With the ``last`` checkpoint; the ``best`` one by validation lies beside it.

        Raises
        ------
        KernelError
            This machine's gradients are not those of float32.
        UsageError
            Most gradients are not finite.
        """
        deadline = time.monotonic() + plan.time_budget
        own = len(self.processes.share(self.recipe.batch))
        architecture, patch = self.description.architecture, self.description.patch
        self.kernels = proven_kernels(architecture, patch, own, self.dtype, self.device)
        purge = self.progress.step + 1  # what was logged after the state that this run goes on from
        events = SummaryWriter(str(plan.out / "events"), purge_step=purge) if self.processes.is_first else None
        self.network.train()
        clock, since = time.monotonic(), self.progress.step
        if self.progress.validation_due and self.validation:  # the run was killed meanwhile
            log.info(self._validate_epoch(plan, events))
            self.save(plan.out / STATE)
        if self.progress.step == self.recipe.steps:
            self._judge_gradients(plan, last=True)
        for batch in prefetch(self.sampler, self._crop_numbers(), plan.crop_threads):
            loss = self._step(batch)
            if loss is None:
                self.progress.epoch_skipped += 1
            else:
                self.progress.epoch_loss += loss
            self.progress.step += 1
            last = self.progress.step == self.recipe.steps
            late = self.processes.any(time.monotonic() > deadline, self.device)
            if self.progress.step % self.recipe.steps_per_epoch == 0 or last:
                seconds = (time.monotonic() - clock) / (self.progress.step - since)
                log.info(self._end_epoch(plan, events, seconds, last=last))
                clock, since = time.monotonic(), self.progress.step
            if self.progress.step % plan.save_every == 0 or last or late:
                self.save(plan.out / STATE)
            if late and not last:
                log.info("time budget used up at step %d; the same command goes on from there", self.progress.step)
                break
        if events is not None:
            events.close()
        return Run(self._export(plan.out, "last"), self.progress.step == self.recipe.steps)

    def resume(self, out: Path) -> bool:
        """Go back to the state in a folder; tell whether there was one.

        Raises
        ------
        UsageError
            The state is damaged or of another run, or the processes found different ones.
        """
        found = (out / STATE).is_file()
        if found:
            self.load(out / STATE)
        mean = self.processes.mean(torch.tensor(float(self.progress.step), device=self.device))
        if self.processes.any(mean != self.progress.step, self.device):
            raise UsageError(
                f"the processes found different states in {out}; --out and --cache must be folders that all "
                "machines share"
            )
        return found

    def save(self, path: Path) -> None:
        """Write the whole state of the run, atomically."""
        if self.processes.is_first:
            parts = {
                "network": self.whole.state_dict(),
                "average": self.average,
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
            write_state(path, self.fingerprint, self.progress, parts)

    def load(self, path: Path) -> None:
        """Go back to a saved state.

        Raises
        ------
        UsageError
            The file is damaged, or its run had other options or data.
        """
        self.progress, state = read_state(path, self.fingerprint, self.device)
        older = not self.progress.validation and all(choosing(self.validation))
        if self.progress.best_dice >= 0 and self.progress.validation != self.judged_by and not older:
            log.info("validation cases other than before, or counted otherwise: the best so far no longer counts")
            self.progress.best_dice = -1.0
        self.progress.validation = self.judged_by
        self.whole.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])

    def _crop_numbers(self) -> list[range]:
        """Return the numbers of the crops that this process cuts at each of the remaining steps."""
        own, batch = self.processes.share(self.recipe.batch), self.recipe.batch
        steps = range(self.progress.step, self.recipe.steps)
        return [range(step * batch + own.start, step * batch + own.stop) for step in steps]

    def _step(self, batch: Batch) -> float | None:
        """Take a step and return its loss; None: the gradients were not finite and changed nothing.

        One such step, of a crop that bfloat16 or float16 cannot hold, need not cost the run: it is counted.
        """
        recipe, step = self.recipe, self.progress.step
        # Dropout, like the crops, depends on seed and step alone.
        torch.manual_seed(_seed(recipe.seed, step, self.processes.rank))
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        loss = self._loss(Batch(*(part.to(self.device, memory_format=self.layout) for part in batch)))
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.whole.parameters(), recipe.clip_norm or math.inf)
        finite = bool(torch.isfinite(norm))  # the same in all processes: their gradients are averaged
        if finite:
            self.scaler.step(self.optimiser)
            self._update_average()
        self.scaler.update()
        return float(loss.detach()) if finite else None

    def _loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, whose network computes in the run's precision."""
        with self.kernels, torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            logits, organs = self.model(batch.ct, batch.pet)
        loss: Tensor = self.criterion(logits, batch.seg)
        if organs is not None:
            loss = loss + self.recipe.organ_weight * self.organ_loss(organs, batch.organs)
        price = self.logits.penalty()
        return loss if price is None else loss + price

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the average towards the parameters; faster at first, so that it forgets the random start."""
        step = self.progress.step
        decay = min(self.recipe.ema_decay, (1 + step) / (10 + step))
        current: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(list(self.average.values()), current, 1.0 - decay)

    def _end_epoch(self, plan: Plan, events: SummaryWriter | None, seconds: float, *, last: bool) -> str:
        """Judge the gradients, validate if it is time to, log for TensorBoard, and return the epoch's line."""
        recipe, progress = self.recipe, self.progress
        epoch = math.ceil(progress.step / recipe.steps_per_epoch)
        steps, skipped = (progress.step - 1) % recipe.steps_per_epoch + 1, progress.epoch_skipped
        mean_loss = progress.epoch_loss / (steps - skipped) if skipped < steps else math.nan
        loss = self.processes.mean(torch.tensor(mean_loss, device=self.device))
        progress.epoch_loss, progress.epoch_skipped = 0.0, 0
        progress.counted, progress.not_finite = progress.counted + steps, progress.not_finite + skipped
        progress.validation_due = bool(self.validation) and (last or epoch % plan.validate_every == 0)
        self._judge_gradients(plan, last=last)
        rate = recipe.learning_rate_at(progress.step - 1)
        values = {"loss": loss, "learning rate": rate, "seconds per step": seconds}
        parts = [
            f"epoch {epoch}/{math.ceil(recipe.steps / recipe.steps_per_epoch)}",
            f"step {progress.step}/{recipe.steps}",
            f"loss {loss:.4f}",
            f"lr {rate:.2e}",
            f"{seconds:.2f} s/step",
        ]
        bounds = self.logits.largest()
        if bounds:
            parts.append(f"logits at most {max(bounds.values()):.1f}")
            values |= {f"logits {name}": bound for name, bound in bounds.items()}
        if skipped:
            parts.append(f"{skipped} steps skipped, their gradients not being finite")
        self._show(events, values)
        if progress.validation_due:
            self.save(plan.out / STATE)  # first, as whole volumes take long
            parts.append(self._validate_epoch(plan, events))
        return "  ".join(parts)

    def _judge_gradients(self, plan: Plan, *, last: bool) -> None:
        """Raise UsageError where most gradients of enough steps, or of a short run, were not finite."""
        progress = self.progress
        if progress.not_finite > progress.counted / 2:  # the network does not learn: no use in hours more of it
            if progress.counted >= ENOUGH_STEPS or (last and progress.counted == progress.step):
                self.save(plan.out / STATE)
                raise UsageError(
                    f"{progress.not_finite} of the {progress.counted} steps before step {progress.step} had "
                    "gradients that are not finite; lower --learning-rate or use --precision float32, with "
                    "another --out"
                )
        elif progress.counted >= ENOUGH_STEPS:
            progress.counted, progress.not_finite = 0, 0

    def _show(self, events: SummaryWriter | None, values: Mapping[str, float]) -> None:
        """Log values of this step for TensorBoard."""
        if events is not None:
            for name, value in values.items():
                events.add_scalar(name.replace(" ", "_"), value, self.progress.step)
            events.flush()

    def _validate_epoch(self, plan: Plan, events: SummaryWriter | None) -> str:
        """Validate, keep the checkpoint if it is the best so far; return a text of the mean scores."""
        scores = self.validate()
        counted = zip(scores, choosing(self.validation), strict=True)
        mean = mean_scores([score for score, counts in counted if counts])
        line = tell(self.validation, scores)
        if mean.get("dice", -1.0) > self.progress.best_dice:
            self.progress.best_dice = mean["dice"]
            self._export(plan.out, "best", mean)
            line += "  best so far"
        self.progress.validation_due = False
        self._show(events, {f"validation {key}": value for key, value in mean.items()})
        return line

    def validate(self) -> list[Scores]:
        """Score the averaged network on the whole volumes of the validation cases."""
        network = self.averaged_network()
        own = self.processes.own(self.validation)
        return self.processes.gather(validate(network, own, self.description, self.device, self.recipe.precision))

    def averaged_network(self) -> H2ASeg:
        """Return the network with the moving average of its parameters, in eval mode, on the CPU.

        A run in bfloat16 rounds it to bfloat16, as autocast did in every forward pass: float32 inference then
        computes with the same parameters as bfloat16.
        """
        rounded = self.dtype if self.dtype is torch.bfloat16 else torch.float32
        network = H2ASeg(self.description.architecture)
        network.load_state_dict({name: value.to(rounded) for name, value in self.average.items()})
        return network.eval()

    def _export(self, out: Path, name: str, scores: dict[str, float] | None = None) -> Path:
        """Write the averaged network as a checkpoint that the container can use."""
        provenance: dict[str, Any] = {**self.description.provenance, "steps": self.progress.step}
        if scores:
            provenance["validation"] = scores
        if self.processes.is_first:
            parameters = self.averaged_network().state_dict()
            export(out, name, parameters, dataclasses.replace(self.description, provenance=provenance))
        self.processes.wait()
        return out / f"{name}.json"


def _optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return kind(network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _hash(parts: Iterable[Sequence[str]]) -> str:
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()
