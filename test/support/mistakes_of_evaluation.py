"""Rows of the table: mistakes of ``python -m evaluation``."""

from __future__ import annotations

from functools import partial

from test.support.mistake import DEEP, evaluation_, folder, pipe

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
    evaluation_("folder without masks", lambda w: w.score("--truth", folder(w / "none")), "no mask in"),
]

TABLES = [
    evaluation_(
        f"list of cases: {name}", partial(lambda text, w: w.score("--cases", w.put("c.csv", text)), text), part
    )
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
        "list of cases: a folder", lambda w: w.score("--cases", w / "masks"), "must be a CSV, got the folder"
    ),
]

JOBS = [
    evaluation_(f"predictions.json: {name}", partial(lambda change, w: w.jobs(change), change), part)
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
        "--flips must lie between 1 (no mirroring) and 8",
    ),
    evaluation_(
        "handover with an overlap of 2",
        lambda w: ["handover", "--cases", str(w / "data"), "--out", str(w.out), "--overlap", "2"],
        "--overlap must be at least 0 and below 1",
    ),
]

BUNDLES = [
    evaluation_(f"bundle: {name}", partial(lambda change, w: w.manifest(change), change), part)
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

ROWS = [*SCORING, *TABLES, *JOBS, *COMPARING, *BUNDLES]
