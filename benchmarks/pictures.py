"""Takes the README's picture, the first screen of a report: python benchmarks/pictures.py [DIR]

The page is written anew from the runs under DIR, unless you name one the kept records of exercise B, and looked at in
Chromium, 1280 pixels wide.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from reg_sweep.report import write_report

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "reproduction" / "records" / "exercise_b"
PICTURE = ROOT / "docs" / "report.png"
SIZE = {"width": 1280, "height": 664}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def take(runs: Path, picture: Path) -> None:
    """Writes the first screen of the report of `runs` into `picture`, a PNG."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = write_report([runs], folder).page
        started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        screen = started.new_page(viewport=SIZE, color_scheme="light")
        screen.goto(page.as_uri())
        screen.screenshot(path=picture)
        started.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, metavar="DIR", nargs="?", default=RUNS, help="runs (default: exercise B)")
    parser.add_argument("--out", type=Path, default=PICTURE, help="a PNG (default: docs/report.png)")
    arguments = parser.parse_args()
    take(arguments.runs, arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
