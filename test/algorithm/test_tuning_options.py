"""``--tuning`` and ``--tune-s`` of the commands, on a tiny network."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from algorithm.commands.tuning import check_tuning, tune_before_health, use_tuning_file
from algorithm.errors import MissingInputError, OutputError, UsageError
from algorithm.inference.tuning import Tuning
from algorithm.job import Segmenter
from algorithm.tuning_file import read_tuning, write_tuning
from algorithm.weights import load_checkpoint
from test.support.checkpoints import write_checkpoint


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def segmenter(tmp_path: Path) -> Segmenter:
    return Segmenter([load_checkpoint(write_checkpoint(tmp_path / "weights"))], "cpu", "float32")


def options(
    tuning: Path | None, precision: str = "auto", time_limit: float | None = None, **more: float
) -> argparse.Namespace:
    return argparse.Namespace(tuning=tuning, precision=precision, time_limit=time_limit, **more)


class TestServe:
    def test_the_choice_is_logged_used_and_written(
        self, segmenter: Segmenter, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "new" / "tuning.json"
        args = options(path, tune_s=60.0)
        check_tuning(args)
        with caplog.at_level(logging.INFO, "algorithm"):
            tune_before_health(args, segmenter)

        choice = read_tuning(path, segmenter.device, segmenter.descriptions)
        assert segmenter.predictor.execution.tuning == choice
        assert choice.precision == "float32", "which was asked for"
        assert [line for line in caplog.messages if "the way before tuning" in line]
        assert [line for line in caplog.messages if line.startswith(f"tuning: {choice} (")]

    def test_a_file_that_is_there_is_used_without_tuning(self, segmenter: Segmenter, tmp_path: Path) -> None:
        path, tuning = tmp_path / "tuning.json", Tuning("float32", 3, channels_last=True, threads=1)
        write_tuning(path, tuning, segmenter.device, segmenter.descriptions)
        args, before = options(path, tune_s=60.0), path.read_bytes()
        check_tuning(args)

        assert use_tuning_file(args, segmenter)
        tune_before_health(args, segmenter)
        assert segmenter.predictor.execution.tuning == tuning
        assert path.read_bytes() == before

    def test_zero_seconds_leave_all_as_it_was(self, segmenter: Segmenter) -> None:
        before = segmenter.predictor.execution

        tune_before_health(options(None, tune_s=0.0), segmenter)
        assert segmenter.predictor.execution == before

    def test_a_short_time_limit_is_not_spent_on_tuning(
        self, segmenter: Segmenter, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, "algorithm"):
            tune_before_health(options(None, tune_s=60.0, time_limit=5.0), segmenter)
        assert "trying at most 1 s which way of computing windows is fastest here" in caplog.messages

    def test_windows_that_take_too_long_leave_all_as_it_was(
        self, segmenter: Segmenter, caplog: pytest.LogCaptureFixture
    ) -> None:
        before = segmenter.predictor.execution
        with caplog.at_level(logging.INFO, "algorithm"):
            tune_before_health(options(None, tune_s=1e-4), segmenter)

        assert segmenter.predictor.execution == before
        assert "more than the 0.0001 s that there are for it: none is done" in caplog.text
        assert "the way before tuning" not in caplog.text

    @pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
    def test_other_seconds_are_refused(self, seconds: float) -> None:
        with pytest.raises(UsageError, match="--tune-s must be a number of seconds"):
            check_tuning(options(None, tune_s=seconds))

    def test_a_file_that_nobody_would_write_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="and --tune-s 0 makes none; leave one of the two out"):
            check_tuning(options(tmp_path / "none.json", tune_s=0.0))

    def test_so_is_one_that_could_not_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError):
            check_tuning(options(tmp_path / "file" / "tuning.json", tune_s=1.0))


class TestRun:
    def test_it_writes_none(self, tmp_path: Path) -> None:
        with pytest.raises(MissingInputError, match=r"there is no tuning .*none\.json; `serve --tuning`"):
            check_tuning(options(tmp_path / "none.json"))

    def test_without_a_file_nothing_changes(self, segmenter: Segmenter) -> None:
        check_tuning(options(None))
        assert not use_tuning_file(options(None), segmenter)

    def test_another_precision_than_was_asked_for(self, segmenter: Segmenter, tmp_path: Path) -> None:
        path = tmp_path / "tuning.json"
        tuning = Tuning("bfloat16", 1, channels_last=True, threads=1)
        write_tuning(path, tuning, segmenter.device, segmenter.descriptions)

        with pytest.raises(UsageError, match="computes in bfloat16, which --precision float32 does not allow"):
            use_tuning_file(options(path, precision="float32"), segmenter)


def test_the_first_job_pays_for_all_that_was_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform's limit of a job counts from the start of its container."""
    from algorithm import server
    from algorithm.commands import jobs

    started: list[float] = []
    monkeypatch.setattr(jobs, "check_options", lambda args: None)
    monkeypatch.setattr(jobs, "segmenter_of", lambda args: None)
    monkeypatch.setattr(jobs, "tune_before_health", lambda args, segmenter: None)
    monkeypatch.setattr(jobs, "seconds_since_start", lambda: 40.0)
    monkeypatch.setattr(jobs, "do_job", lambda args, segmenter, began: started.append(began))

    def serve(load: object, host: str, port: int) -> int:
        job = load()  # type: ignore[operator]
        for began in (1000.0, 2000.0, 3000.0):
            job(began)
        return 0

    monkeypatch.setattr(server, "serve", serve)
    jobs.serve(argparse.Namespace(host="", port=0))

    assert started == [960.0, 2000.0, 3000.0]
