"""What users do wrong, by name: exit code, words, and what lies in the output afterwards.

``pytest -s test/test_mistakes.py`` prints the table. The mistakes with images are in ``test/support/odd_inputs.py``.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

import algorithm.__main__
import evaluation.__main__
import synthesis.__main__
import training.__main__
from algorithm.files import claimed
from algorithm.job import Segmenter
from test.support.phantom import CT_NAME
from test.support.world import MASK_FOLDER, World, build_world

PROGRAMS = {
    "algorithm": algorithm.__main__.main,
    "evaluation": evaluation.__main__.main,
    "training": training.__main__.main,
    "synthesis": synthesis.__main__.main,
}
MASK = f"{MASK_FOLDER}/{CT_NAME}.mha"
Words = Callable[[World], list[str]]

DEEP = "[" * 100_000


@dataclass(frozen=True)
class Mistake:
    """One row: ``words`` spoils a world and returns the command line; ``left`` is what must lie in the output."""

    name: str
    program: str
    words: Words
    part: str
    code: int = 2
    left: frozenset[str] = field(default_factory=frozenset)


def row(program: str, name: str, words: Words, part: str, code: int = 2, left: Iterable[str] = ()) -> Mistake:
    return Mistake(name, program, words, part, code, frozenset(left))


algorithm_, evaluation_, training_, synthesis_ = (partial(row, program) for program in PROGRAMS)


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def socket_at(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path is short
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)
    return path


def link(path: Path) -> Path:
    path.symlink_to("notes.txt")
    return path


def broken_ct(w: World) -> World:
    w.put(f"input/images/ct/{CT_NAME}.mha", b"no image")
    return w


def small_memory(w: World, *more: object) -> list[str]:
    os.environ["GRAND_CHALLENGE_COMPONENT_MAX_MEMORY_MB"] = "100"
    return w.run(*more)


def earlier(w: World, words: list[str], kind: str = "job") -> list[str]:
    (w.earlier_job if kind == "job" else w.earlier_predict)()
    return words


def environment(words: list[str], **variables: str) -> list[str]:
    os.environ.update(variables)
    return words


RUN = [
    algorithm_("report is a device", lambda w: w.run("--report", "/dev/null"), "/dev/null is a device"),
    algorithm_("report is the full device", lambda w: w.run("--report", "/dev/full"), "/dev/full is a device"),
    algorithm_("report is a pipe", lambda w: w.run("--report", pipe(w / "p")), "is a named pipe"),
    algorithm_("report is a socket", lambda w: w.run("--report", socket_at(w / "s")), "is a socket"),
    algorithm_("report is a folder", lambda w: w.run("--report", w / "masks"), "is a folder and is left"),
    algorithm_("report is a link", lambda w: w.run("--report", link(w / "l.json")), "is a link"),
    algorithm_(
        "report is inputs.json",
        lambda w: w.run("--report", w.put("input/inputs.json", "[]")),
        "input/inputs.json",
    ),
    algorithm_(
        "report is the weights' JSON",
        lambda w: w.run("--report", w / "weights/tiny.json"),
        "is there already and is not a run report that this software wrote",
    ),
    algorithm_(
        "report is the weights", lambda w: w.run("--report", w / "weights/tiny.safetensors"), "is not a run report"
    ),
    algorithm_("report is somebody's text", lambda w: w.run("--report", w / "notes.txt"), "is not a run report"),
    algorithm_(
        "report is the CT",
        lambda w: w.run("--report", w / f"input/images/ct/{CT_NAME}.mha"),
        "would overwrite an input image",
    ),
    algorithm_("report is the mask", lambda w: w.run("--report", w.mask), "is the name of another result"),
    algorithm_(
        "report lies in the mask's folder",
        lambda w: w.run("--report", w.mask.with_name("r.json")),
        "lies where the platform expects this job's results alone",
    ),
    algorithm_(
        "report lies in another socket's folder",
        lambda w: w.run("--report", w.out / "images/other/r.json"),
        "lies where the platform expects",
    ),
    algorithm_(
        "report is the other socket",
        lambda w: w.run("--report", w.out / "data-centric-model.json"),
        "lies where the platform expects",
    ),
    algorithm_(
        "report lies among the inputs", lambda w: w.run("--report", w / "input/r.json"), "lies in the input folder"
    ),
    algorithm_("report lies in a file", lambda w: w.run("--report", w / "notes.txt/r.json"), "not a folder"),
    algorithm_("report's name is too long", lambda w: w.run("--report", w / ("r" * 300)), "File name too long"),
    algorithm_("report's name has a null", lambda w: w.run("--report", "a\0b"), "is not valid UTF-8 text"),
    algorithm_("report's name is Latin-1", lambda w: w.run("--report", "caf\udce9"), "is not valid UTF-8 text"),
    algorithm_("picture is a device", lambda w: w.run("--picture", "/dev/zero"), "/dev/zero is a device"),
    algorithm_(
        "picture is somebody's", lambda w: w.run("--picture", w.put("p.png", b"\x89PNG...")), "is not a picture"
    ),
    algorithm_("picture is a .jpg", lambda w: w.run("--picture", w / "p.jpg"), "must be named .png"),
    algorithm_(
        "picture is the report",
        lambda w: w.run("--picture", w / "p.png", "--report", w / "p.png"),
        "is the name of another result",
    ),
    algorithm_("output is a file", lambda w: w.run("--output", w / "notes.txt"), "cannot write to"),
    algorithm_(
        "output cannot be made", lambda w: w.run("--output", "/proc/nowhere"), "cannot write to /proc/nowhere"
    ),
    algorithm_(
        "output holds somebody's mask",
        lambda w: (w.put(f"out/{MASK_FOLDER}/x.mha", (w / "masks/a.mha").read_bytes()), w.run())[1],
        "must hold nothing but the mask",
        left={f"{MASK_FOLDER}/x.mha"},
    ),
    algorithm_(
        "somebody's mask has the mask's name",
        lambda w: (w.put(f"out/{MASK}", (w / "masks/a.mha").read_bytes()), w.run())[1],
        "is not a tumour mask that this software wrote",
        left={MASK},
    ),
    algorithm_(
        "somebody's file has the other socket's name",
        lambda w: (w.put("out/data-centric-model.json", '{"mine": 1}'), w.run())[1],
        "is not a JSON value that this software wrote",
        left={"data-centric-model.json"},
    ),
    algorithm_(
        "earlier results, then a broken CT",
        lambda w: earlier(w, broken_ct(w).run("--report", w.out / "report.json")),
        "cannot read the CT",
    ),
    algorithm_(
        "earlier results, then no weights",
        lambda w: earlier(w, w.run(weights=w / "none")),
        "no weights",
        3,
        {"report.json"},
    ),
    algorithm_(
        "earlier results, then a wrong option",
        lambda w: earlier(w, w.run("--report", w.out / "report.json", "--overlap", 2)),
        "--overlap must be",
    ),
    algorithm_(
        "earlier results, then no input",
        lambda w: earlier(w, w.run("--report", w.out / "report.json", "--input", w / "none")),
        "no CT image found",
    ),
    algorithm_(
        "litter of a killed run",
        lambda w: (w.put("out/.partial-0123456789ab-x.mha", "half"), broken_ct(w).run())[1],
        "cannot read the CT",
    ),
    algorithm_("too little memory", small_memory, "but only 0.1 GiB may be used"),
    algorithm_(
        "too little memory, an empty mask is wanted",
        lambda w: small_memory(w, "--on-error", "empty-mask"),
        "no tumour was looked for, and the mask is empty",
        0,
        {MASK, "data-centric-model.json"},
    ),
    algorithm_(
        "too little time, an empty mask is wanted",
        lambda w: w.run("--on-error", "empty-mask", "--time-limit", 0.01, time_limit=True),
        "no tumour was looked for",
        0,
        {MASK, "data-centric-model.json"},
    ),
    algorithm_(
        "broken CT, an empty mask is wanted",
        lambda w: broken_ct(w).run("--on-error", "empty-mask"),
        "cannot read the CT",
    ),
    algorithm_(
        "no weights, an empty mask is wanted",
        lambda w: w.run("--on-error", "empty-mask", weights=w / "none"),
        "no weights found",
        3,
    ),
    algorithm_(
        "--on-error has another value", lambda w: w.run("--on-error", "ignore"), "invalid choice: 'ignore'"
    ),
    algorithm_(
        "--on-error has another value in the environment",
        lambda w: environment(w.run(), H2ASEG_ON_ERROR="maybe"),
        "H2ASEG_ON_ERROR must be one of fail, empty-mask",
    ),
    algorithm_(
        "a variable is no text",
        lambda w: environment(w.run(), H2ASEG_REPORT="caf\udce9"),
        "the argument H2ASEG_REPORT=caf",
    ),
    algorithm_(
        "a GPU on a machine without one, an empty mask is wanted",
        lambda w: w.run("--on-error", "empty-mask", "--device", "cuda:99"),
        "",
        3,
    ),
    algorithm_("port out of range", lambda w: ["serve", *w.run()[1:], "--port", "99999"], "cannot listen on"),
    algorithm_("port is negative", lambda w: ["serve", *w.run()[1:], "--port", "-1"], "cannot listen on"),
    algorithm_("host is nonsense", lambda w: ["serve", *w.run()[1:], "--host", "no.such."], "cannot listen on"),
    algorithm_(
        "server without weights",
        lambda w: ["serve", *w.run(weights=w / "none")[1:], "--port", "0"],
        "no weights",
        3,
    ),
]

PREDICT = [
    algorithm_(
        "somebody's tumour.nii.gz",
        lambda w: (w.put("out/tumour.nii.gz", b"mine"), w.predict())[1],
        "is not a tumour mask that this software wrote",
        left={"tumour.nii.gz"},
    ),
    algorithm_(
        "somebody's report.json",
        lambda w: (w.put("out/report.json", "{}"), w.predict())[1],
        "is not a run report that this software wrote",
        left={"report.json"},
    ),
    algorithm_(
        "somebody's report.html",
        lambda w: (w.put("out/report.html", "<html>"), w.predict())[1],
        "is not a page that this software wrote",
        left={"report.html"},
    ),
    algorithm_(
        "earlier results, then a broken CT (predict)",
        lambda w: earlier(w, broken_ct(w).predict(), "predict"),
        "cannot read the CT",
    ),
    algorithm_(
        "earlier results, then no weights (predict)",
        lambda w: earlier(w, w.predict("--weights", w / "none"), "predict"),
        "no weights found",
        3,
    ),
    algorithm_(
        "earlier results, then a wrong option (predict)",
        lambda w: earlier(w, w.predict("--flips", 9), "predict"),
        "--flips must lie between",
    ),
    algorithm_(
        "earlier results and somebody's file, then a broken CT",
        lambda w: (w.put("out/mine.txt", "x"), earlier(w, broken_ct(w).predict(), "predict"))[1],
        "cannot read the CT",
        left={"mine.txt"},
    ),
    algorithm_("report is a device (predict)", lambda w: w.predict("--report", "/dev/null"), "is a device"),
    algorithm_(
        "litter of a killed run (predict)",
        lambda w: (w.put("out/.partial-0123456789ab-tumour.nii.gz", "half"), broken_ct(w).predict())[1],
        "cannot read the CT",
    ),
    algorithm_(
        "output is a device", lambda w: [*w.predict()[:3], "/dev/null", *w.predict()[4:]], "cannot write to"
    ),
]

DESCRIPTIONS = [
    algorithm_(f"description: {name}", lambda w, change=change: w.description(change), part, 3)
    for name, change, part in [
        (
            "mcsa is a text",
            lambda c: c["architecture"].update(mcsa="no"),
            "architecture.mcsa must be true or false",
        ),
        (
            "tamw is a number",
            lambda c: c["architecture"].update(tamw=1),
            "architecture.tamw must be true or false",
        ),
        ("nested deeply", DEEP, "is not JSON: "),
        ("objects nested deeply", '{"a":' * 50_000 + "1" + "}" * 50_000, "is not JSON: "),
        ("NaN", '{"threshold": NaN}', "NaN is no number of JSON"),
        ("a number beyond doubles", '{"threshold": 1e999}', "out of range"),
        ("a number of 5000 digits", '{"threshold": ' + "9" * 5000 + "}", "out of range"),
        (
            "a fraction of a voxel",
            lambda c: c.update(patch=[32.5, 32, 16]),
            "patch must be a list of whole numbers",
        ),
        ("a huge patch", lambda c: c.update(patch=[2**20, 2**20, 2**20]), "sides of at most 4096 voxels"),
        (
            "huge channels",
            lambda c: c["architecture"].update(channels=[10**12] * 5),
            "five numbers from 1 to 4096",
        ),
        ("no channels", lambda c: c["architecture"].update(channels=[]), "channels must be five numbers"),
        ("a huge spacing", lambda c: c.update(spacing=[1e30, 1, 1]), "of at most 100 mm"),
        ("a negative spacing", lambda c: c.update(spacing=[-1, 1, 1]), "three positive numbers"),
        ("an unknown key", lambda c: c["postprocessing"].update(magic=1), "postprocessing has unknown keys magic"),
        ("a text for a number", lambda c: c["postprocessing"].update(suv_floor="2"), "suv_floor must be a number"),
        ("a null character", '{"name": "a\\u0000b"}', "null character"),
        ("half a surrogate", '{"name": "\\ud800"}', "is not JSON"),
        ("Latin-1", '{"name": "é"}'.encode("latin-1"), "is not JSON"),
        ("empty", "", "is not JSON"),
        ("a list", "[]", "expected a JSON object"),
        ("a number for a name", lambda c: c.update(name=5), "name must be a text"),
        ("a threshold of 2", lambda c: c.update(threshold=2), "threshold must lie between 0 and 1"),
        ("two MiB", '{"name": "' + "a" * 2**21 + '"}', "more than 1 are not taken"),
        ("another format", lambda c: c.update(format=9), "format must be 1, got 9"),
        ("no architecture", lambda c: c.pop("architecture"), "missing key 'architecture'"),
        ("other weights", lambda c: c.update(sha256="0" * 64), "do not belong together"),
    ]
]

WEIGHTS = [
    algorithm_(
        "description is a pipe",
        lambda w: ["weights", "verify", str(pipe(w / "weights/tiny.json"))],
        "it is no regular file",
        3,
    ),
    algorithm_(
        "weights are a pipe",
        lambda w: (pipe(w / "weights/tiny.safetensors"), ["weights", "verify", str(w / "weights/tiny.json")])[1],
        "is no regular file",
        3,
    ),
    algorithm_(
        "description is a folder",
        lambda w: ((w / "d.json").mkdir(), ["weights", "verify", str(w / "d.json")])[1],
        "it is no regular file",
        3,
    ),
    algorithm_(
        "weights are imported over their description",
        lambda w: [
            *("weights", "import", str(w.put("weights/tiny.pth", "x")), "--force"),
            *("--description", str(w / "weights/tiny.json"), "--out", str(w / "weights")),
        ],
        "is what the checkpoint is made from",
    ),
]

SCORING = [
    evaluation_("json is a truth", lambda w: w.score("--json", w / "truth/a.mha"), "is not a metrics.json that"),
    evaluation_("json is a mask", lambda w: w.score("--json", w / "masks/a.mha"), "is not a metrics.json that"),
    evaluation_("json is a device", lambda w: w.score("--json", "/dev/null"), "is a device"),
    evaluation_("json is a pipe", lambda w: w.score("--json", pipe(w / "p")), "is a named pipe"),
    evaluation_("json is a folder", lambda w: w.score("--json", w / "masks"), "would overwrite an input"),
    evaluation_(
        "json is the single truth",
        lambda w: [
            "score",
            "--prediction",
            str(w / "masks/a.mha"),
            "--truth",
            str(w / "truth/a.mha"),
            "--json",
            str(w / "truth/a.mha"),
        ],
        "would overwrite an input",
    ),
    evaluation_(
        "csv is the list of cases",
        lambda w: w.score("--cases", w.put("c.csv", "case\na\n"), "--csv", w / "c.csv"),
        "would overwrite an input",
    ),
    evaluation_(
        "csv is somebody's", lambda w: w.score("--csv", w.put("x.csv", "a,b\n1,2\n")), "is not a table of scores"
    ),
    evaluation_(
        "json and csv are one", lambda w: w.score("--json", w / "x", "--csv", w / "x"), "two results have the name"
    ),
    evaluation_("json lies in a file", lambda w: w.score("--json", w / "notes.txt/m.json"), "not a folder"),
    evaluation_(
        "earlier metrics, then no masks",
        lambda w: (
            w.put("out/m.json", '{"edition": "III", "results": [], "aggregates": {}}'),
            w.score("--json", w.out / "m.json", "--prediction", w / "none"),
        )[1],
        "the prediction",
    ),
    evaluation_("tolerance is NaN", lambda w: w.score("--tolerance", "nan"), "--tolerance must be a length"),
    evaluation_("tolerance is infinite", lambda w: w.score("--tolerance", "inf"), "--tolerance must be a length"),
    evaluation_(
        "a folder and a file", lambda w: w.score("--truth", w / "truth/a.mha"), "two files or two folders"
    ),
    evaluation_(
        "folder without masks", lambda w: ((w / "none").mkdir(), w.score("--truth", w / "none"))[1], "no mask in"
    ),
]

TABLES = [
    evaluation_(f"list of cases: {name}", lambda w, text=text: w.score("--cases", w.put("c.csv", text)), part)
    for name, text, part in [
        ("null characters", "case\na\0\n", "null characters"),
        ("a column twice", "case,case\na,b\n", "has the column case twice"),
        ("semicolons", "case;truth\na;b\n", "unknown column case;truth"),
        ("empty", "", "has no rows"),
        ("headings alone", "case,truth\n", "has no rows"),
        ("Latin-1", "case\né\n".encode("latin-1"), "give a CSV in UTF-8"),
        ("UTF-16", "case\na\n".encode("utf-16"), "give a CSV in UTF-8"),
        ("a case twice", "case\na\na\n", "has the case a twice"),
        ("no name", "case,truth\n,a.mha\n", "gives no case"),
        ("an unknown column", "case,colour\na,red\n", "unknown column colour"),
        ("no such truth", "case,truth\na,none.mha\n", "no truth for the listed case a"),
        ("a field of a megabyte", "case\n" + "a" * 2**20 + "\n", "field larger than field limit"),
        ("a name too long for a file", "case,truth\na," + "b" * 5000 + ".mha\n", "File name too long"),
    ]
] + [
    evaluation_(
        "list of cases: a pipe", lambda w: w.score("--cases", pipe(w / "p.csv")), "there is no table of cases"
    ),
    evaluation_(
        "list of cases: a folder", lambda w: w.score("--cases", w / "masks"), "there is no table of cases"
    ),
]

JOBS = [
    evaluation_(f"predictions.json: {name}", lambda w, change=change: w.jobs(change), part)
    for name, change, part in [
        ("nested deeply", DEEP, "is not JSON"),
        ("an object", "{}", "it is not a list"),
        ("numbers", "[1, 2]", "an entry has no pk"),
        ("a pk that climbs", lambda c: c[0].update(pk="../truth"), "does not lie below the job's folder"),
        ("a pk that is absolute", lambda c: c[0].update(pk="/etc"), "does not lie below the job's folder"),
        ("a pk that is a number", lambda c: c[0].update(pk=7), "an entry has no pk"),
        ("a pk of two million letters", lambda c: c[0].update(pk="a" * 2_000_000), "does not lie below"),
        ("a job twice", lambda c: c.append(c[0]), "several jobs with the key 1a"),
        ("inputs are a text", lambda c: c[0].update(inputs="ct"), "lists no inputs or no outputs"),
        (
            "a duration of words",
            lambda c: c[0].update(exec_duration="soon"),
            "exec_duration: 'soon' is not a duration",
        ),
        ("NaN", "[NaN]", "NaN is no number of JSON"),
        ("empty", "", "is not JSON"),
        ("an unknown image", lambda c: c[0]["inputs"].clear(), "no truth in"),
    ]
] + [
    evaluation_(
        "somebody's metrics.json",
        lambda w: (w.put("out/metrics.json", '{"mine": 1}'), w.jobs(lambda c: None))[1],
        "is not a metrics.json that this software wrote",
        left={"metrics.json"},
    ),
    evaluation_(
        "earlier metrics.json, then a broken list",
        lambda w: (w.put("out/metrics.json", '{"edition": "V", "results": [], "aggregates": {}}'), w.jobs("{"))[1],
        "is not JSON",
    ),
    evaluation_("edition VI", lambda w: w.container("--edition", "VI"), "the edition must be one of"),
]

COMPARING = [
    evaluation_(
        "method without a name",
        lambda w: ["compare", "--truth", str(w / "truth"), "--prediction", str(w / "masks")],
        "NAME=",
    ),
    evaluation_(
        "markdown is somebody's README",
        lambda w: [
            "compare",
            "--truth",
            str(w / "truth"),
            "--prediction",
            f"a={w / 'masks'}",
            "--prediction",
            f"b={w / 'masks'}",
            "--markdown",
            str(w.put("README.md", "# Mine\n")),
        ],
        "is not a comparison that this software wrote",
    ),
    evaluation_(
        "negative seed",
        lambda w: ["compare", "--truth", str(w / "truth"), "--prediction", f"a={w / 'masks'}", "--seed", "-1"],
        "--seed must not be negative",
    ),
    evaluation_(
        "rank over its own table",
        lambda w: [
            "rank",
            "--prediction",
            f"a={w / 'scores.csv'}",
            "--edition",
            "II",
            "--csv",
            str(w / "scores.csv"),
        ],
        "would overwrite an input",
    ),
    evaluation_(
        "cohort over its own table",
        lambda w: ["cohort", "--scores", str(w / "scores.csv"), "--out", str(w / "scores.csv")],
        "would overwrite an input",
    ),
    evaluation_(
        "cohort over somebody's page",
        lambda w: ["cohort", "--scores", str(w / "scores.csv"), "--out", str(w.put("index.html", "<html>mine"))],
        "is not a cohort's page",
    ),
    evaluation_(
        "a score that is a word",
        lambda w: [
            "cohort",
            "--scores",
            str(w.put("s.csv", "case,dice\na,good\n")),
            "--out",
            str(w.out / "c.html"),
        ],
        "which is not a number",
    ),
    evaluation_(
        "lesions over a mask",
        lambda w: [
            "lesions",
            "--cases",
            str(w / "data"),
            "--prediction",
            str(w / "masks"),
            "--csv",
            str(w / "masks/a.mha"),
        ],
        "is not a table of lesions",
    ),
    evaluation_(
        "handover into a folder with files",
        lambda w: ["handover", "--cases", str(w / "data"), "--out", str(w / "masks"), "--device", "cpu"],
        "is not an empty folder",
    ),
    evaluation_(
        "handover with 0 flips",
        lambda w: ["handover", "--cases", str(w / "data"), "--out", str(w.out), "--flips", "0"],
        "--flips must lie between 1 and 8",
    ),
    evaluation_(
        "handover with an overlap of 2",
        lambda w: ["handover", "--cases", str(w / "data"), "--out", str(w.out), "--overlap", "2"],
        "--overlap must be at least 0 and below 1",
    ),
]

BUNDLES = [
    evaluation_(f"bundle: {name}", lambda w, change=change: w.manifest(change), part)
    for name, change, part in [
        ("no cases", lambda c: c.update(cases=[]), "it has no cases"),
        ("no weights", lambda c: c.update(weights=[]), "it names no weights"),
        ("nested deeply", DEEP, "is damaged"),
        ("empty manifest", "", "is damaged"),
        ("a list", "[]", "it must be an object"),
        ("flips of a million", lambda c: c["settings"].update(flips=10**6), "flips must lie between 1 and 8"),
        ("minus one thread", lambda c: c["settings"].update(threads=-1), "threads must lie between 1 and 1024"),
        ("a mask outside", lambda c: c["cases"][0].update(mask="/etc/passwd"), "/etc/passwd lies outside"),
        ("an input outside", lambda c: c["cases"][0]["pet"].update(path="../x"), "../x lies outside"),
        (
            "synthetic is a text",
            lambda c: c["cases"][0].update(synthetic="no"),
            "synthetic has a value of the wrong",
        ),
        ("an unknown key", lambda c: c.update(signed="me"), "its keys must be"),
    ]
] + [
    evaluation_("bundle: none", lambda w: w.verify(), "is not a hand-over bundle"),
    evaluation_(
        "bundle: tolerance is NaN", lambda w: w.verify("--tolerance", "nan"), "--tolerance must be a Dice"
    ),
]

TRAINING = [
    training_("out is a file", lambda w: w.fit("--out", w / "notes.txt"), "notes.txt"),
    training_("cache is a file", lambda w: w.fit("--cache", w / "notes.txt"), "notes.txt"),
    training_("no data", lambda w: w.fit("--cases", w / "none"), "does not exist"),
    training_("spacing is NaN", lambda w: w.fit("--spacing", "nan", 1, 1), "--spacing must be above 0"),
    training_("spacing is negative", lambda w: w.fit("--spacing", -1, 1, 1), "--spacing must be above 0"),
    training_("overlap of 1", lambda w: w.fit("--overlap", 1), "--overlap must be at least 0 and below 1"),
    training_("patch of 17", lambda w: w.fit("--patch", 17, 32, 32), "must be a multiple of 16"),
    training_("no workers", lambda w: w.fit("--workers", 0), "--workers must lie between 1 and"),
    training_("budget is NaN", lambda w: w.fit("--time-budget", "nan"), "--time-budget must be a positive"),
    training_("no steps", lambda w: w.fit("--steps", 0), "steps must be above 0"),
    training_("learning rate is NaN", lambda w: w.fit("--learning-rate", "nan"), "learning_rate must be above 0"),
    training_("share is NaN", lambda w: w.fit("--share", "nan"), "--share takes one positive number"),
    training_("LOCAL_RANK is a word", lambda w: environment(w.fit(), LOCAL_RANK="first"), "LOCAL_RANK must be"),
    training_("no such command", lambda w: ["train"], "the command must be one of"),
    training_(
        "resampling to 0 mm",
        lambda w: ["resampling", "--cases", str(w / "data"), "--spacing", "0", "1", "1"],
        "--spacing must be above 0",
    ),
]

SYNTHESIS = [
    synthesis_("no bodies", lambda w: w.synthesise("--count", 0), "must be at least 1, got 0"),
    synthesis_("spacing is NaN (bodies)", lambda w: w.synthesise("--spacing", "nan", 1, 1), "the spacing must be"),
    synthesis_("spacing of a nanometre", lambda w: w.synthesise("--spacing", 1e-6, 1, 1), "the spacing must be"),
    synthesis_("seed is negative", lambda w: w.synthesise("--seed", -1), "the seed must not be negative"),
    synthesis_("share is NaN (bodies)", lambda w: w.synthesise("--tumour-free", "nan"), "must be between 0 and 1"),
    synthesis_("no anatomies", lambda w: w.synthesise("--anatomy", w / "none"), "organs.nii.gz"),
    synthesis_("out is a file (bodies)", lambda w: w.synthesise("--out", w / "notes.txt"), "notes.txt"),
    synthesis_(
        "somebody's folder in a body's place",
        lambda w: (w.put("out/synthetic_0000/fdg_x/mine.txt", "x"), w.synthesise())[1],
        "is not a synthetic body",
        left={"synthetic_0000/fdg_x/mine.txt"},
    ),
    synthesis_(
        "a record that is none",
        lambda w: (w.put("out/synthetic_0000/fdg_x/lesions.json", "[]"), w.synthesise())[1],
        "is not the record of a body",
        left={"synthetic_0000/fdg_x/lesions.json"},
    ),
    synthesis_(
        "a record nested deeply",
        lambda w: (w.put("out/synthetic_0000/fdg_x/lesions.json", DEEP), w.synthesise())[1],
        "is not JSON",
        left={"synthetic_0000/fdg_x/lesions.json"},
    ),
]

MISTAKES = [
    *RUN,
    *PREDICT,
    *DESCRIPTIONS,
    *WEIGHTS,
    *SCORING,
    *TABLES,
    *JOBS,
    *COMPARING,
    *BUNDLES,
    *TRAINING,
    *SYNTHESIS,
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("world")
    build_world(top)
    return top


@pytest.fixture
def world(built: Path, tmp_path: Path) -> Iterator[World]:
    """A copy of the world, and the environment as it was afterwards."""
    before = {name: value for name, value in os.environ.items()}
    for name in before:
        if name.startswith(("H2ASEG_", "GRAND_CHALLENGE_")):
            del os.environ[name]
    shutil.copytree(built, tmp_path / "world")
    yield World(tmp_path / "world")
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def rows() -> Iterator[list[str]]:
    """Rows of the table, printed in the end."""
    told: list[str] = []
    yield told
    print("\n| Mistake | Program | Exit code | What is said | In the output |\n| --- | --- | --- | --- | --- |")
    print("\n".join(told))


def said_by(mistake: Mistake, world: World, capsys: pytest.CaptureFixture[str]) -> str:
    words = mistake.words(world)
    capsys.readouterr()
    assert PROGRAMS[mistake.program](words) == mistake.code
    out, err = capsys.readouterr()
    if mistake.code == 0:
        assert err == ""
        return " ".join(out.split())
    assert err.startswith("Error: "), err
    assert err.count("\n") == 1, err
    return err.strip().removeprefix("Error: ")


def before_and_after(world: World) -> dict[str, bytes]:
    """Return everything of the world but the results and the cache, by name."""
    files = (path for path in world.top.rglob("*") if path.is_file() and not path.is_relative_to(world.out))
    return {path.relative_to(world.top).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_mistake(mistake: Mistake, world: World, rows: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = mistake.words(world)
    before = before_and_after(world)
    spoilt = Mistake(mistake.name, mistake.program, lambda _: words, mistake.part, mistake.code, mistake.left)

    said = said_by(spoilt, world, capsys)

    assert mistake.part in said
    assert len(said) < 2100 or mistake.code == 0
    assert world.left() == mistake.left
    after = before_and_after(world)
    assert {name: after.get(name) for name in before} == before  # nothing that was there is lost or changed
    left = ", ".join(sorted(mistake.left)) or "nothing"
    rows.append(f"| {mistake.name} | {mistake.program} | {mistake.code} | {mistake.part} | {left} |")


def test_there_are_enough() -> None:
    names = [mistake.name for mistake in MISTAKES]
    assert len(set(names)) == len(names) >= 150


def test_a_second_run_is_refused(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (world.run(), world.predict()):
        with claimed(world.out):
            assert algorithm.__main__.main(words) == 2
        assert "another run is writing to" in capsys.readouterr().err
        assert world.left() == set()


def test_a_bug_becomes_an_empty_mask_where_that_is_wanted(world: World, monkeypatch, capsys) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(Segmenter, "segment", fail)

    assert algorithm.__main__.main(world.run()) == 1
    assert world.left() == set()
    capsys.readouterr()
    assert algorithm.__main__.main(world.run("--on-error", "empty-mask", "--report", world / "r.json")) == 0

    out, err = capsys.readouterr()
    assert err == ""
    assert "because this case failed: ZeroDivisionError: by zero" in out
    assert '"error": "ZeroDivisionError: by zero"' in (world / "r.json").read_text()
    assert world.left() == {MASK, "data-centric-model.json"}
