"""Rows of the table: mistakes of ``python -m algorithm``."""

from __future__ import annotations

from functools import partial

from test.support.mistake import (
    DEEP,
    MASK,
    algorithm_,
    broken_ct,
    earlier,
    environment,
    folder,
    link,
    pipe,
    small_memory,
    socket_at,
)
from test.support.phantom import CT_NAME
from test.support.world import MASK_FOLDER

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
    algorithm_("report's name has a null", lambda w: w.run("--report", "a\0b"), "holds a null byte"),
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
        "a server tunes for a negative time",
        lambda w: ["serve", *w.run()[1:], "--tune-s", "-1"],
        "--tune-s must be a number of seconds, 0 for no tuning, got -1",
    ),
    algorithm_(
        "a server shall write a tuning and not tune",
        lambda w: ["serve", *w.run("--tuning", w / "new.json")[1:], "--tune-s", "0"],
        "and --tune-s 0 makes none",
    ),
    algorithm_("no such tuning", lambda w: w.run("--tuning", w / "none.json"), "there is no tuning"),
    algorithm_(
        "the tuning is the weights' JSON",
        lambda w: w.run("--tuning", w / "weights/tiny.json"),
        "the file has unknown keys",
    ),
    algorithm_("the tuning is a text", lambda w: w.run("--tuning", w / "notes.txt"), "is not JSON"),
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
    algorithm_(f"description: {name}", partial(lambda change, w: w.description(change), change), part, 3)
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
        lambda w: ["weights", "verify", str(folder(w / "d.json"))],
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

ROWS = [*RUN, *PREDICT, *DESCRIPTIONS, *WEIGHTS]
