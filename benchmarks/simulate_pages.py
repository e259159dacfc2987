"""Simulate whole pages with a known truth, from the runs to the text: python benchmarks/simulate.py pages

Arms are equal to the baseline, or all better by exactly the margin. A page is false if a verdict, or a sentence that is
not marked exploratory, says that equal arms differ, or that arms at the margin lie within it or are worse. Runs are
created in memory; tables, judgement and sentences are the report's own.

fixed       a table that is analysed once
study       a sequential study, judged by its design
+ arm       the study, and one more arm
+ study     two studies in one tree
options     the study judged by loss, then at the epoch that val chose, then against another baseline
advice      a table of three seeds, then the study on fresh seeds that its page advises; false if either page is
more seeds  a table of three seeds, reported, then two more seeds
lost 30%    the baseline diverges on its worst 30% of the seeds
failed      the worst fifth of an arm's seeds fails
"""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from noise import KINDS, SEED, Floats, lose_worst, scores

from reg_sweep.comparison.compare import Comparison, make_comparisons
from reg_sweep.comparison.conclusions import conclusions
from reg_sweep.comparison.earlier import Earlier
from reg_sweep.comparison.planning import SECOND_ALPHA
from reg_sweep.comparison.results import CURVES, DataIdentity, Result
from reg_sweep.comparison.sentences import tally, verdict
from reg_sweep.comparison.study_runs import StudyRuns
from reg_sweep.config.schema import NormConfig, RunConfig, to_dict
from reg_sweep.runs.record import METRIC
from reg_sweep.runs.study import ArmLook, Look, Study, StudyDesign, Trial
from reg_sweep.stats.judge import judge
from reg_sweep.stats.judgement import ALPHA
from reg_sweep.stats.sequential import Design
from reg_sweep.stats.verdict import Verdict

SD, MARGIN = 0.001, 0.001
DATA = DataIdentity("digits", "local copy", "0123456789abcdef", 50_000, 0.0, 10_000, 10_000)
CONFIG = to_dict(RunConfig(norm=NormConfig("bn")))
OPEN = re.compile(
    r"not shown to help or to hurt|(is not|No arm is) shown better or worse|None is shown \w+"
    r"|can't show whether a penalty helps"
)
DIFFERS = re.compile(
    r"\b(is|it is) (better|worse)\b|\b(helps?|hurts?)\b|(better|worse) at (?!none)|real difference|\d (better|worse)\b"
    r"|\b(?i:better|worse): |\bshown (better|worse)\b(?! at none)"
)
WITHIN = re.compile(r"shown equivalent|no difference that matters|smaller than|\bis worse\b|\bhurts?\b")
LOOKS = Design(margin=MARGIN).looks


def run(arm: int, seed: int, score: float, base: int = 0) -> Result:
    """A run with this test accuracy: nan if failed, infinite if diverged. Each arm has its own l1."""
    config = {**CONFIG, "seed": seed, "l1": (arm + base) / 1000}
    status = "failed" if np.isnan(score) else "diverged" if np.isinf(score) else "complete"
    value = score if np.isfinite(score) else 0.1
    row = dict.fromkeys(METRIC, value) | {"epoch": 1, "lr": 0.1, "seconds": 1.0, "images_per_s": 1.0}
    row |= {"test_loss": 1 - value, "val_loss": 1 - value, "train_loss": 1 - value}
    return Result(
        path=Path(f"/runs/{base}-{arm}-{seed}"), status=status, seed=seed, arm=f"{base + arm:016x}", config=config,
        data=DATA, last=row, best_val=row, curves=np.full((1, len(CURVES)), value, np.float32), weights=None, layers=[],
        n_parameters=1, seconds=1.0, ended=f"{seed:03}", command="", message="", environment={}, trial_params=None,
    )  # fmt: skip


def runs(x: Floats, first_seed: int = 1, base: int = 0) -> list[Result]:
    """A run for each score of (arms, seeds)."""
    return [run(a, first_seed + s, v, base) for a, row in enumerate(x) for s, v in enumerate(row) if not np.isneginf(v)]


def study(x: Floats, name: str, base: int = 0, first_seed: int = 1, alpha: float = ALPHA) -> StudyRuns:
    """A sequential study of these scores, (arms, seeds of the last look), as the sweeper runs it."""
    design = Design(LOOKS, alpha, margin=MARGIN)
    decided: dict[int, int] = {}
    looks: list[Look] = []
    for n in design.looks:
        open_arms = [a for a in range(1, len(x)) if a not in decided]
        if not open_arms:
            break
        given = {a: dict(enumerate(x[a, : decided.get(a, n)], first_seed)) for a in range(len(x))}
        found = judge(given, 0, design=design, stopped=decided).arms
        words = {a: found[a].path[-1].verdict for a in open_arms}
        looks.append(
            Look(n, [ArmLook({"l1": (a + base) / 1000}, words[a].value, n, 0, 0, 0.0, 0.0, 0.0) for a in open_arms])
        )
        decided |= {a: n for a in open_arms if words[a] is not Verdict.UNDECIDED}
    last = looks[-1].seeds
    made = [r for a in range(len(x)) for r in runs_of_arm(x, a, decided.get(a, last), base, first_seed)]
    trials = [
        Trial(i, "complete" if r.status != "failed" else "failed", {"l1": r.config["l1"], "seed": r.seed},
              (r.last["test_accuracy"] if r.status == "complete" else np.nan,), np.nan, r.path, "")
        for i, r in enumerate(made)
    ]  # fmt: skip
    arms = [{"l1": (a + base) / 1000} for a in range(len(x))]
    fixed = StudyDesign(LOOKS, LOOKS[-1], alpha, MARGIN, "moderated", "test_accuracy", first_seed, arms[0], arms[1:])
    record = Study(
        Path(f"/runs/{name}"), name, ["maximize"], {}, trials, kind="until_verdict", design=fixed, looks=looks
    )
    return StudyRuns(1 + base, record, dict(enumerate(made)))


def runs_of_arm(x: Floats, arm: int, n_seeds: int, base: int, first_seed: int) -> list[Result]:
    return [run(arm, first_seed + s, x[arm, s], base) for s in range(n_seeds)]


def page(results: Sequence[Result], studies: Sequence[StudyRuns] = (), **asked: object) -> list[Comparison]:
    return make_comparisons(list(results), studies=studies, **asked)


def is_false(comparisons: Sequence[Comparison], pattern: re.Pattern[str], words: set[Verdict]) -> bool:
    """Whether a verdict, or a sentence that is not marked exploratory, is false."""
    for c in comparisons:
        if any(arm.verdict in words for arm in c.arms):
            return True
        found = conclusions(c)
        said = [*verdict(c), tally(c), *(part.text for part in [*found.paragraphs, *found.sentences])]
        if any(pattern.search(OPEN.sub("", text)) for text in said if "xploratory" not in text):
            return True
    return False


NULL = (DIFFERS, {v for v in Verdict if v.tone} | {Verdict.SMALL})
AT_MARGIN = (WITHIN, {Verdict.EQUIVALENT, Verdict.SMALL, Verdict.WORSE, Verdict.WORSE_BY_DIVERGENCE})


def fixed(x: Floats) -> list[Comparison]:
    return page(runs(x))


def one_study(x: Floats) -> list[Comparison]:
    s = study(x, "one")
    return page(list(s.runs.values()), [s])


def study_and_arm(x: Floats) -> list[Comparison]:
    s = study(x[:-1], "one")
    return page([*s.runs.values(), *runs_of_arm(x, len(x) - 1, 5, 0, 1)], [s])


def two_studies(x: Floats) -> list[Comparison]:
    half = max(2, len(x) // 2)
    s, t = study(x[:half], "one"), study(x[-half:], "two", base=100)
    return page([*s.runs.values(), *t.runs.values()], [s, t])


def other_options(x: Floats) -> list[Comparison]:
    s = study(x, "one")
    made = list(s.runs.values())
    last = next(r for r in made if r.arm != made[0].arm)
    return [
        *page(made, [s], metric=METRIC["test_loss"]),
        *page(made, [s], epoch="best_val"),
        *page(made, [s], baseline=f"l1={last.config['l1']}"),
    ]


def advice(x: Floats) -> list[Comparison]:
    first = page(runs(x[:, :3]))
    s = study(x[:, 3:], "fresh", first_seed=4, alpha=SECOND_ALPHA)
    return [*first, *page([*runs(x[:, :3]), *s.runs.values()], [s])]


def more_seeds(x: Floats) -> list[Comparison]:
    first = page(runs(x[:, :3]))
    seen = Earlier([]).with_judged(first)
    return [*first, *page(runs(x[:, :5]), seen_before=seen.reason)]


SCENARIOS: dict[str, tuple[Callable[[Floats], list[Comparison]], int, Callable[[Floats], Floats]]] = {
    "fixed": (fixed, 5, lambda x: x),
    "study": (one_study, LOOKS[-1], lambda x: x),
    "+ arm": (study_and_arm, LOOKS[-1], lambda x: x),
    "+ study": (two_studies, LOOKS[-1], lambda x: x),
    "options": (other_options, LOOKS[-1], lambda x: x),
    "advice": (advice, 3 + LOOKS[-1], lambda x: x),
    "more seeds": (more_seeds, 5, lambda x: x),
    "lost 30%": (fixed, 8, lambda x: lose_worst(x, 0, 0.3, np.inf)),
    "failed": (one_study, LOOKS[-1], lambda x: lose_worst(x, -1, 0.2, np.nan)),
}
FEWEST_ARMS = {"+ arm": 3, "+ study": 4}
FEW_KINDS = ("normal", "t3", "one arm x3", "copies 0.99", "pairs 0.9", "lattice 1,000", "80% equal", "skew")


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="simulate.py pages", description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=400, metavar="N")
    parser.add_argument(
        "--arms", type=int, action="append", metavar="N", help="number of arms with the baseline; repeatable"
    )
    parser.add_argument("--noise", choices=KINDS, action="append")
    parser.add_argument("--scenario", choices=SCENARIOS, action="append")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="append rows to this file, and skip the rows that it already has"
    )
    options = parser.parse_args(argv)
    out: Path | None = options.out
    rows = out.read_text().splitlines() if out and out.exists() else []
    done = {tuple(line.split(" | ")[:4]) for line in rows}
    if not rows:
        _write(f"whole pages, seed {SEED}; 2 se: of a share of 0.05", out)
        _write("trees | arms | scenario | noise | false: all equal | 2 se | false: all at the margin", out)
    for n_arms in options.arms or [4]:
        for name in options.scenario or SCENARIOS:
            for kind in options.noise or FEW_KINDS:
                cell = (str(options.tables), str(n_arms), name, kind)
                if cell not in done and n_arms >= FEWEST_ARMS.get(name, 2):
                    _write(" | ".join([*cell, *_false_pages(name, kind, options.tables, n_arms)]), out)


def _false_pages(name: str, kind: str, n: int, n_arms: int) -> list[str]:
    """Shares of false pages: with all arms equal and, if a page tests equivalence, with all arms at the margin."""
    made, n_seeds, after = SCENARIOS[name]
    x = after(scores(kind, n, n_arms, n_seeds, np.random.default_rng([SEED, n_seeds]))) * SD + 0.98
    shifted = x + MARGIN * (np.arange(n_arms) > 0)[:, None]
    equal = sum(is_false(made(t), *NULL) for t in x) / n
    apart = sum(is_false(made(t), *AT_MARGIN) for t in shifted) / n if name in ("fixed", "study") else np.nan
    return [f"{equal:.4f}", f"{2 * (0.05 * 0.95 / n) ** 0.5:.4f}", f"{apart:.4f}"]


def _write(line: str, out: Path | None) -> None:
    print(line, flush=True)
    if out:
        with out.open("a") as f:
            f.write(line + "\n")
