"""Time the report on a tree of synthetic runs: python benchmarks/report.py --runs 10000

It prints seconds, peak memory and the page's size. The tree is created in a temporary folder, unless --tree names one.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

# The report runs in a process that created no runs, so that the peak memory is its own.
_REPORT = """
import resource, sys, time
start = time.perf_counter()
from reg_sweep.report import write_report
write_report([sys.argv[1]], sys.argv[2])
seconds = time.perf_counter() - start
unit = 1 if sys.platform == "darwin" else 1024
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--tree", type=Path, metavar="DIR", help="an existing tree of runs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tree = arguments.tree
        if tree is None:
            tree = Path(scratch, "runs")
            make = Path(__file__).with_name("make_runs.py")
            sizes = ["--runs", str(arguments.runs), "--epochs", str(arguments.epochs)]
            subprocess.run([sys.executable, make, tree, *sizes], check=True)
        out = Path(scratch, "report")
        command = [sys.executable, "-c", _REPORT, tree, out]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        seconds, peak = map(float, done.stdout.split())
        n_runs = sum(1 for _ in tree.rglob("run.json"))
        page = (out / "index.html").stat().st_size
        files = sum(f.stat().st_size for f in out.iterdir())
    print(f"{n_runs:,} runs: {seconds:.1f} s, {peak / 1e6:,.0f} MB at most, page {page / 1e6:.2f} MB")
    print(f"with figures and tables {files / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
