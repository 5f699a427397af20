"""Where pairs and truths lie: case lists (CSV) and the layouts of data sets on disk, read once for all programs.

A **list of cases** is what every option ``--cases`` takes: a folder in one of the layouts of
:data:`algorithm.cases.layouts.LAYOUTS`, or a CSV file with one row per case (UTF-8, a line of headings):

==============  ============================================================================================
``case``        Name, needed; unique. Where images are read it must be able to name a file.
``ct``, ``pet``   The pair. Needed wherever images are read; paths are relative to the CSV.
``truth``       The mask to learn from or to compare with: inside ``--truth`` where a command has that, or
                relative to the CSV.
``truth_grid``  ``own``: the truth may lie on another grid than the PET, onto which it is then brought.
``prediction``  A mask to be scored: inside ``--prediction``, or relative to the CSV.
``patient``     Whose studies stay together in every split; by the name where left out.
``tracer``      ``fdg`` or ``psma``; by the prefix ``fdg_`` or ``psma_`` of the name where left out.
``centre``      Editions III and IV rank within tracer and centre.
``data_set``    Edition V pools its lesion F1 within it.
``subset``      Scores are averaged within it; tracer and centre where left out.
``synthetic``   ``yes``: the images are not of a patient. Also where the name begins with "synthetic".
==============  ============================================================================================

A command reads the columns that it needs and leaves the others alone, so one list serves all of them. Columns
outside the schema are left alone too, but ``score``, ``compare`` and the evaluation container refuse them: where
``prediction`` is misspelt, they would score the file that has the case's name.
"""

from __future__ import annotations

from algorithm.cases.case import Case, DataSet, Skipped, group_of
from algorithm.cases.layouts import LAYOUTS, Layout
from algorithm.cases.listing import WHERE_CASES_LIE, find_cases, list_cases
from algorithm.cases.names import (
    IMAGE_SUFFIXES,
    case_name,
    is_image,
    masks_in,
    named_synthetic,
    patient_of,
    tracer_of,
)
from algorithm.cases.study import Study, read_study, reason, truth_on
from algorithm.cases.table import COLUMNS, OWN_GRID, Row, is_yes, read_rows, read_table, require_column

__all__ = [
    "COLUMNS",
    "IMAGE_SUFFIXES",
    "LAYOUTS",
    "OWN_GRID",
    "WHERE_CASES_LIE",
    "Case",
    "DataSet",
    "Layout",
    "Row",
    "Skipped",
    "Study",
    "case_name",
    "find_cases",
    "group_of",
    "is_image",
    "is_yes",
    "list_cases",
    "masks_in",
    "named_synthetic",
    "patient_of",
    "read_rows",
    "read_study",
    "read_table",
    "reason",
    "require_column",
    "tracer_of",
    "truth_on",
]
