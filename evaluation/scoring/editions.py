"""The one table of what each AutoPET edition's published script does where the definitions leave room.

All editions share the definitions in :mod:`evaluation.scoring.metrics`; they differ in empty masks, in the header
that gives the voxel volume, in missing cases and in what is ranked. The sources are the organisers' scripts
(lab-midas/autoPET ``val_script.py`` for I and II, ClinicalDataScience/autoPETIII, lab-midas/autoPETCTIV as fixed
in 2025, the interaction loop and ``metrics.py`` of autoPET V) and the "evaluation" pages of the challenges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

NAN = math.nan

Header = Literal["truth", "prediction"]
Missing = Literal["as-empty", "left-out", "as-zero"]


@dataclass(frozen=True)
class Rules:
    """One edition's rules.

    Attributes
    ----------
    dice_both_empty, dice_truth_empty : float
        Dice where both masks are empty, and where only the truth is. NaN: the case does not count for Dice.
    fnv_truth_empty, fpv_prediction_empty : float
        FNV in ml without any true lesion, FPV in ml without any predicted one.
    voxel_volume_from : str
        Whose header gives the spacing, ``truth`` or ``prediction``.
    missing : str
        What a case without a prediction counts as. ``as-empty``: an empty mask (the scripts of I to III score one
        pair and say nothing; this is the reading that never rewards a failed job). ``left-out``: named, but not
        scored, as the script of IV does. ``as-zero``: an empty mask with Dice and lesion F1 of 0
        whatever the truth, as the loop of V does.
    ranked : dict
        Metric name (a field of :class:`evaluation.scoring.metrics.Scores`) to its weight in the ranking; None
        where there is no ranking. IV gives this weight to the value at the last step and again to the area, V to
        the area alone; how ranks are made of several submissions: :mod:`evaluation.scoring.ranking`.
    by_subset : bool
        A submission's figure is the mean over the subsets' means (III, IV: tracer and centre), not over all cases.
    last_step : int
        Last interaction step of an edition that ranks the area under the curve over steps 0..last_step; 0: none.
    """

    dice_both_empty: float
    dice_truth_empty: float
    fnv_truth_empty: float
    fpv_prediction_empty: float
    voxel_volume_from: Header
    missing: Missing
    ranked: dict[str, float | None]
    by_subset: bool = False
    last_step: int = 0


_BY_VOLUMES: dict[str, float | None] = {"dice": 0.5, "fpv_ml": 0.25, "fnv_ml": 0.25}
_WITH_AREAS: dict[str, float | None] = {"dice": 0.25, "fpv_ml": 0.125, "fnv_ml": 0.125}

# V scores no volumes in its loop; its metrics.py gives them for analysis, with these values for empty masks.
# The paper reports Dice and HD95 and says nothing of empty masks: tumour-free cases do not count, as in III.
#
#                     Dice, both  Dice, truth  FNV, truth  FPV, prediction  voxel volume
#                     empty       empty        empty       empty            from          missing
RULES: dict[str, Rules] = {
    "I": Rules(       NAN,        0.0,         0.0,        0.0,             "prediction", "as-empty", _BY_VOLUMES),
    "II": Rules(      NAN,        0.0,         0.0,        0.0,             "prediction", "as-empty", _BY_VOLUMES),
    "III": Rules(     NAN,        NAN,         NAN,        0.0,             "truth",      "as-empty", _BY_VOLUMES,
                      by_subset=True),
    "IV": Rules(      NAN,        NAN,         NAN,        0.0,             "prediction", "left-out", _WITH_AREAS,
                      by_subset=True, last_step=10),
    "V": Rules(       1.0,        0.0,         NAN,        0.0,             "truth",      "as-zero",
                      {"dice": 0.5, "lesion_f1": 0.5}, last_step=5),
    "paper": Rules(   NAN,        NAN,         NAN,        0.0,             "truth",      "as-empty",
                      {"dice": None, "hd95_mm": None}),
}  # fmt: skip
DEFAULT_EDITION = "III"
