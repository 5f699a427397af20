from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from algorithm.errors import DeviceError
from algorithm.inference import predictor
from algorithm.inference.execution import Execution
from algorithm.inference.passes import Pass
from benchmark import case, device_memory, process, subjects, tuned
from benchmark.__main__ import main
from benchmark.parts import GPU, PARTS, clock, gpu_rows
from benchmark.parts.clock import CUT_OFF, FAILED, NO_TIME, Clock
from benchmark.parts.gpu import _TABLES
from benchmark.parts.gpu_rows import NO_CAP, Tables
from benchmark.results import OF_A_GPU, Section, write_results
from benchmark.run import _chosen
from test.benchmark.conftest import PATCH, SIZE, SPACING, rows_of, run_parts

TITLES = [each.title for each in _TABLES]


@pytest.fixture
def small(monkeypatch):
    """The release's patch is no larger than the tiny checkpoint's, and tuning is over soon."""
    monkeypatch.setattr(subjects, "RELEASED_PATCH", PATCH)
    monkeypatch.setattr(gpu_rows, "_TUNING_S", 0.2)


def tables_of(text):
    """The rows of each table of the section, by its title."""
    section = text.rpartition("\n## ")[2]
    return {title: rows_of(f"\n## {body}") for title, _, body in
            (part.partition("\n") for part in section.split("\n### ")[1:])}  # fmt: skip


def test_a_cpu_rehearses_all_that_it_has(quick, no_data, small, tiny, tmp_path):
    text = run_parts([GPU], tiny, tmp_path, "--patch", *PATCH)
    tables = tables_of(text)
    assert list(tables) == TITLES
    assert "\n## A CPU in place of a GPU\n" in text
    assert not any(reason in text for reason in (NO_TIME, CUT_OFF, FAILED))
    assert "--minutes 9.5 --device cpu`" in text
    (best,), (patch,) = tables["What the device does at its best"], tables["One patch"]
    assert float(best["copies (GB/s)"].replace(",", "")) > 0
    assert float(patch["plain / product"]) > 0
    bodies = tables["Whole body"]
    assert [(row["setting"], row["flips"], row["method"]) for row in bodies] == [
        ("default", "1", "product"), ("default", "8", "product"), ("released", "1", "product"),
        ("released", "8", "product"), ("default", "1", "MONAI, plain"), ("released", "1", "MONAI, plain"),
    ]  # fmt: skip
    assert float(bodies[4]["times the product"]) > 0
    ladder = tables["Windows at a time"]
    assert [row["windows at a time"] for row in ladder] == ["1", "2"] * 2
    assert {row["held"] for row in ladder} == {"yes"}
    assert [row["cap (GiB)"] for row in tables["Less device memory"]] == [NO_CAP] * 2
    assert tables["Agreement with the CPU"] == [{"case": "the body", "float32": "1.0000"}]
    tried = tables["Tuning"]
    assert {row["setting"] for row in tried} == {"default", "released"}
    assert sum("chosen" in row["verdict"] for row in tried) == 2
    switched = tables["With and without"]
    assert [(row["CUDA graph"], row["Dice with the first"]) for row in switched] == [("off", "1.0000")] * 2


def test_what_does_not_fit_is_named_in_every_table(quick, no_data, small, tiny, tmp_path):
    tables = tables_of(run_parts([GPU], tiny, tmp_path, "--minutes", 1e-6))
    assert list(tables) == TITLES
    for rows in tables.values():
        assert all(NO_TIME in row.values() for row in rows)


def test_real_pairs_are_compared_too(tmp_path):
    compared = []
    tables = Tables(
        SimpleNamespace(files=lambda setting: dict.fromkeys(("weights", "ct", "pet"), setting),
                        precisions=lambda device: ("float32", "float16")),
        "cuda", Clock(1.0), [("a", "ct", "pet")],
    )  # fmt: skip
    tables.clock.begin("here", 1.0)

    def measure(task, *, cases, precisions, reference, **_):
        compared.append((task, reference))
        return {each: {cases[0][0]: 0.5} for each in precisions}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(process, "measure_once", measure)
        rows = tables.agreement()
    assert [row["case"] for row in rows] == ["the body", "a"]
    assert rows[1]["float16"] == "0.5000"
    assert set(compared) == {("agreement:agreement", "cpu")}


class Answers:
    """Stands for the measuring processes of a GPU: says how it was asked, and answers like one of 24 GiB."""

    def __init__(self):
        self.asked = []

    def __call__(self, task, **arguments):
        steps = iter(arguments.get("batches") or arguments.get("shares") or arguments.get("switches"))
        self.asked.append((task, arguments))
        return SimpleNamespace(
            __enter__=None, wait_until_ready=lambda: None, measure=lambda: self.answer(task, next(steps))
        )

    @staticmethod
    def answer(task, step):
        compared = {"predict_s": 2.0, "dice": 1.0, "differing": 0}
        match task:
            case "device_memory:ladder":
                memory = {"used_mib": 1024.0 * step, "taken_mib": 2048.0 * step}
                return {"window_s": 0.1, "batch": min(step, 8), **memory}
            case "device_memory:capped" if step == 0.1:
                return {"cap_mib": 1024.0, "refused": "the device's memory does not hold one window"}
            case "device_memory:capped":
                notes = ["the CT was resampled", "the device's memory is too small; 4 windows at a time are used"]
                return {"cap_mib": step and 10240 * step, "taken_mib": 512.0, "notes": notes, **compared}
        return {"failed": "no graph"} if step["cuda_graph"] else compared


@pytest.fixture
def on_gpu(monkeypatch):
    """Tables as on a GPU, whose processes are stood for."""
    answers = Answers()

    class Child:
        def __init__(self, task, **arguments):
            self.stand_in = answers(task, **arguments)

        def __enter__(self):
            return self.stand_in

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(process, "Child", Child)
    session = SimpleNamespace(
        files=lambda setting: {"weights": setting, "ct": "ct", "pet": "pet"},
        precisions=lambda device: ("float32", "float16", "bfloat16"),
    )
    tables = Tables(session, "cuda", Clock(1.0), [])
    tables.clock.begin("here", 1.0)
    return tables, answers


def test_the_ladder_ends_where_the_memory_does(on_gpu):
    tables, answers = on_gpu
    rows = [row for row in tables.ladder() if row["setting"] == "default"]
    assert [row["windows at a time"] for row in rows] == ["1", "2", "4", "8", "16"]
    assert rows[-1]["held"] == "no, 8 at a time instead"
    assert (rows[3]["peak in use (GiB)"], rows[3]["peak taken (GiB)"]) == ("8.00", "16.00")
    assert {arguments["precision"] for _, arguments in answers.asked} == {"float16"}


def test_less_memory_shows_the_steps_and_the_mask(on_gpu):
    tables, _ = on_gpu
    rows = [row for row in tables.capped() if row["setting"] == "default"]
    assert [row["cap (GiB)"] for row in rows] == ["none", "7.50", "5.00", "2.50", "1.00"]
    assert rows[1]["steps taken"] == "4 windows at a time are used"
    assert (rows[1]["Dice with the first"], rows[1]["voxels that differ"]) == ("1.0000", "0")
    assert rows[-1]["passes (s)"] == "refused: the device's memory does not hold one window"


def test_graphs_and_cudnns_benchmark_are_tried_with_and_without(on_gpu):
    tables, _ = on_gpu
    rows = [row for row in tables.switches() if row["setting"] == "default"]
    assert [(row["CUDA graph"], row["cuDNN's benchmark"], row["passes (s)"]) for row in rows] == [
        ("off", "off", "2"), ("off", "on", "2"),
        ("on", "off", "failed: no graph"), ("on", "on", "failed: no graph"),
    ]  # fmt: skip


def test_a_process_that_ends_midway_leaves_the_rows_before(on_gpu, monkeypatch):
    tables, _ = on_gpu
    answer = Answers.answer

    def ends(task, step):
        if step == 4:
            raise process.OutOfTimeError("late")
        return answer(task, step)

    monkeypatch.setattr(Answers, "answer", staticmethod(ends))
    rows = [row for row in tables.ladder() if row["setting"] == "released"]
    assert [row["windows at a time"] for row in rows] == ["1", "2", "further"]
    assert rows[-1]["s/window"] == CUT_OFF


@pytest.fixture
def files(quick, tiny, tmp_path):
    """A checkpoint and a body, as tasks take them."""
    case.write_body(str(tmp_path), SIZE, SPACING, None, [1])()
    return {"weights": str(tiny), "ct": str(tmp_path / "ct_1.mha"), "pet": str(tmp_path / "pet_1.mha")}


@pytest.fixture
def full(monkeypatch):
    """A device that holds so many windows as this list's only number says, and begins with eight."""
    holds, compute = [8], Pass.compute

    def computed(self, starts):
        if self.how.batch > holds[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(self, starts)

    def fastest(device, dtype):
        return Execution(device, dtype, 8, store=device)

    monkeypatch.setattr(Pass, "compute", computed)
    monkeypatch.setattr(predictor.Execution, "fastest", staticmethod(fastest))
    return holds


def test_a_cap_makes_the_product_take_its_steps_and_the_mask_stays(files, full, monkeypatch):
    capped_to = []

    def cap(device, mib):
        capped_to.append(mib)
        full[0] = int(mib / 25)

    monkeypatch.setattr(device_memory, "cap", cap)
    monkeypatch.setattr(device_memory, "taken_mib", lambda device: 200.0)
    measure = device_memory.capped(**files, precision="float32", device="cpu", shares=[None, 0.5, 0.25, 0.0])
    first, half, quarter, nothing = (measure() for _ in range(4))
    assert capped_to == [100.0, 50.0, 0.0]
    assert first["notes"] == []
    assert [note.rpartition("; ")[2] for note in quarter["notes"]] == [
        "4 windows at a time are used", "2 windows at a time are used",
    ]  # fmt: skip
    for answer in (first, half, quarter):
        assert answer["dice"] > 0.999
    assert "does not hold one window" in nothing["refused"]


def test_the_ladder_tells_what_was_used_instead(files, full):
    full[0] = 2
    measure = device_memory.ladder(files["weights"], "float32", "cpu", [1, 2, 4])
    answers = [measure() for _ in range(3)]
    assert [answer["batch"] for answer in answers] == [1, 2, 2]
    assert answers[0]["used_mib"] is None
    assert all(answer["window_s"] > 0 for answer in answers)


def test_a_way_that_fails_is_a_reason(files, monkeypatch):
    def fails(self, tuning):
        raise RuntimeError("CUDA error: not permitted\nCompile with ...")

    monkeypatch.setattr(predictor.Predictor, "use", fails)
    switches = [{"cuda_graph": True, "cudnn_benchmark": False}]
    measure = tuned.ways(**files, precision="float32", device="cpu", tuning=None, switches=switches)
    assert measure() == {"failed": "CUDA error: not permitted"}


def test_what_a_table_leaves_over_the_next_may_use(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: now[0]))
    shared = Clock(minutes=1)
    shared.begin("one", 0.5)
    now[0] += 10
    assert shared.left_s == pytest.approx(20)
    shared.begin("two", 0.25)
    assert shared.left_s == pytest.approx(35)
    now[0] += 40
    assert shared.tried(lambda: 1) == NO_TIME


def test_a_process_that_fails_is_a_reason_and_no_end():
    shared = Clock(minutes=1)
    shared.begin("one", 1.0)
    assert shared.tried(lambda: process.measure_once("results:nothing")) == FAILED
    assert shared.tried(lambda: 3) == 3


def test_processes_are_ended_when_their_time_is_up():
    began = time.monotonic()
    with process.within(0.3), pytest.raises(process.OutOfTimeError):
        process.measure_once("machine:peaks", device="cpu", precision="float32")
    assert time.monotonic() - began < 10
    with process.within(60):
        assert "CPU" in process.measure_once("machine:describe")


def test_without_a_gpu_there_is_one_sentence(monkeypatch, tmp_path, capsys):
    machine = {"cuda": False, "threads": 2, "GPU": "no GPU here"}
    monkeypatch.setattr(process, "measure_once", lambda task: dict(machine))
    assert main([GPU, "--out", str(tmp_path / "out.md")]) == DeviceError.exit_code
    assert capsys.readouterr().err == (
        "Error: no usable GPU was found to measure; run `gpu` where there is one, or add --device cpu\n"
    )
    assert not (tmp_path / "out.md").exists()


@pytest.mark.parametrize(
    ("devices", "parts", "chosen"),
    [
        (["cpu"], [], [name for name in PARTS if name != GPU]),
        (["cpu", "cuda"], [], list(PARTS)),
        (["cpu", "cuda"], [GPU], [GPU]),
    ],
)
def test_a_gpu_is_measured_unasked_where_there_is_one(devices, parts, chosen):
    session = SimpleNamespace(devices=devices, options=SimpleNamespace(parts=parts, device=None))
    assert _chosen(session) == chosen


def test_sections_of_a_gpu_stay_beside_those_of_another_machine(tmp_path):
    path, of_gpu = tmp_path / "RESULTS.md", OF_A_GPU + "X"
    write_results(path, "# Head", "cpu", [Section("One", "1")])
    assert write_results(path, "# Head", "gpu's", [Section(of_gpu, "2")]) == []
    assert path.read_text() == f"# Head\n\n## Machine\n\ncpu\n\n## One\n\n1\n\n## {of_gpu}\n\n2\n"
    assert write_results(path, "# Head", "gpu's", [Section("One", "3")]) == []
    assert f"## {of_gpu}" in path.read_text()
    assert write_results(path, "# Head", "third", [Section("Two", "4")]) == ["One"]
    assert "## Machine\n\nthird\n" in path.read_text()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_measured(no_data, tiny, tmp_path):
    words = ["--size", *SIZE, "--spacing", *SPACING, "--patch", *PATCH, "--repetitions", 1, "--minutes", 4]
    out = tmp_path / "RESULTS.md"
    assert main([str(word) for word in [GPU, "--weights", tiny, "--out", out, *words]]) == 0
    assert FAILED not in out.read_text()
