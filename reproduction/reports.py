"""Write the reports in docs/reports, one per question, from reproduction/records: python reproduction/reports.py

Each reports on the stages that answer its question, with figures and tables as files next to the page. Weights and
predictions are not committed. They are in reproduction/records only on the machine that trained the runs
(`reproduce.py --records` copies them there). Elsewhere, a page shows what the records alone contain; the pictures drawn
from weights and predictions are kept in the page's folder, under pictures/.
"""

import os
import sys
from pathlib import Path

from reproduce import RECORDS, finished_folders

from reg_sweep.report import write_report

ROOT = Path(__file__).resolve().parents[1]
PAGES = Path("docs", "reports")
# Each page's folder, and the folders of the stages that it reports on.
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
    """Run the command."""
    os.chdir(ROOT)  # pages show the folders as given, so give them relative to the root
    records = RECORDS.relative_to(ROOT)
    finished = {folder.relative_to(records).parts[0] for folder in finished_folders(records)}
    for name, stages in STAGES_OF.items():
        if finished.issuperset(stages):
            page = write_report([records / stage for stage in stages], PAGES / name).page
            print(page, file=sys.stderr)


if __name__ == "__main__":
    main()
