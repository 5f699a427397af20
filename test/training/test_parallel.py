from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from algorithm.errors import UsageError
from test.conftest import ROOT
from training.parallel import Processes, join_processes


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("items", [0, 1, 2, 3, 7])
def test_what_processes_share_out_comes_back_in_its_order(
    monkeypatch: pytest.MonkeyPatch, count: int, items: int
) -> None:
    group = [Processes(rank, count) for rank in range(count)]
    parts = [list(each.own(range(items))) for each in group]

    def all_gather(lists: list[list[int]], own: list[int]) -> None:
        lists[:] = parts

    monkeypatch.setattr("training.parallel.dist.all_gather_object", all_gather)
    for process, part in zip(group, parts, strict=True):
        assert process.gather(part) == list(range(items))


@pytest.mark.parametrize("given", ["two", "2"])
def test_variables_that_torchrun_did_not_set_are_one_sentence(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", given)
    with pytest.raises(UsageError, match=f"WORLD_SIZE={given} is not as torchrun sets it"):
        join_processes(torch.device("cpu"))


_ONE_CHANNEL = """
import os, torch
from torch import distributed, nn
from training.parallel import Processes

distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
network = Processes(0, 2).wrap(nn.Conv3d(1, 8, 3).to(memory_format=torch.channels_last_3d))
for _ in range(2):
    network(torch.ones(1, 1, 8, 8, 8)).sum().backward()
os._exit(0)  # a group may wait for ever for its own threads where a network outlives it
"""


def test_weights_of_one_channel_are_no_cause_for_a_warning() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ONE_CHANNEL], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
