"""Writes the pages under docs/reports, one for each question, from reproduction/records: python reproduction/reports.py

Each is the report of the stages that answer it, with its figures and tables as files beside it. A run's weights and
predictions, which the page shows too, lie in reproduction/records where it was trained (`reproduce.py --records`
copies them there), and in no commit: elsewhere the page has what the records alone tell, and the pictures that were
drawn from them stay in the page's folder, under pictures/.
"""

import os
import sys
from pathlib import Path

from reproduce import RECORDS, finished_folders

from reg_sweep.report import write_report

ROOT = Path(__file__).resolve().parents[1]
PAGES = Path("docs", "reports")
# A page's folder, and the stages' folders it is made of.
STAGES_OF = {
    "exercise_b": ["exercise_b"],
    "exercise_b_studies": ["exercise_b_l1", "exercise_b_l2"],
    "exercise_a_searches": ["exercise_a_search_l1", "exercise_a_search_l2"],
    "exercise_a": ["exercise_a"],
    "exercise_a_published": ["exercise_a_published"],
    "fashion": ["fashion"],
    "few": ["few"],
    "noisy": ["noisy"],
}


def main() -> None:
    """The command."""
    os.chdir(ROOT)  # a page names the folders of its runs as they were given
    records = RECORDS.relative_to(ROOT)
    finished = {folder.relative_to(records).parts[0] for folder in finished_folders(records)}
    for name, stages in STAGES_OF.items():
        if finished.issuperset(stages):
            page = write_report([records / stage for stage in stages], PAGES / name).page
            print(page, file=sys.stderr)


if __name__ == "__main__":
    main()
