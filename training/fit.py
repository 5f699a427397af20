"""``python -m training fit``: train one network."""

from __future__ import annotations

import argparse
import logging

from training.options import FitOptions, parsed_as
from training.preparation import split_patients
from training.session import open_session
from training.splits import check_rule

log = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> int:
    """Prepare the data, train, and say where the checkpoint is."""
    options = parsed_as(FitOptions, args)
    training = options.training
    with open_session(training) as session:
        check_rule(options.split)
        if training.network.init:
            session.check_start(training.network.init, training.data.out)
        data = session.prepare_data()
        split = split_patients(data, options.split, training.recipe.seed)
        name = options.name or training.data.out.resolve().name
        run = session.train(name, data, split, training.data.out, training.network.init)
        if run.finished and options.proof_cases:
            cases = data.cases(split.validation) or data.cases(split.train)
            session.prove(run, cases[: options.proof_cases])
        log.info("weights: %s", run.checkpoint)
    return 0
