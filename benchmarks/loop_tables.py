"""Simulate loops of experiments with a known truth: python benchmarks/simulate.py loop"""

import argparse
import time
from collections.abc import Sequence

from simulate_loop import GATES, NOISES, SEED, gated, loops

from reg_sweep.stats.candidate import Rules


def row(*cells: object) -> None:
    """Print a line of a table."""
    print(" | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells), flush=True)


def no_ops(n_loops: int) -> None:
    """Print the share of loops of no-ops with any false keep, and the runs that a no-op takes."""
    print("loops of no-ops: the share with some false keep; runs of a candidate; error=any likewise")
    row("noise", "candidates", "false", "runs", "any: false", "any: runs")
    for kind in NOISES:
        for length in (100, 1000):
            cells = [loops(kind, n_loops, length, method=method) for method in ("LORD++", "any")]
            row(kind, length, *(x for f in cells for x in (f.false_in, float(f.runs_no_op))))


def gains(n_loops: int) -> None:
    """Print how many real gains are kept, and how far the final claim is from the truth."""
    print("normal noise; claimed: the last baseline's gain on held-out seeds minus its true gain, in sd; naive: the")
    print("running best single score's")
    row(
        "candidates",
        "real",
        "gain",
        "kept",
        "seeds",
        "runs a no-op",
        "false of kept",
        "claimed",
        "+-",
        "naive",
        "baselines'",
    )
    for length in (100, 1000):
        for share in (0.02, 0.05, 0.1):
            for gain in (1.0, 2.0, 3.0):
                f = loops("normal", n_loops, length, share=share, gain=gain)
                cells = (f.power, f.runs_gain, f.runs_no_op, f.share_false, f.claimed, f.claimed_error, f.naive)
                row(length, share, gain, *map(float, cells), float(f.runs_baseline))


def gates(n_loops: int) -> None:
    """Compare common gates with the judge in loops of 100: only no-ops, and with a gain of 2 sd in one of twenty."""
    print("loops of 100: no-ops alone, and with 5% gains of 2 sd; runs: of candidates and baselines, a loop")
    row("noise", "gate", "some false", "with gains: false of kept", "kept gains", "runs a loop", "claimed too much")
    for kind in ("normal", "t3", "collapse"):
        for gate in (*GATES, "this judge"):
            run = loops if gate == "this judge" else (lambda *a, gate=gate, **k: gated(gate, *a, **k))
            none, some = run(kind, n_loops, 100), run(kind, n_loops, 100, share=0.05)
            n_runs = 95 * some.runs_no_op + 5 * some.runs_gain + some.runs_baseline
            row(kind, gate, none.false_in, some.share_false, some.power, float(n_runs), some.claimed)


def levels(n_loops: int) -> None:
    """Compare ways to set a candidate's level. ADDIS needs uniform p-values below a bound; a p over looks is not."""
    print("normal noise, 2% gains of 2 sd")
    row("levels", "candidates", "no-ops: some false", "false of kept", "kept", "seeds")
    for method in ("LORD++", "SAFFRON", "ADDIS", "any"):
        for length in (100, 1000):
            none = loops("normal", n_loops, length, method=method)
            some = loops("normal", n_loops, length, share=0.02, method=method)
            row(method, length, none.false_in, some.share_false, some.power, float(some.runs_gain))


def more_seeds(n_loops: int) -> None:
    """Print how more seeds help to detect smaller gains."""
    print("normal noise, loops of 100 with 5% gains")
    row("most seeds", "gain", "kept", "seeds", "runs a no-op", "runs of baselines")
    for n in (6, 10, 20):
        for gain in (0.5, 1.0, 2.0):
            f = loops("normal", n_loops, 100, share=0.05, gain=gain, rules=Rules(max_seeds=n))
            row(n, gain, f.power, float(f.runs_gain), float(f.runs_no_op), f.runs_baseline)


TABLES = {"no_ops": no_ops, "gains": gains, "gates": gates, "levels": levels, "more_seeds": more_seeds}


def main(argv: Sequence[str] | None = None) -> None:
    """Print all tables, or those that are named."""
    parser = argparse.ArgumentParser(prog="simulate.py loop", description="Loops where the truth is known.")
    parser.add_argument("--table", choices=TABLES, action="append", help="only this table (repeatable)")
    parser.add_argument("--loops", type=int, default=2000, metavar="N")
    arguments = parser.parse_args(argv)
    for name in arguments.table or TABLES:
        start = time.perf_counter()
        print(f"{name}: {arguments.loops:,} loops each, seed {SEED}")
        TABLES[name](arguments.loops)
        print(f"{time.perf_counter() - start:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
