"""Takes the pictures of the README and of docs/judge.md, first screens of reports: python benchmarks/pictures.py

The pages are written anew, from the kept records of exercise B and from examples/tours.csv, and looked at in Chromium,
1280 pixels wide. Another page: python benchmarks/pictures.py DIR --out FILE.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from reg_sweep.readers.foreign import Wanted
from reg_sweep.report import write_report

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "reproduction" / "records" / "exercise_b"
PICTURE = ROOT / "docs" / "report.png"
TOURS = ROOT / "examples" / "tours.csv"
JUDGED = ROOT / "docs" / "judge.png"
SHORTEST = Wanted(score="tour_length", higher_is_better=False)
SIZE = {"width": 1280, "height": 664}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def take(runs: Path, picture: Path, wanted: Wanted | None = None) -> None:
    """Writes the first screen of the report of `runs` into `picture`, a PNG."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = write_report([runs], folder, wanted=wanted).page
        started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        screen = started.new_page(viewport=SIZE, color_scheme="light")
        screen.goto(page.as_uri())
        screen.screenshot(path=picture)
        started.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, metavar="DIR", nargs="?", help="runs (default: both pages)")
    parser.add_argument("--out", type=Path, default=PICTURE, help="a PNG (default: docs/report.png)")
    arguments = parser.parse_args()
    if arguments.runs is not None:
        take(arguments.runs, arguments.out)
        print(arguments.out)
        return
    for runs, picture, wanted in ((RUNS, PICTURE, None), (TOURS, JUDGED, SHORTEST)):
        take(runs, picture, wanted)
        print(picture)


if __name__ == "__main__":
    main()
