from __future__ import annotations

import csv
import re
import subprocess

import pytest

from benchmark import history
from benchmark.__main__ import main
from benchmark.parts import one_patch
from test.benchmark.conftest import PATCH, run_parts

ABOUT = {"cpu": "A, B", "gpu": "", "instruction_sets": "avx2", "threads": "2"}


def read(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_what_patch_measures_is_added(quick, no_data, tiny, tmp_path):
    path = tmp_path / "history.csv"
    words = ("--patch", *PATCH, "--record", "--history", path)
    run_parts(["patch"], tiny, tmp_path, *words)
    run_parts(["patch"], tiny, tmp_path, *words, "--precision", "float32", "bfloat16")
    rows = read(path)
    assert [row["precision"] for row in rows] == ["float32", "float32", "bfloat16"]
    assert path.read_text().count("date_utc") == 1
    for row in rows:
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", row["date_utc"])
        assert (row["patch"], row["device"], row["gpu"]) == ("32x32x16", "cpu", "")
        assert int(row["threads"]) >= 1
        assert float(row["ratio"]) == pytest.approx(float(row["plain_s"]) / float(row["product_s"]), rel=0.01)


def test_nothing_is_added_unasked(quick, no_data, tiny, tmp_path):
    run_parts(["patch"], tiny, tmp_path, "--patch", *PATCH, "--history", tmp_path / "history.csv")
    assert not (tmp_path / "history.csv").exists()


def test_plain_is_with_memory_reused_and_medians_are_kept():
    measured = one_patch._Measured("float32", [9.0], [4.0, 2.0, 3.0], [1.0, 2.0, 1.5], None)
    figures = history.figures("a", "cpu", "float32", one_patch._best_plain(measured), measured.product)
    assert (figures["plain_s"], figures["product_s"], figures["ratio"]) == ("3", "1.5", "2")
    assert one_patch._best_plain(one_patch._Measured("float16", [9.0], [], [1.0], None)) == [9.0]


def test_what_a_history_holds_stays(tmp_path):
    path = tmp_path / "history.csv"
    old = ",".join(history.COLUMNS) + "\n2020-01-01,abc,X,,,1,p,cpu,float32,3,1,3"  # its last line not ended
    path.write_text(old)
    history.append(path, ABOUT, [history.figures("p", "cpu", "float32", [2.0], [1.0])])
    assert path.read_text().startswith(old + "\n")
    first, second = read(path)
    assert (first["commit"], second["cpu"], second["ratio"]) == ("abc", "A, B", "2")


@pytest.mark.parametrize("content", [b"date,commit\n1,2\n", b"\xff\xfe"])
def test_another_file_is_refused_before_anything_is_measured(tmp_path, capsys, content):
    path = tmp_path / "other.csv"
    path.write_bytes(content)
    assert main(["patch", "--record", "--history", str(path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("Error: ")
    assert message.count("\n") == 1
    assert str(path) in message
    assert path.read_bytes() == content


def test_what_cannot_be_recorded_is_refused_before_anything_is_measured(tmp_path, capsys):
    path = tmp_path / "history.csv"
    assert main(["scoring", "flips", "--record", "--history", str(path)]) == 2
    assert capsys.readouterr().err == (
        "Error: --record adds what patch and gpu measure, got scoring, flips; "
        "name one of them too, or leave --record out\n"
    )
    assert not path.exists()


@pytest.fixture
def checkout(tmp_path):
    """A git checkout with one commit."""
    (tmp_path / "benchmark").mkdir()
    for name in ("code.py", "benchmark/history.csv"):
        (tmp_path / name).write_text("1\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def test_the_commit_tells_whether_files_differ(checkout):
    clean = history.commit(checkout)
    assert re.fullmatch(r"[0-9a-f]{10,}", clean)
    (checkout / "benchmark/history.csv").write_text("2\n")  # what recording itself writes is no change of the code
    assert history.commit(checkout) == clean
    (checkout / "code.py").write_text("2\n")
    assert history.commit(checkout) == clean + "+"


def test_outside_a_checkout_there_is_no_commit(checkout, tmp_path_factory, monkeypatch):
    inside = checkout / "unpacked"
    inside.mkdir()
    assert history.commit(inside) == ""  # of another project's checkout
    assert history.commit(tmp_path_factory.mktemp("nowhere")) == ""
    monkeypatch.setenv("PATH", str(inside))
    assert history.commit(checkout) == ""  # without git
