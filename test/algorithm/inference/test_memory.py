from __future__ import annotations

import pytest

from algorithm.inference import memory


class TestHostMemory:
    def test_what_grand_challenge_states_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GRAND_CHALLENGE_COMPONENT_MAX_MEMORY_MB", "512")

        assert memory.host_limit_bytes() == 512 * 2**20

    @pytest.mark.parametrize("stated", ["", "unlimited"])
    def test_otherwise_the_machine_does(self, stated: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GRAND_CHALLENGE_COMPONENT_MAX_MEMORY_MB", stated)
        monkeypatch.setattr(memory, "_CGROUP_LIMITS", ())

        assert memory.host_limit_bytes() == memory._machine_memory()

    def test_least_limit_of_the_control_group(self, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
        monkeypatch.delenv("GRAND_CHALLENGE_COMPONENT_MAX_MEMORY_MB", raising=False)
        for name, text in (("unlimited", "max\n"), ("small", "1048576\n")):
            (tmp_path / name).write_text(text)
        paths = tuple(tmp_path / name for name in ("unlimited", "small", "absent"))
        monkeypatch.setattr(memory, "_CGROUP_LIMITS", paths)

        assert memory.host_limit_bytes() == 2**20

    def test_nothing_to_do_without_glibc(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.platform", "darwin")

        assert not memory.reuse_freed_memory()
