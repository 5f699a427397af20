from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from algorithm import weights
from algorithm.__main__ import main
from algorithm.errors import OutputError, WeightsError
from algorithm.network.architecture import Architecture
from algorithm.network.h2aseg import H2ASeg
from algorithm.released import import_released, network_from_released, released_name
from algorithm.weights import (
    build_network,
    find_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from test.conftest import ROOT
from test.support.checkpoints import (
    PUBLISHED,
    TINY_PATCH,
    describe,
    random_network,
    released_shapes,
    released_state,
    write_checkpoint,
)
from test.support.plain_network import reference_inputs, reference_parameters

AUTHORS = ROOT / "weights" / "descriptions" / "h2aseg-autopet2-released.json"


@pytest.fixture(scope="module")
def released() -> dict[str, Tensor]:
    """A state dictionary as the authors' code saves it."""
    return reference_parameters(released_shapes(), 3)


class TestReleasedNames:
    def test_names_and_shapes_are_a_bijection(self) -> None:
        ours = {released_name(name): tuple(value.shape) for name, value in H2ASeg().state_dict().items()}
        theirs = {
            name: shape[:2] if shape[2:] == (1, 1, 1) else shape for name, shape in released_shapes().items()
        }

        assert len(theirs) == len(H2ASeg().state_dict()) == 269
        assert ours == theirs

    @pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state_dict", "network"])
    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_wrapped_and_prefixed(self, released: dict[str, Tensor], key: str | None, prefix: str) -> None:
        content: dict[str, Any] = OrderedDict((prefix + name, value) for name, value in released.items())
        if key is not None:
            content = {"epoch": 12, "optimizer": {"state": {}}, key: content}

        network = network_from_released(content)

        assert not network.training
        found = released_state(network)
        assert found.keys() == released.keys()
        assert all(torch.equal(found[name], released[name]) for name in released)

    def test_what_does_not_fit_is_listed(self, released: dict[str, Tensor]) -> None:
        content = dict(released)
        del content["decoder.output1.conv.2.bias"]
        content["decoder.output6.conv.2.bias"] = torch.zeros(2)
        content["encoder.conv1_ct.conv_block.0.bias"] = torch.zeros(7)

        with pytest.raises(WeightsError) as caught:
            network_from_released(content)

        assert str(caught.value) == (
            "this is not a checkpoint of the released H2ASeg: missing decoder.output1.conv.2.bias; "
            "unexpected decoder.output6.conv.2.bias; "
            "misshapen encoder.conv1_ct.conv_block.0.bias (7,), expected (8,)"
        )

    def test_a_long_list_is_cut(self) -> None:
        with pytest.raises(WeightsError, match=r"; and 257 more$"):
            network_from_released({})

    def test_not_a_dictionary(self) -> None:
        with pytest.raises(WeightsError, match="must hold a dictionary of tensors, got list"):
            network_from_released([1, 2])  # type: ignore[arg-type]


class TestImport:
    def test_command_line_reproduces_the_network(
        self, released: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = tmp_path / "epoch_200.pth"
        torch.save({"state_dict": released}, source)
        arguments = [
            "weights",
            "import",
            str(source),
            "--description",
            str(AUTHORS),
            "--out",
            str(tmp_path / "out"),
        ]

        assert main(arguments) == 0

        checkpoint = load_checkpoint(tmp_path / "out" / "epoch_200.json")
        assert checkpoint.description.patch == (128, 128, 64)
        assert checkpoint.description.sha256 == sha256(tmp_path / "out" / "epoch_200.safetensors")
        inputs = reference_inputs(1, (32, 32, 16), 3)
        with torch.inference_mode():
            expected = network_from_released(released).finest(*inputs)
            assert torch.equal(build_network(checkpoint).finest(*inputs), expected)
        assert main(["weights", "verify", str(tmp_path / "out")]) == 0
        out, err = capsys.readouterr()
        assert "7,164,869 parameters" in out
        assert "INFERRED" in out
        assert err == ""

        assert main(arguments) == 2
        assert "epoch_200.json exists already; add --force" in capsys.readouterr().err
        assert main([*arguments, "--force"]) == 0

    def test_code_in_a_pickle_never_runs(self, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        source = tmp_path / "malicious.pth"
        torch.save({"state_dict": OrderedDict(), "hyperparameters": Malicious(victim)}, source)

        with pytest.raises(WeightsError, match=r"malicious\.pth .* holds Python objects besides tensors"):
            import_released(source, describe(), tmp_path / "out")

        assert not victim.exists()
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a Git-LFS pointer"),
            (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
            (b"PK\x03\x04 and no more", "is not a complete PyTorch checkpoint"),
            (b"neither a zip archive nor a pickle", "is not a PyTorch checkpoint"),
            (b"hello world", "is not a PyTorch checkpoint"),
        ],
        ids=["empty", "lfs", "html", "cut", "text", "other text"],
    )
    def test_other_files(self, content: bytes, message: str, tmp_path: Path) -> None:
        source = tmp_path / "strange.pth"
        source.write_bytes(content)

        with pytest.raises(WeightsError, match=message) as caught:
            import_released(source, describe(), tmp_path / "out")

        assert str(source) in str(caught.value)

    def test_truncated(self, released: dict[str, Tensor], tmp_path: Path) -> None:
        source = tmp_path / "cut.pth"
        torch.save(released, source)
        source.write_bytes(source.read_bytes()[:100_000])

        with pytest.raises(WeightsError, match="is not a complete PyTorch checkpoint"):
            import_released(source, describe(), tmp_path / "out")

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"cannot read the weights .*none\.pth: No such file"):
            import_released(tmp_path / "none.pth", describe(), tmp_path)

    def test_description_of_another_network(self, released: dict[str, Tensor], tmp_path: Path) -> None:
        source = tmp_path / "released.pth"
        torch.save(released, source)

        with pytest.raises(WeightsError, match="does not fit its description: misshapen"):
            import_released(source, describe(), tmp_path / "out")

        assert not (tmp_path / "out").exists()


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.victim,)


class TestCheckpoint:
    def test_round_trip(self, tmp_path: Path) -> None:
        network = random_network()

        path = save_checkpoint(tmp_path / "new", "mine", network.state_dict(), describe(name="mine"))

        checkpoint = load_checkpoint(path)
        assert path == tmp_path / "new" / "mine.json"
        assert sorted(file.name for file in path.parent.iterdir()) == ["mine.json", "mine.safetensors"]
        assert replace(checkpoint.description, sha256="") == describe(name="mine")
        assert checkpoint.description.sha256 == sha256(path.with_suffix(".safetensors"))
        assert all(value.dtype == torch.float32 for value in checkpoint.state.values())
        built = build_network(checkpoint)
        assert not built.training
        for name, value in network.state_dict().items():
            assert torch.equal(built.state_dict()[name], value.half().float())

    def test_somebody_elses_weights_stay(self, tmp_path: Path) -> None:
        theirs = tmp_path / "mine.safetensors"
        safetensors.torch.save_file({"layer.weight": torch.ones(3)}, theirs)
        before = theirs.read_bytes()
        with pytest.raises(OutputError, match=r"mine\.safetensors is there already and is not weights"):
            save_checkpoint(tmp_path, "mine", random_network().state_dict(), describe())
        assert theirs.read_bytes() == before

    def test_weights_left_without_their_description_are_replaced(self, tmp_path: Path) -> None:
        path = save_checkpoint(tmp_path, "mine", random_network().state_dict(), describe())
        path.unlink()
        assert save_checkpoint(tmp_path, "mine", random_network().state_dict(), describe()) == path

    def test_float32_keeps_every_bit(self, tmp_path: Path) -> None:
        network = random_network()

        path = save_checkpoint(tmp_path, "mine", network.state_dict(), describe(), dtype=torch.float32)

        inputs = reference_inputs(1, TINY_PATCH, 3)
        with torch.inference_mode():
            assert torch.equal(build_network(load_checkpoint(path)).finest(*inputs), network.finest(*inputs))

    @pytest.mark.parametrize("switch", ["mcsa", "tamw"])
    def test_ablated_networks(self, switch: str, tmp_path: Path) -> None:
        architecture = replace(describe().architecture, **{switch: False})

        checkpoint = load_checkpoint(write_checkpoint(tmp_path, architecture=architecture))

        assert build_network(checkpoint).architecture == architecture

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty; copy it again"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "run `git lfs pull`"),
            (b"<html><title>404</title></html>", "is a web page, not weights"),
            (b"not weights at all", "is truncated or damaged at 18 bytes"),
        ],
        ids=["empty", "lfs", "html", "text"],
    )
    def test_other_files(self, content: bytes, message: str, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path)
        path.with_suffix(".safetensors").write_bytes(content)

        with pytest.raises(WeightsError, match=message) as caught:
            load_checkpoint(path)

        assert str(path.with_suffix(".safetensors")) in str(caught.value)
        assert caught.value.exit_code == 3

    def test_truncated(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path)
        file = path.with_suffix(".safetensors")
        file.write_bytes(file.read_bytes()[:-1000])

        with pytest.raises(WeightsError, match="is truncated or damaged at"):
            load_checkpoint(path)

    def test_weights_of_another_checkpoint(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path, "one")
        other = write_checkpoint(tmp_path, "two", seed=2).with_suffix(".safetensors")
        other.replace(path.with_suffix(".safetensors"))

        with pytest.raises(WeightsError, match="the two do not belong together"):
            load_checkpoint(path)

    def test_without_sha256_damage_is_still_noticed(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path)
        edit(path, sha256="")
        assert load_checkpoint(path).description.sha256 == ""

        file = path.with_suffix(".safetensors")
        file.write_bytes(file.read_bytes()[:-1000])
        with pytest.raises(WeightsError, match="is damaged"):
            load_checkpoint(path)

    def test_weights_missing(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path)
        path.with_suffix(".safetensors").unlink()

        with pytest.raises(WeightsError, match=r"cannot read the weights .*tiny\.safetensors: No such file"):
            load_checkpoint(path)

    def test_names_and_shapes_are_listed(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path)
        file = path.with_suffix(".safetensors")
        state = safetensors.torch.load_file(file)
        del state["decoder.heads.1.conv.bias"]
        state["surplus"] = torch.zeros(1)
        state["decoder.heads.1.act.weight"] = torch.zeros(3)
        safetensors.torch.save_file(state, file)
        edit(path, sha256="")

        with pytest.raises(WeightsError) as caught:
            load_checkpoint(path)

        assert str(caught.value) == (
            f"{file} does not fit its description: missing decoder.heads.1.conv.bias; unexpected surplus; "
            "misshapen decoder.heads.1.act.weight (3,), expected (1,)"
        )

    def test_description_of_another_architecture(self, tmp_path: Path) -> None:
        path = write_checkpoint(tmp_path)
        content = json.loads(path.read_text())
        edit(path, architecture={**content["architecture"], "tamw": False})

        with pytest.raises(WeightsError, match=r"unexpected decoder\.weighting"):
            load_checkpoint(path)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_not_finite(self, value: float, tmp_path: Path) -> None:
        state = random_network().state_dict()
        state["decoder.heads.1.conv.bias"][0] = value

        path = save_checkpoint(tmp_path, "broken", state, describe())

        with pytest.raises(WeightsError, match=r"not finite in decoder\.heads\.1\.conv\.bias"):
            load_checkpoint(path)


class TestFind:
    @pytest.fixture(autouse=True)
    def folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(weights, "MODEL_FOLDER", tmp_path / "model")
        monkeypatch.setattr(weights, "BAKED_IN_FOLDER", tmp_path / "baked")

    def test_order_of_places(self, tmp_path: Path) -> None:
        baked = write_checkpoint(tmp_path / "baked", "h2aseg")
        assert find_checkpoints() == [baked]

        model = [write_checkpoint(tmp_path / "model", name) for name in ("fold_0", "fold_1")]
        assert find_checkpoints() == model

        explicit = write_checkpoint(tmp_path / "explicit", "mine")
        assert find_checkpoints(explicit.parent) == [explicit]
        assert find_checkpoints(explicit) == find_checkpoints(explicit.with_suffix(".safetensors")) == [explicit]

    def test_descriptions_alone_are_no_checkpoints(self, tmp_path: Path) -> None:
        baked = write_checkpoint(tmp_path / "baked", "h2aseg")
        descriptions = tmp_path / "baked" / "descriptions"
        descriptions.mkdir()
        for name in (descriptions / "other.json", tmp_path / "baked" / "notes.json"):
            name.write_text(AUTHORS.read_text())

        assert find_checkpoints() == [baked]
        with pytest.raises(WeightsError, match=r"no weights found in .*descriptions"):
            find_checkpoints(descriptions)

    def test_model_folder_with_something_else_is_not_passed_over(self, tmp_path: Path) -> None:
        write_checkpoint(tmp_path / "baked", "h2aseg")
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "epoch_200.pth").touch()

        with pytest.raises(WeightsError, match=r"model holds epoch_200\.pth but no \*\.safetensors"):
            find_checkpoints()

    def test_hidden_files_do_not_count(self, tmp_path: Path) -> None:
        baked = write_checkpoint(tmp_path / "baked", "h2aseg")
        (tmp_path / "model").mkdir()
        for name in ("baked/._h2aseg.safetensors", "baked/._h2aseg.json", "model/.DS_Store"):
            (tmp_path / name).write_bytes(b"Mac OS X")

        assert find_checkpoints() == [baked]

    def test_nothing_anywhere(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError) as caught:
            find_checkpoints()

        assert str(caught.value) == (
            f"no weights found in {tmp_path / 'model'} or {tmp_path / 'baked'} "
            "(looked for *.safetensors with a .json beside it)"
        )

    @pytest.mark.parametrize("name", ["none.json", "none.safetensors"])
    def test_named_file_is_missing(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=f"no weights at .*{name}; give a folder"):
            find_checkpoints(tmp_path / name)


def test_published_architecture_is_the_default() -> None:
    assert Architecture() == PUBLISHED == H2ASeg().architecture


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
