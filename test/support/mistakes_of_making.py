"""Rows of the table: mistakes of ``python -m training`` and ``python -m synthesis``."""

from __future__ import annotations

from test.support.mistake import DEEP, environment, synthesis_, training_

TRAINING = [
    training_("out is a file", lambda w: w.fit("--out", w / "notes.txt"), "notes.txt"),
    training_("cache is a file", lambda w: w.fit("--cache", w / "notes.txt"), "notes.txt"),
    training_("no data", lambda w: w.fit("--cases", w / "none"), "does not exist"),
    training_("spacing is NaN", lambda w: w.fit("--spacing", "nan", 1, 1), "--spacing must be above 0"),
    training_("spacing is negative", lambda w: w.fit("--spacing", -1, 1, 1), "--spacing must be above 0"),
    training_("overlap of 1", lambda w: w.fit("--overlap", 1), "--overlap must be at least 0 and below 1"),
    training_("patch of 17", lambda w: w.fit("--patch", 17, 32, 32), "must be a multiple of 16"),
    training_("no workers", lambda w: w.fit("--workers", 0), "--workers must lie between 1 and"),
    training_(
        "budget is NaN", lambda w: w.fit("--time-budget", "nan"), "--time-budget must be a number of seconds"
    ),
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
    synthesis_(
        "nobody held out, and those taken",
        lambda w: w.synthesise("--subset", "held-out", "--held-out", 0),
        "--held-out holds out, got 0",
    ),
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

ROWS = [*TRAINING, *SYNTHESIS]
