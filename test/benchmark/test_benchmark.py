from __future__ import annotations

import re
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from algorithm import console
from algorithm.network.architecture import Architecture
from algorithm.network.h2aseg import H2ASeg
from algorithm.released import network_from_released
from algorithm.weights import Checkpoint
from benchmark import (
    floors,
    monai_segmentation,
    process,
)
from benchmark.__main__ import main
from benchmark.options import add_arguments
from benchmark.parts import PARTS, server
from benchmark.parts.rows import command, own_precision
from benchmark.process import Child, ChildError, peak_host_mib
from benchmark.results import RESULTS, Section, short, spread, table, write_results
from benchmark.run import _HEAD
from benchmark.subjects import _REFERENCE, plain_network, reference_state, released_parameters
from test.benchmark.conftest import PATCH, TORSO, rows_of, run_parts
from test.conftest import ROOT


def test_the_plain_network_gets_every_parameter_of_the_release():
    state = reference_state()
    released = released_parameters(state)
    assert len(released) == 269
    assert all(released[name].ndim in (1, 2, 5) for name in released)
    assert released["encoder.sa4.sa_ct.Q_conv_target_target.weight"].shape == (64, 64, 1, 1, 1)
    back = network_from_released(released).state_dict()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_another_architecture_than_the_published_one_is_refused(tiny):
    description = _REFERENCE.__class__(**{**vars(_REFERENCE), "architecture": Architecture(tamw=False)})
    with pytest.raises(Exception, match="the plain network is the published one"):
        plain_network(Checkpoint(tiny, description, {}))


def test_the_counted_work_is_the_published_arithmetic():
    checkpoint = Checkpoint(None, _REFERENCE, H2ASeg().state_dict())
    work = floors.count_work(checkpoint, list(PATCH))
    assert work.flop / 1e9 == pytest.approx(228.5 / 64, rel=0.03)  # less attention than in the released patch
    voxels, parameters = 32 * 32 * 16, sum(value.numel() for value in checkpoint.state.values())
    finest = 2 * 8 * 2 + 2 * 8 * 2  # two streams, two convolutions and a skip, and the decoder's: at the least
    assert work.elements > parameters + voxels * (2 + 2 + finest)


def test_both_networks_are_timed_and_agree(quick, tiny, tmp_path):
    text = run_parts(["patch"], tiny, tmp_path, "--patch", *PATCH)
    (row,) = rows_of(text)
    assert row["patch"] == "32x32x16"
    assert float(row["difference"]) < 1e-4
    assert float(row["plain / product"]) > 0
    assert float(row["arithmetic floor (s)"]) > 0
    assert "python -m benchmark patch" in row["command"]
    assert "GPU rows not measured" in text


def test_monai_and_the_product_do_the_same_windows_and_find_the_same(quick, tiny, tmp_path):
    rows = rows_of(run_parts(["body"], tiny, tmp_path, "--flips", 2))
    assert [(row["box"], row["method"]) for row in rows] == [
        ("off", "MONAI, plain"), ("off", "product"), ("on", "MONAI, plain"), ("on", "product"),
    ]  # fmt: skip
    assert [row["windows x flips"] for row in rows[1::2]] == ["4 x 2", "1 x 2"]
    for plain, product in (rows[:2], rows[2:]):
        assert plain["windows x flips"] == product["windows x flips"]
        assert float(plain["Dice"]) > 0.995
        assert float(product["faster"]) > 0


def test_a_row_from_some_windows_says_so(quick, tiny, tmp_path, monkeypatch):
    measured = process.measure_once

    def canned(task, **arguments):
        if "save" not in arguments:  # the machine, the body, the floors
            return measured(task, **arguments)
        np.save(arguments["save"], np.ones((2, 2, 2), np.uint8))
        seconds = (
            {"predict_s": 9.0, "seconds": 10.0} if "only" in arguments else {"predict_s": 1.0, "seconds": 2.0}
        )
        computed = {"computed": arguments["only"]} if "only" in arguments else {}
        memory = {"host_mib": 2048.0, "above_inputs_mib": 1024.0, "device_mib": None}
        return {"windows": 30, "passes": arguments["flips"], **seconds, **computed, **memory}

    monkeypatch.setattr(process, "measure_once", canned)
    plain, product, *_ = rows_of(run_parts(["body"], tiny, tmp_path, "--flips", 8, "--windows", 5))
    assert plain["method"] == "MONAI, plain, extrapolated from 5 windows"
    assert (plain["Dice"], plain["faster"]) == ("-", "-")
    assert product["method"] == "product"
    assert (product["Dice"], product["faster"], product["windows x flips"]) == ("1.0000", "5", "30 x 8")
    assert (product["host peak (GiB)"], product["above the inputs (GiB)"]) == ("2.00", "1.00")
    assert float(product["arithmetic floor (s)"]) > 0


def test_time_of_windows_not_computed_is_added():
    windows = monai_segmentation._Windows(lambda ct, pet: torch.cat([ct, pet], 1), "cpu", only=2)
    for _ in range(5):
        windows(torch.ones(1, 2, 4, 4, 4))
    windows._seconds_per_window[:] = [9.0, 2.0]
    assert (windows.seen, windows.computed) == (5, 2)
    assert windows.skipped_s == 3 * 2.0  # the first warms up


def test_growth_changes_one_thing_at_a_time(quick, tiny, tmp_path):
    size = ("--size", 48, 36, 32, "--spacing", 14, 14, 6)
    options = (*size, "--growing-flips", 1, 2, "--growing-checkpoints", 2)
    rows = rows_of(run_parts(["growth"], tiny, tmp_path, *options))
    grown = [(row["volume"], row["flips"], row["checkpoints"]) for row in rows]
    assert grown == [
        ("48x36x32", "1", "1"), ("48x36x8", "1", "1"), ("48x36x16", "1", "1"), ("48x36x32", "2", "1"),
        ("48x36x32", "1", "2"),
    ]  # fmt: skip
    assert rows[0]["passes / first row"] == "1"


def test_a_fresh_process_tells_when_its_first_window_is_done(quick, tiny, tmp_path):
    (row,) = rows_of(run_parts(["startup"], tiny, tmp_path))
    imports, begins, done = (
        float(row[name]) for name in ("imports done (s)", "first window begins (s)", "first window done (s)")
    )
    assert 0 < imports <= begins <= done


def test_masks_of_a_reduced_precision_are_compared_with_those_of_float32(quick, tiny, tmp_path):
    torso = TORSO()
    for name in ("first", "second"):
        (tmp_path / "cases" / name).mkdir(parents=True)
        sitk.WriteImage(torso.ct, tmp_path / "cases" / name / "CTres.nii.gz")
        sitk.WriteImage(torso.pet, tmp_path / "cases" / name / "SUV.nii.gz")
    options = ("--precision", "float32", "bfloat16", "--flips", 1, "--cases", tmp_path / "cases")
    cases, body = rows_of(run_parts(["agreement"], tiny, tmp_path, *options))

    assert (cases["cases"], body["cases"]) == ("2 in cases", "the body")
    assert cases["precision"] == "bfloat16"
    assert 0.5 < float(cases["mean"]) <= 1
    assert re.fullmatch(r"[01]\.\d{4} \(first\)", cases["least"])
    assert f"--cases {tmp_path / 'cases'}" in cases["command"]


def test_less_time_than_the_body_needs_still_gives_a_mask(quick, tiny, tmp_path):
    (row,) = rows_of(run_parts(["deadline"], tiny, tmp_path, "--time-limit", 30))
    assert (row["exit code"], row["valid"], row["time limit (s)"]) == ("0", "yes", "30")
    assert float(row["took (s)"]) < 30
    assert row["passes"].endswith(" of 8")


def test_both_ways_of_scoring_give_the_same(quick, tiny, tmp_path):
    (row,) = rows_of(run_parts(["scoring"], tiny, tmp_path, "--size", 90, 80, 70, "--lesions", 6))
    assert (row["masks"], row["lesions"], row["equal"]) == ("90x80x70", "6 and 6", "to the last digit")
    assert float(row["times as fast"]) > 0
    assert row["command"] == "`python -m benchmark scoring --size 90 80 70 --lesions 6`"


@pytest.mark.parametrize(("masks", "told"), [([b"a", b"a"], "yes"), ([b"b", b"a"], "no"), ([b"a", b"b"], "no")])
def test_the_masks_of_all_jobs_are_compared(tmp_path, monkeypatch, masks, told):
    following = iter(masks)
    fakes = {
        "_exec_runs": lambda *_: ([2.0], b"a"),
        "_server": lambda *_: nullcontext((None, 0, 0.5)),
        "_place": lambda *_: None,
        "_timed": lambda _: 1.0,
        "_mask": lambda _: next(following),
        "_growth": lambda *_: 1.0,
        "_calls": lambda *_: [1.0, 1.0],
        "command": lambda *_, **__: "",
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(server, name, fake)
    files = lambda *_: {"weights": "w"}  # noqa: E731
    session = SimpleNamespace(folder=tmp_path, files=files, options=SimpleNamespace(repetitions=len(masks)))
    assert server._row(session, "default")["same mask"] == told


@pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")
def test_jobs_are_served(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmark.parts.server._MANY", 6)
    monkeypatch.setattr("benchmark.parts.server._STROKE", 2)
    (row,) = rows_of(run_parts(["serving"], tiny, tmp_path))
    assert row["same mask"] == "yes"
    assert float(row["exec / invoke"]) > 1
    assert 0.9 < float(row["grown"]) < 1.2
    assert float(row["later calls (s)"].split()[0]) < 5


@pytest.mark.parametrize(
    ("code", "told", "words"),
    [
        (None, "", "was not healthy after 0.1 s; the last that it said: nothing"),
        (None, "loading\nlistening on 127.0.0.1:8080\n", "was not healthy .*: listening on 127.0.0.1:8080"),
        (3, "", "ended with exit code 3"),
    ],
)
def test_a_server_that_never_gets_healthy_is_given_up(code, told, words, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_HEALTHY_S", 0.1)
    monkeypatch.setattr(server, "_Ask", lambda port: lambda *_: (503, "the weights are being loaded"))
    (tmp_path / "log").write_text(told)
    process = SimpleNamespace(poll=lambda: code, returncode=code)
    with pytest.raises(ChildError, match=words):
        server._healthy(tmp_path / "log", process)


def test_unknown_parts_are_refused(capsys):
    assert main(["patches"]) == 2
    assert "agreement, flips, deadline, serving, neighbour, scoring, gpu, got 'patches'" in capsys.readouterr().err


def test_a_child_answers_and_a_broken_one_is_noticed():
    with Child("machine:describe") as child:
        answer = child.wait_until_ready().measure()
    assert re.match(r"\d+, of which torch uses \d+", answer["cores"])
    assert answer["GPU"] == "no GPU here: GPU rows not measured" or answer["cuda"]
    with Child("results:nothing") as child, pytest.raises(ChildError, match="results:nothing"):
        child.wait_until_ready()


def test_a_foreign_file_is_not_replaced(tmp_path, capsys):
    path = tmp_path / "notes.md"
    for content in (b"# My notes\n\n## Todo\n", b"\xff\xfe"):
        path.write_bytes(content)
        assert main(["scoring", "--out", str(path)]) == 2
        assert "is not a file of benchmark results that this software wrote" in capsys.readouterr().err
        assert path.read_bytes() == content


def test_the_results_are_known_as_such():
    assert RESULTS.is_earlier(ROOT / "benchmark" / "RESULTS.md")


@pytest.mark.parametrize(
    ("part", "precision", "message"),
    [
        ("flips", "float16", "--precision float16 is none of float32, bfloat16, which cpu computes in"),
        ("agreement", "float32", "agreement compares other precisions with float32, got --precision float32"),
    ],
)
def test_precisions_that_measure_nothing_are_refused(part, precision, message, tmp_path, quick, capsys):
    path = tmp_path / "RESULTS.md"
    assert main([part, "--device", "cpu", "--precision", precision, "--out", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert not path.exists()


def test_sections_of_the_same_machine_stay(tmp_path):
    path = tmp_path / "RESULTS.md"
    assert write_results(path, "# Head", "a", [Section("One", "1"), Section("Two", "2")]) == []
    assert write_results(path, "# Head", "a", [Section("Two", "3")]) == []
    assert path.read_text() == "# Head\n\n## Machine\n\na\n\n## One\n\n1\n\n## Two\n\n3\n"
    assert write_results(path, "# Head", "b", [Section("Two", "4")]) == ["One"]
    assert "## One" not in path.read_text()


def test_figures():
    assert [short(value) for value in (1234.5, 12.345, 0.012345)] == ["1234", "12.3", "0.0123"]
    assert spread([3.0, 1.0, 2.0]) == "2 (1 to 3)"
    assert table([{"a": "1", "b": "2"}, {"a": "3"}]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | - |"


def test_the_peak_covers_what_was_touched():
    before = peak_host_mib()
    block = np.ones(2**24)
    assert peak_host_mib() >= before
    assert peak_host_mib() > block.nbytes / 2**20


def test_the_results_commands_can_be_repeated_elsewhere():
    results = (ROOT / "benchmark" / "RESULTS.md").read_text(encoding="utf-8")
    commands = re.findall(r"`(python -m benchmark [^`]+)`", results)
    assert commands
    assert not [word for line in commands for word in line.split() if word.startswith("/")]


def test_the_readme_says_what_was_measured():
    results = (ROOT / "benchmark" / "RESULTS.md").read_text(encoding="utf-8")
    assert results.startswith(_HEAD.strip())
    sections = {text.partition("\n")[0]: rows_of(text) for text in results.split("\n## ")[1:]}
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\n", " ")
    body = {(row["precision"], row["box"], row["method"]): row for row in sections["Whole body: default, 1 flip"]}
    patch = {row["precision"]: row for row in sections["One patch"] if row["patch"] == "128x128x64"}
    ours = body["bfloat16", "on", "product"]
    assert (
        f"400x400x326 voxels takes {float(ours['end to end (s)']):.0f} s from files to mask without flips, with "
        f"{float(ours['above the inputs (GiB)']):.1f} GiB of memory above the inputs"
    ) in readme
    product, plain = (
        {precision: float(row[name].split()[0]) for precision, row in patch.items()}
        for name in ("product (s)", "plain, memory reused (s)")
    )
    assert (
        f"window takes {product['bfloat16']:.1f} s (bfloat16; float32 {product['float32']:.1f} s), the plain "
        f"network with the same allocator {plain['bfloat16']:.1f} s (float32 {plain['float32']:.1f} s)"
    ) in readme


@pytest.mark.parametrize("part", PARTS)
def test_a_row_tells_its_command_where_there_are_no_patients(no_data, part):
    options = console.Parser(prog="benchmark")
    add_arguments(options)
    session = SimpleNamespace(
        options=options.parse_args(
            [part, "--size", "9", "8", "7"] if part == "scoring" else [part, "--weights", "/w.json"]
        )
    )
    words = command(session, part, device="cpu").strip("`").split()
    assert words[:4] == ["python", "-m", "benchmark", part]
    assert "--cases" not in words
    assert words[-2:] == ["--device", "cpu"]
    repeated = options.parse_args(words[3:])
    assert vars(repeated) == {**vars(session.options), "device": "cpu"}


@pytest.mark.parametrize("part", sorted({*PARTS} - {"patch", "scoring"}))
def test_a_row_of_a_body_names_the_body_in_its_command(part):
    options = console.Parser(prog="benchmark")
    add_arguments(options)
    words = [part, "--size", "9", "8", "7", "--spacing", "4", "5", "6", "--anatomies", "/a"]
    session = SimpleNamespace(options=options.parse_args(words))
    repeated = options.parse_args(command(session, part).strip("`").split()[3:])
    assert vars(repeated) == vars(session.options)


def test_a_folder_here_is_named_as_it_is_found_in_another_clone(monkeypatch, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "bodies").symlink_to(tmp_path / "kept")
    monkeypatch.chdir(tmp_path / "here")
    options = console.Parser(prog="benchmark")
    add_arguments(options)
    session = SimpleNamespace(options=options.parse_args(["flips", "--bodies", "bodies"]))
    assert session.options.bodies == str(tmp_path / "here" / "bodies")
    assert "--bodies bodies" in command(session, "flips")


def test_flips_are_measured_in_what_the_product_computes_in():
    def session(*precisions):
        return SimpleNamespace(precisions=lambda device: precisions)

    assert own_precision(session("float32", "float16", "bfloat16"), "cuda") == "float16"
    assert own_precision(session("float32", "bfloat16"), "cpu") == "bfloat16"
    assert own_precision(session("float16", "bfloat16"), "cuda") == "float16"


def test_a_patch_is_measured_and_written_where_there_are_no_patients(no_data, quick, tiny, tmp_path):
    (row,) = rows_of(run_parts(["patch"], tiny, tmp_path, "--patch", *PATCH))
    assert row["command"].startswith("`python -m benchmark patch --weights ")
    assert "--cases" not in row["command"]


def test_agreement_without_patients_is_that_of_the_body(no_data, quick, tiny, tmp_path):
    options = ("--precision", "float32", "bfloat16", "--flips", 1)
    (row,) = rows_of(run_parts(["agreement"], tiny, tmp_path, *options))
    assert row["cases"] == "the body"


def test_focused_flips_are_compared_with_flips_everywhere(no_data, quick, tiny, tmp_path):
    text = run_parts(["flips"], tiny, tmp_path, "--flips", 2)
    (row,) = rows_of(text)
    assert row["body"] == "the body"
    assert 0 <= int(row["of each flip"]) <= int(row["windows"])
    assert float(row["identity (s)"]) > 0
    assert float(row["Dice"]) >= float(row["Dice without flips"]) > 0
    found, count = map(int, row["lesions found"].split(" of "))
    assert found <= count
    assert "Median share of windows" in text


def test_flips_are_measured_on_the_bodies_of_a_tree(no_data, quick, tiny, tmp_path):
    study = tmp_path / "bodies" / "someone" / "study"
    study.mkdir(parents=True)
    torso = TORSO()
    for name, image in (("CTres", torso.ct), ("SUV", torso.pet)):
        sitk.WriteImage(image, str(study / f"{name}.nii.gz"))
    (row,) = rows_of(run_parts(["flips"], tiny, tmp_path, "--flips", 1, "--bodies", tmp_path / "bodies"))
    assert row["body"] == "someone_study"
    assert (row["of each flip"], row["Dice"], row["lesions beside them"]) == ("0", "1.0000", "0")


def test_a_device_that_is_not_there_is_a_sentence(quick, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(process, "measure_once", lambda task: {"cuda": False, "threads": 2, "GPU": "no GPU here"})
    assert main(["patch", "--device", "cuda", "--out", str(tmp_path / "out.md")]) == 3
    assert capsys.readouterr().err == "Error: --device cuda: no GPU here; choose another\n"
