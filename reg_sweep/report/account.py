"""What a page says of all its tables: the error of their verdicts, and a warning about a sample."""

from reg_sweep.comparison.compare import Comparison
from reg_sweep.stats.judgement import ALPHA


def sample_warning(comparisons: list[Comparison]) -> str:
    """A warning about runs on the offline sample; empty if there are none."""
    on_sample = [c for c in comparisons if c.data.source == "offline sample"]
    if not on_sample:
        return ""
    runs = (
        "these runs" if len(on_sample) == len(comparisons) else f"the runs on {'; '.join(c.label for c in on_sample)}"
    )
    missing = [name for name in dict.fromkeys(c.data.name for c in on_sample) if name != "mnist_5k"]
    why = f", since {' and '.join(missing)} was out of reach" if missing else ""
    return (
        f"Offline sample: {runs} saw 5,000 of MNIST's images{why}. Their results do not stand for the whole data set."
    )


def page_error(comparisons: list[Comparison]) -> str:
    """The probability that a page marks anything false as shown; empty where nothing is judged."""
    judged = [c.judgement for c in comparisons if c.judgement is not None and len(c.measured) > 1 and c.n_seeds > 1]
    alphas = [j.alpha for j in judged if not j.exploratory]
    if not alphas:
        return ""
    beside = "Everything marked exploratory is outside this error, and is not used in a verdict."
    whole = min(1.0, sum(alphas))
    if whole <= ALPHA * (1 + 1e-9):
        return f"At most one page in twenty marks anything false as shown. {beside}"
    return (
        f"{len(alphas)} tables are judged here, each with an error of {100 * alphas[0]:g}% of its own: of twenty such "
        f"tables at most one marks anything false as shown, of such pages up to {100 * whole:g}% do. --error all "
        f"splits one 5% over the page. {beside}"
    )
