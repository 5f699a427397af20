from __future__ import annotations

import pytest

from training.parallel import Processes


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
