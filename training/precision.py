"""``python -m training precision``: proves which number formats all levels of a network may be computed in.

What inference may do with a checkpoint is measured, not assumed: its masks in bfloat16 and in float16, all levels,
against those in float32, and the largest attention logit on the way. float16 is simulated where no GPU computes
it.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from algorithm.description import LOW_PRECISIONS, Agreement, Description, PrecisionProof
from algorithm.errors import InvalidImageError, MissingInputError
from algorithm.inference.device import choose_device
from algorithm.inference.predictor import Predictor
from algorithm.inference.progress import Progress
from algorithm.network.h2aseg import H2ASeg
from algorithm.segmentation import EnsembleCase, mask_on, segment_prepared
from algorithm.weights import build_network, describe_again, load_checkpoint
from evaluation.scoring.metrics import dice_of
from training.options import PrecisionOptions, parsed_as
from training.studies import prepare_study, read_studies

log = logging.getLogger(__name__)

_SILENT = Progress(logging.DEBUG)

ProofCase = tuple[EnsembleCase, sitk.Image]
"""A case as the network takes it, and its PET."""

_EXACT = {
    # statistics, which every format computes in float32
    "aten::mean", "aten::sum", "aten::sub", "aten::square_", "aten::var_mean", "aten::pow", "aten::rsqrt",
    "aten::native_batch_norm_stats",
}  # fmt: skip


class Simulated(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Rounds what every operation of float32 returns to another format, as a device would store it.

    Sums inside an operation stay in float32, as they do on GPUs, and so do the statistics of normalisation. Also
    notes the largest magnitude of an attention logit.

    Parameters
    ----------
    dtype : torch.dtype or None
        None rounds nothing.
    """

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype = dtype
        self.largest_logit = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute an operation and round its result."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._schema.name
        if "scaled_dot_product" in name:
            self._measure(args[0], args[1], kwargs.get("scale"))
        if self.dtype is None or name in _EXACT or _only_looks(func):
            return result
        return self._rounded(result)

    def _rounded(self, result: Any) -> Any:
        if isinstance(result, tuple):
            return (self._rounded(result[0]), *result[1:])
        if not isinstance(result, Tensor) or result.dtype != torch.float32 or result.numel() < 2:
            return result
        return result.copy_(result.to(self.dtype))

    def _measure(self, query: Tensor, key: Tensor, scale: float | None) -> None:
        """Look at the logits of queries and keys ``(N, heads, T, C)``, a group at a time."""
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        for queries, keys in zip(query.float(), key.float(), strict=True):
            largest = factor * float((queries @ keys.transpose(-1, -2)).abs().amax())
            self.largest_logit = max(self.largest_logit, largest)


def _only_looks(func: Any) -> bool:
    """Tell an operation that returns a view: rounding it would round what it looks at, a parameter or input."""
    return any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)


def prove_precision(
    network: H2ASeg, description: Description, cases: Iterable[ProofCase], device: torch.device
) -> PrecisionProof:
    """Measure a network in low precision against float32.

    Parameters
    ----------
    network : H2ASeg
        float32, on the CPU, in eval mode.
    description : Description
    cases : iterable of ProofCase
        Prepared for this description; one after the other.
    device : torch.device

    Returns
    -------
    PrecisionProof
        Without agreements where no case had a mask.
    """
    logits = Simulated(None)
    exact = Predictor([network], device, torch.float32)
    tried: dict[str, tuple[Predictor, Callable[[], AbstractContextManager[object]]]] = {
        "bfloat16": (Predictor([network], device, torch.bfloat16, [LOW_PRECISIONS]), nullcontext),
        "float16": (
            (Predictor([network], device, torch.float16, [LOW_PRECISIONS]), nullcontext)
            if device.type == "cuda"
            else (exact, partial(Simulated, torch.float16))
        ),
    }
    agreed: dict[str, list[float]] = {name: [] for name in tried}
    for case, pet in cases:
        with logits:
            wanted = _mask(exact, case, pet, description)
        for name, (predictor, context) in tried.items():
            with context():
                got = _finite_mask(predictor, case, pet, description)
            if wanted.any() or got is None or got.any():  # that both find nothing proves nothing
                agreed[name].append(0.0 if got is None else dice_of(wanted, got))
    if not any(agreed.values()):
        return PrecisionProof()
    summary = {
        name: Agreement(len(values), round(float(np.mean(values)), 5), round(min(values), 5))
        for name, values in agreed.items()
        if values
    }
    return PrecisionProof(round(logits.largest_logit, 2), **summary)


def _mask(predictor: Predictor, case: EnsembleCase, pet: sitk.Image, how: Description) -> NDArray[np.uint8]:
    """Return a case's mask, z, y, x; raises InvalidImageError where values are not finite in the format itself."""
    prediction = segment_prepared(predictor, case, flips=1, progress=_SILENT)
    if prediction.execution.dtype != predictor.execution.dtype:  # float32 took over
        raise InvalidImageError(f"the network gave values that are not finite in {predictor.execution.dtype}")
    return mask_on(prediction.probability, case.prepared.grid, pet, how)


def _finite_mask(
    predictor: Predictor, case: EnsembleCase, pet: sitk.Image, how: Description
) -> NDArray[np.uint8] | None:
    """Return a case's mask as :func:`_mask` does, None where the format overflows."""
    try:
        return _mask(predictor, case, pet, how)
    except InvalidImageError:
        return None


def tell(proof: PrecisionProof) -> str:
    """Return a line that says what was found."""
    if proof.largest_logit is None:
        return "low precision: not tried, there was no case with a mask"
    formats = ", ".join(
        f"{name} {'safe' if proof.allows(name) else 'only in the finest level'} (Dice to float32: mean "
        f"{tried.mean_dice:.4f}, least {tried.least_dice:.4f} of {tried.cases})"
        for name, tried in (("bfloat16", proof.bfloat16), ("float16", proof.float16))
        if tried is not None
    )
    return f"low precision: largest attention logit {proof.largest_logit:.1f}; {formats}"


def main(args: argparse.Namespace) -> int:
    """Prove a checkpoint's precision on some cases and write it into its description."""
    options = parsed_as(PrecisionOptions, args)
    checkpoint = load_checkpoint(options.weights)
    device = choose_device(options.device)

    def prepared() -> Iterator[ProofCase]:
        for folder in options.cases:
            for case, study in read_studies(folder, options.layout):
                yield prepare_study(case, study, checkpoint.description), study.pet
                log.info("  %s", case.name)

    proof = prove_precision(build_network(checkpoint), checkpoint.description, prepared(), device)
    if proof == PrecisionProof():
        folders = ", ".join(map(str, options.cases))
        raise MissingInputError(
            f"no usable case in {folders} gets a mask, so nothing is proved and {checkpoint.path} stays as it is; "
            "add cases with tumours"
        )
    log.info(tell(proof))
    describe_again(checkpoint, precision=proof)
    log.info("written to %s", checkpoint.path)
    return 0
