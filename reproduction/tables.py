"""Write the tables of docs/reproduction.md and docs/performance.md: python reproduction/tables.py

They are computed from the records in reproduction/records. Each table is between `<!-- table: NAME -->` and
`<!-- end -->`; the text around it is written by hand.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import published

from reg_sweep.compact.writing import share, speed
from reg_sweep.comparison.compare import Comparison, make_comparisons
from reg_sweep.comparison.conclusions import conclusions
from reg_sweep.comparison.results import TEST_ACCURACY, Result, result
from reg_sweep.comparison.sentences import signed
from reg_sweep.comparison.study_runs import match_runs
from reg_sweep.report.exports import summary_row
from reg_sweep.runs.reading import read_runs
from reg_sweep.runs.record import METRIC, STUDY_FILE
from reg_sweep.runs.study import read_study
from reg_sweep.stats.estimates import mean_interval
from reg_sweep.stats.judge import judge
from reg_sweep.stats.sequential import Design

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "reproduction" / "records"
PAGES = [ROOT / "docs" / name for name in ("reproduction.md", "performance.md")]

HARDER = {
    "fashion": "Fashion-MNIST",
    "few": "MNIST, 1,000 train images, 60 epochs",
    "noisy": "MNIST, a fifth of the labels wrong",
}
REGULARIZERS = {
    "regularizers_few": "MNIST, 1,000 train images, 8 epochs in batches of 16",
    "regularizers_photos": "photographs, 2,000 train images, 8 epochs in batches of 32",
}
# Six epochs against eight, on val. Five epochs were tested before on the same seeds, and spent the rest of the error.
FAST = Design(looks=(12, 16), alpha=0.03, margin=0.0005, question="not_worse", spending="all")
# Smaller networks: their images, and the margin of the question.
SMALLER = {
    "smaller_mnist": ("squeeze-expand, MNIST", 0.001),
    "smaller_fashion": ("ResNet-20, 5,000 images of Fashion-MNIST", 0.003),
    "smaller_photos": ("ResNet-20, 3,000 photographs", 0.003),
}
SEARCHED = {"exercise_a_search": "MNIST"} | {f"{stage}_search": images for stage, images in HARDER.items()}
# The claims by images: claim 4 is about harder ones.
CLAIMED = {"exercise_b": (1, 2, 3, 5)} | dict.fromkeys(HARDER, (4,))

Pairs = Mapping[tuple[float, float], str]


def complete(stage: str) -> list[Result]:
    """A stage's complete runs, in the order of their folders."""
    folder = RECORDS / stage
    runs = [result(run) for run in read_runs(folder)] if folder.is_dir() else []
    return [run for run in runs if run.status == "complete"]


def percent(values: list[float]) -> str:
    """Mean, 95% interval (Student's t) and n; without spread only the mean."""
    found = mean_interval([100 * value for value in values])
    interval = "" if math.isnan(found.ci_low) else f" ({found.ci_low:.2f} to {found.ci_high:.2f})"
    return f"{found.mean:.2f}{interval}, n = {found.n}"


def accuracies(run: Result) -> list[float]:
    return [float(value) for value in run.curve(TEST_ACCURACY)]


def published_and_ours(stage: str, cells: Pairs) -> str:
    lines = ["| l1, l2 | published: max (epoch) | here: max over the epochs | here: last epoch |", "|---|---|---|---|"]
    runs = complete(stage)
    for (l1, l2), theirs in cells.items():
        own = [run for run in runs if (run.config["l1"], run.config["l2"]) == (l1, l2)]
        maxima = percent([max(accuracies(run)) for run in own]) if own else "not run yet"
        last = percent([accuracies(run)[-1] for run in own]) if own else ""
        lines.append(f"| {l1:g}, {l2:g} | {theirs} | {maxima} | {last} |")
    return "\n".join(lines)


def selection() -> str:
    """How far the best test epoch is above the last epoch, and above the mean of the last quarter."""
    curves = [np.array(accuracies(run)) for run in complete("exercise_b")]
    if not curves:
        return "No run of 40 epochs is recorded yet."
    above_last = percent([float(curve.max() - curve[-1]) for curve in curves])
    above_quarter = percent([float(curve.max() - curve[-(len(curve) // 4) :].mean()) for curve in curves])
    return (
        "| the best of 40 test epochs is above | points |\n|---|---|\n"
        f"| the last epoch | {above_last} |\n| the mean of the last ten | {above_quarter} |"
    )


def compared(stage: str) -> list[Comparison]:
    """A stage's arms, judged as on their page; a sequential study's arms by its design."""
    runs, path = complete(stage), RECORDS / stage / STUDY_FILE
    studies = [match_runs(1, read_study(path), runs)] if path.exists() else []
    return make_comparisons(runs, studies=studies)


def claims() -> str:
    """A row for each claim with its result, followed by a row for each of its parts."""
    lines = ["| claim, and what it rests on | measured | |", "|---|---|---|"]
    found = [
        (claim, HARDER.get(stage))
        for stage, numbers in CLAIMED.items()
        for comparison in compared(stage)
        for claim in conclusions(comparison).claims
        if claim.number in numbers
    ]
    for claim, images in sorted(found, key=lambda item: item[0].number):
        where = "" if images is None else f", on {images}"
        lines.append(f"| **({claim.number}) {claim.text}**{where} | | ***{claim.word}*** |")
        for part in claim.parts:
            what, _, rest = part.partition(": ")
            lines.append(f"| {what} | {rest} | |")
    return "\n".join(lines) if found else "No claim has its arms yet."


def arms(*stages: str) -> str:
    """Each arm of some stages against the one without a penalty, as in the summary.csv of their page."""
    heads = ["arm", "n", "test accuracy, %", "against the baseline, points", "verdict", "dead kernels, %"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for stage in stages:
        if len(stages) > 1:
            lines.append(f"| **{(HARDER | REGULARIZERS)[stage]}** | | | | | |")
        rows = [summary_row(arm, comparison) for comparison in compared(stage) for arm in comparison.arms]
        lines += [_arm(row) for row in sorted(rows, key=_place)]
    return "\n".join(lines)


def _place(row: Mapping[str, Any]) -> tuple[bool, str, bool, bool]:
    return not row["is_baseline"], row["norm"], row["l1"] > 0, row["l2"] > 0


def _arm(row: Mapping[str, Any]) -> str:
    mean, low, high = (100 * row[f"test_accuracy{end}"] for end in ("", "_ci_low", "_ci_high"))
    accuracy = f"{mean:.2f} ({low:.2f} to {high:.2f})"
    if row["is_baseline"]:
        found = "| baseline"
    else:
        gain, low, high = (signed(TEST_ACCURACY, row[f"difference{end}"]) for end in ("", "_ci_low", "_ci_high"))
        found = f"{gain} ({low} to {high}) | {row['verdict']}"
    return f"| {row['arm']} | {row['n_seeds']} | {accuracy} | {found} | {100 * row['dead_kernel_share']:.1f} |"


def fast() -> str:
    """Six epochs against eight on common seeds: accuracy on val, which was judged, and on test."""
    eight = {run.seed: run for run in complete("fast8")}
    eight |= {run.seed: run for run in complete("smaller_mnist") if run.path.name.startswith("dense_")}
    runs = {"`experiment=fast8`": eight, "`experiment=fast`": {run.seed: run for run in complete("fast")}}
    six = runs["`experiment=fast`"].keys()
    val, test = (
        {
            arm: {seed: float(own[seed].curve(metric)[-1]) for seed in sorted(six & own.keys())}
            for arm, own in runs.items()
        }
        for metric in (METRIC["val_accuracy"], TEST_ACCURACY)
    )
    base, arm = runs
    found = judge(val, base, design=FAST).arms[arm]
    low, mean = (100 * v for v in (found.equivalence.ci_low, found.difference.mean))
    rows = [
        [base, len(val[base]), _accuracy(val[base]), "", "", _accuracy(test[base])],
        [
            arm,
            found.pairs,
            _accuracy(val[arm]),
            _signed(mean, low),
            f"{found.verdict} by 0.05 points",
            _accuracy(test[arm]),
        ],
    ]
    heads = ["recipe", "n", "val accuracy, %", "against eight epochs, points", "verdict", "test accuracy, %"]
    return "\n".join(
        [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(map(str, r))} |" for r in rows)]
    )


def chosen() -> str:
    """Choice of each search, the trial without a penalty if there is one, and the epochs that pruning saved."""
    lines = ["| search | chosen | val loss | trials: complete, pruned |", "|---|---|---|---|"]
    for stage in SEARCHED:
        for parameter in ("l1", "l2"):
            path = RECORDS / f"{stage}_{parameter}" / STUDY_FILE
            if not path.exists():
                continue
            study = read_study(path)
            best = study.ranked[0]
            n = {state: sum(trial.state == state for trial in study.trials) for state in ("complete", "pruned")}
            value = f"{best.params[parameter]:.2g} | {best.values[0]:.4f}"
            lines.append(f"| {SEARCHED[stage]}, {parameter} | {value} | {n['complete']}, {n['pruned']} |")
    return "\n".join(lines)


def smaller() -> str:
    """Networks with fewer channels compared with the dense ones: accuracy, size, and speed on one thread at batch 128.

    The only question that was fixed beforehand is whether the fine-tuned networks are not worse.
    """
    heads = ["network", "n", "test accuracy, %", "against dense, points", "verdict", "multiply-adds", "speed", "folded"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for stage, (images, margin) in SMALLER.items():
        runs = {run.path.name: run for run in complete(stage)}
        dense, channels, fine = (
            {r.seed: accuracies(r)[-1] for name, r in runs.items() if name.startswith(f"{kind}_")}
            for kind in ("dense", "channels", "fine")
        )
        records = [json.loads(path.read_text()) for path in sorted((RECORDS / stage).glob("channels_*/compact/*.json"))]
        size = " | ".join(_range(records, of, form) for of, form in ((share, ".0%"), (speed, ".2f"), (folded, ".2f")))
        whole = f"{records[0]['sizes']['dense']['multiply_adds']:,}"
        gains = mean_interval([100 * (v - dense[seed]) for seed, v in channels.items()])
        scores = {"dense": {seed: dense[seed] for seed in fine}, "fine": fine}
        found = judge(scores, "dense", margin=margin, question="not_worse").arms["fine"]
        low, mean = (100 * v for v in (found.equivalence.ci_low, found.difference.mean))
        by = f" by {100 * margin:g} points" if found.verdict.is_no_loss else ""
        rows = [
            [f"**{images}**", *[""] * (len(heads) - 1)],
            ["dense", len(dense), _accuracy(dense), "", "", whole, "1", "1"],
            [
                "L1 on channels",
                gains.n,
                _accuracy(channels),
                _signed(gains.mean, gains.ci_low, gains.ci_high),
                "",
                size,
            ],
            ["then fine-tuned", found.pairs, _accuracy(fine), _signed(mean, low), f"{found.verdict}{by}", size],
        ]
        lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines)


def _signed(mean: float, low: float, high: float | None = None) -> str:
    ends = f"at least {low:+.2f}" if high is None else f"{low:+.2f} to {high:+.2f}"
    return f"{mean:+.2f} ({ends})".replace("-", "−")


def _accuracy(scores: dict[int, float]) -> str:
    return percent(list(scores.values())).partition(", n")[0]


def _range(records: list[dict[str, Any]], of: Callable[[dict[str, Any]], float], form: str) -> str:
    values = [of(record) for record in records]
    return f"{np.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def folded(record: dict[str, Any]) -> float:
    return speed(record, "folded")


TABLES: dict[str, Callable[[], str]] = {
    "exercise_b": lambda: published_and_ours("exercise_b", published.PAIRS),
    "exercise_b_l1": lambda: published_and_ours("exercise_b_l1", published.L1),
    "exercise_b_l2": lambda: published_and_ours("exercise_b_l2", published.L2),
    "selection": selection,
    "claims": claims,
    "fast": fast,
    "chosen": chosen,
    "exercise_a": lambda: arms("exercise_a"),
    "exercise_a_published": lambda: arms("exercise_a_published"),
    "harder": lambda: arms(*HARDER),
    "regularizers": lambda: arms(*REGULARIZERS),
    "smaller": smaller,
}


def filled(text: str) -> str:
    """A page with its tables replaced by new ones.

    Raises:
        KeyError: the page names a table that does not exist.
    """

    def table(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n\n{TABLES[match[1]]()}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", table, text, flags=re.DOTALL)


def main() -> None:
    for page in PAGES:
        text = page.read_text()
        new = filled(text)
        page.write_text(new)
        print(f"{page.relative_to(ROOT)} {'is as it was' if new == text else 'is written anew'}", file=sys.stderr)


if __name__ == "__main__":
    main()
