"""A page's sentences about its tables apart from the verdicts: the arms compared, the error, and the images."""

from collections.abc import Sequence

from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.labels import listed
from reg_sweep.comparison.question import strength
from reg_sweep.comparison.results import is_of_weights
from reg_sweep.comparison.sentences import count, pairing_text, words
from reg_sweep.stats.judgement import ALPHA


def sample_warning(comparisons: list[Comparison]) -> str:
    """A warning about runs on the offline sample; empty if there are none."""
    on_sample = [c for c in comparisons if c.data.source == "offline sample"]
    if not on_sample:
        return ""
    names = list(dict.fromkeys(c.data.name for c in on_sample))
    is_enough = {c.data.name for c in comparisons if c not in on_sample}.isdisjoint(names)
    labels = names if is_enough else [c.label for c in on_sample]
    runs = "these runs" if len(on_sample) == len(comparisons) else f"the runs on {'; '.join(labels)}"
    missing = [name for name in names if name != "mnist_5k"]
    why = f", since {' and '.join(missing)} was not available" if missing else ""
    return (
        f"Offline sample: {runs} saw 5,000 of MNIST's images{why}. Their results do not represent the whole data set."
    )


def page_error(comparisons: list[Comparison], asked_before: Sequence[str] = ()) -> str:
    """The probability that a page shows any false finding; empty where nothing is judged.

    `asked_before`: the other questions that these runs were judged by.
    """
    judged = [c.judgement for c in comparisons if c.judgement and len(c.measured) > 1 and not c.compares_models]
    alphas = [j.alpha for j in judged if not j.exploratory]
    if not alphas:
        return ""
    beside = "Everything marked exploratory is outside this error, and is not used in a verdict."
    beside += _asked_before(asked_before) + _shared(comparisons)
    whole = min(1.0, sum(alphas))
    if whole <= ALPHA * (1 + 1e-9):
        return f"At most one page like this in twenty shows any false finding. {beside}"
    if len(set(alphas)) > 1:
        largest, least = (100 * f(alphas) for f in (max, min))
        errors = (
            f"each with its own error of {least:g} to {largest:g}%. Up to {100 * whole:g}% of such pages show "
            "any false finding"
        )
    else:
        errors = (
            f"each with its own error of {100 * alphas[0]:g}%. At most {100 * alphas[0]:g}% of such tables, and up "
            f"to {100 * whole:g}% of such pages, show any false finding"
        )
    return (
        f"{len(alphas)} tables are judged here, {errors}. With --error all, a single error of 5% is split over the "
        f"page. {beside}"
    )


def _asked_before(questions: Sequence[str]) -> str:
    """The other questions that judged these runs, and the error of all questions together, in a sentence."""
    if not questions:
        return ""
    n, whole = len(questions), min(100.0, 100 * ALPHA * (1 + len(questions)))
    named = "; ".join(questions[:3]) + (f"; and {n - 3:,} more" if n > 3 else "")
    return (
        f" These runs were judged before by {'another question' if n == 1 else f'{n:,} other questions'}: {named}. "
        f"Each has an error of its own, together up to {whole:g}%, and a question that was chosen after a verdict is "
        "not a valid test: ask it of fresh seeds."
    )


def _shared(comparisons: list[Comparison]) -> str:
    """The runs that are in several judged tables, in a sentence; two runs of one config and seed count as the same."""
    tables: dict[tuple[object, str, int], int] = {}
    labels: dict[str, str] = {}
    for c in comparisons:
        if c.judgement is None or c.judgement.exploratory or len(c.measured) < 2:
            continue
        for arm in c.measured:
            labels.setdefault(arm.digest, arm.label)
            for seed in arm.seeds:
                tables[c.data, arm.digest, seed] = tables.get((c.data, arm.digest, seed), 0) + 1
    shared = [digest for (_, digest, _), n in tables.items() if n > 1]
    if not shared:
        return ""
    named = list(dict.fromkeys(labels[digest] for digest in shared))
    are = "is" if len(shared) == 1 else "are"
    return (
        f" {count(len(shared), 'run').capitalize()} of {listed(named, 3)} {are} in more than one of these "
        "tables, with the same settings and seed: the tables' findings are not independent."
    )


def compared(comparison: Comparison) -> str:
    """The arms and images compared, the baseline, and how the best arm was chosen."""
    data = comparison.data
    n_complete = sum(len(arm.replicates) for arm in comparison.arms)
    trained = "" if data.n_train is None else f"{data.n_train:,} train images, "
    noise = f"{100 * data.label_noise:g}% of them with a wrong label, " if data.label_noise else ""
    trials = f"{count(len(comparison.trials), 'trial')} of a search are not judged. " if comparison.trials else ""
    if not comparison.has_images:
        runs = f"{count(len(comparison.measured), 'arm')}, {count(n_complete, 'complete run')}"
        return f"Compared: {runs} of {data.name}. {_baseline(comparison)}{_chosen(comparison)}"
    return (
        f"Compared: {count(len(comparison.measured), 'arm')}, {count(n_complete, 'complete run')} on {data.name} "
        f"({trained}{noise}{data.n_test:,} test images; {data.source}; fingerprint {data.fingerprint}). "
        f"{trials}{_baseline(comparison)}{_chosen(comparison)}"
    )


def _chosen(comparison: Comparison) -> str:
    """How the best arm was chosen, and at which epoch arms are judged."""
    how = pairing_text(comparison, "paired with the baseline's over its seeds")
    paired = f", {how}" if comparison.n_seeds > 1 else ""
    if not comparison.has_images:
        return f"The best arm was chosen by its mean {words(comparison.metric)}{paired}; the same score judges it."
    if len(comparison.measured) < 2:
        if comparison.epoch == "best_val":
            return "Each run is shown at the epoch of its lowest val loss."
        return "Results are those of the last epoch."
    name, selector = "best", words(comparison.selector)
    if comparison.n_seeds == 1:
        name = "first"  # one seed has no best
    if comparison.selected_on == "val":
        where = f"on val ({comparison.data.n_val:,} images held out of train)"
    else:
        where = "on test, since no images are held out as val"
    if comparison.epoch == "best_val" and comparison.selected_on == "val":
        when = f"by its mean val loss{paired}, each run at the epoch of its lowest val loss: one metric chooses both"
    else:
        when = f"by its mean {selector} at the last epoch{paired}"
    if is_of_weights(comparison.metric):
        return f"The {name} arm has the largest share of {selector}, counted after the last epoch{paired}."
    return f"The {name} arm was chosen {where}, {when}; differences are on test at the same epoch."


def _baseline(comparison: Comparison) -> str:
    """How the baseline was chosen."""
    base = comparison.baseline
    if base is None or len(comparison.measured) < 2:
        return ""
    if comparison.is_baseline_named:
        why = "as requested"
    elif not comparison.has_images:
        why = "chosen by its settings, not by its scores (choose another with --baseline)"
    elif strength(base.config)[0] == 0:
        is_only = sum(strength(a.config) == strength(base.config) for a in comparison.measured) == 1
        why = "without L1 and L2" + (
            "" if is_only else " (of several such arms, bn comes first, then no norm, then the most common norm)"
        )
    else:
        why = "the weakest penalty, since no arm is without L1 and L2"
    return f"The baseline is {base.label}: {why}. "
