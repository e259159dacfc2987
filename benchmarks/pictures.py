"""Take the screenshots for the README and docs/judge.md, two reports' first screens: python benchmarks/pictures.py

The reports are rewritten from the stored records of exercise B and from examples/tours.csv, and opened in Chromium,
1280 pixels wide. For another report: python benchmarks/pictures.py DIR --out FILE.
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
    """Write the first screen of the report on `runs` to `picture`, a PNG."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = write_report([runs], folder, wanted=wanted).page
        started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        screen = started.new_page(viewport=SIZE, color_scheme="light")
        screen.goto(page.as_uri())
        screen.screenshot(path=picture)
        started.close()


def main() -> None:
    """Run the command."""
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
