"""The smallest visible difference, the seeds still needed, and the outlook for a new seed."""

import math
from dataclasses import dataclass

from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.planning import Outlook, outlooks, power_text
from reg_sweep.comparison.sentences import DASH, bounds, count, is_known, margin, points, possible, signed
from reg_sweep.report.canvas import Canvas
from reg_sweep.runs.record import Metric
from reg_sweep.stats.power import MOST_SEEDS, Chance

N_ARMS = 12  # in the table


@dataclass(frozen=True)
class OutlookRow:
    """An arm in the table, as text. `key` links it with its other places; a `..._key` sorts a column."""

    label: str
    slot: int | None
    key: int | None
    n_seeds: int
    smallest: str
    smallest_key: float
    settled: str
    cost: str
    chance: str
    chance_key: float
    chance_interval: str
    wins: str
    crossed: str
    buy: str
    parts: str


@dataclass(frozen=True)
class Purchase:
    """The seeds that would settle an arm, in words, and the commands that train them."""

    label: str
    text: str
    commands: list[str]


@dataclass(frozen=True)
class OutlookSection:
    """`says` and `following` (the next runs) are about the verdict's arm.

    `has_looks`: a sequential study judges. `asks_margin`: only equivalence or non-inferiority was asked, so the table
    has its power instead of the smallest visible difference. `n_left_out` counts the arms missing from the table.
    """

    says: str
    following: Purchase | None
    rows: list[OutlookRow]
    purchases: list[Purchase]
    has_images: bool
    has_looks: bool
    asks_margin: bool
    n_left_out: int


def outlook_section(comparison: Comparison, canvas: Canvas, problems: list[str]) -> OutlookSection | None:
    """The outlook of a comparison; None where no arm shares a seed with the baseline."""
    found = outlooks(comparison, problems, N_ARMS)
    if not found:
        return None
    metric = comparison.metric
    subject = next((o for o in found if o.arm is comparison.best), found[0])
    n_rivals = sum(arm.contrast is not None for arm in comparison.measured)
    asks_margin = comparison.judgement is not None and comparison.judgement.question != "better"
    return OutlookSection(
        says=sentence(subject, comparison) if subject.arm.is_ranked else "",
        following=_purchased(subject) if _has_next(subject) else None,
        rows=[_row(o, canvas, metric) for o in found],
        purchases=[_purchased(o) for o in found if _has_next(o)],
        has_looks=comparison.design is not None,
        asks_margin=asks_margin,
        has_images=any(o.crossed is not None for o in found),
        n_left_out=max(n_rivals - len(found), 0),
    )


def sentence(o: Outlook, comparison: Comparison) -> str:
    """'With 3 seeds this comparison shows differences of 0.12 points or more with 80% power ...'; empty of one seed."""
    metric, judgement = comparison.metric, comparison.judgement
    if is_known(o.power_if_equal) and judgement is not None:
        with_seeds = f"With {count(o.n_seeds, 'seed')}"
        return _to_settle(o, power_text(judgement.question, margin(comparison), [o.power_if_equal], with_seeds))
    if not is_known(o.smallest):
        return ""
    if o.smallest > bounds(metric)[1]:
        versus = f"between {o.arm.label} and the baseline"
        return f"With {count(o.n_seeds, 'seed')} even the largest possible difference {versus} would mostly be missed."
    low, high = (signed(metric, end).removeprefix("+") for end in o.smallest_range)
    largest = bounds(metric)[1]
    if o.smallest_range[1] > largest:  # a difference that can't be
        high = f"more than {signed(metric, largest).removeprefix('+')}"
    seen = f"With {count(o.n_seeds, 'seed')} this comparison shows differences of {_size(o.smallest, metric)} or more"
    text = f"{seen} with 80% power, averaged over the plausible spreads "
    return _to_settle(
        o, f"{text}({low}{points(metric)} if the spread is small, {high}{points(metric)} if it is large)."
    )


def _to_settle(o: Outlook, text: str) -> str:
    if o.is_settled:
        return text
    if o.seeds is None:
        return f"{text} A difference as small as the one seen would take more than {MOST_SEEDS:,} seeds to settle."
    cost = _cost(o)
    fresh = "fresh seeds" if o.max_seeds is None else "seeds"
    takes = f", which takes {cost}" if cost else ""
    return f"{text} If the difference is as large as it looks, about {o.seeds:,} {fresh} would settle it{takes}."


def duration(hours: float) -> str:
    """'40 s', '12 min', '3.5 h', '12 h', '4 days'; empty where it is not known."""
    if not is_known(hours):
        return ""
    seconds = 3600 * hours
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{hours:.2g} h" if hours < 48 else f"{hours / 24:,.0f} days"


def _row(o: Outlook, canvas: Canvas, metric: Metric) -> OutlookRow:
    chance = o.chance
    return OutlookRow(
        label=o.arm.label,
        slot=canvas.slot(o.arm),
        key=canvas.key(o.arm),
        n_seeds=o.n_seeds,
        smallest=_smallest(o, metric),
        smallest_key=o.power_if_equal if is_known(o.power_if_equal) else o.smallest,
        settled=_settled(o),
        cost=_cost(o),
        chance=f"{100 * chance.probability:.0f}%" if chance and is_known(chance.probability) else DASH,
        chance_key=math.nan if chance is None else chance.probability,
        chance_interval="" if chance is None else _range(chance),
        wins="" if chance is None else _wins(chance),
        crossed=_crossed(o, metric),
        buy=DASH if o.crossed is None else o.crossed.buy,
        parts=_parts(o),
    )


def _size(difference: float, metric: Metric) -> str:
    return signed(metric, abs(difference)).removeprefix("+") + points(metric)


def _smallest(o: Outlook, metric: Metric) -> str:
    if is_known(o.power_if_equal):
        return f"{100 * o.power_if_equal:.0f}%"
    if not is_known(o.smallest):
        return DASH
    return _size(o.smallest, metric) if o.smallest <= bounds(metric)[1] else "none possible"


def _settled(o: Outlook) -> str:
    if o.is_settled:
        return "shown"
    if not (is_known(o.smallest) or is_known(o.power_if_equal)):
        return DASH
    return f"more than {MOST_SEEDS:,}" if o.seeds is None else f"{o.seeds:,}"


def _cost(o: Outlook) -> str:
    time = duration(o.hours)
    return f"about {time}" if time else ""


def _has_next(o: Outlook) -> bool:
    return bool(o.commands) or o.max_seeds is not None


def _purchased(o: Outlook) -> Purchase:
    cost = _cost(o)
    if o.max_seeds is not None:
        more = count(0 if o.seeds is None else o.seeds - o.n_seeds, "more seed")
        text = f"{more} of this arm and of the baseline{f', {cost}' if cost else ''}, by the study's command with "
        return Purchase(o.arm.label, f"{text}max_seeds={o.max_seeds}", o.commands)
    text = "a study of this arm and of the baseline on fresh seeds, "
    text += f"{count(o.seeds or 0, 'seed')} if the difference is as large as it looks"
    why = (
        "these runs were judged, and testing them again with more would err more often than 5%; studies on fresh seeds "
        "have an error of 2.5% together"
    )
    return Purchase(o.arm.label, f"{text}{f', {cost}' if cost else ''}; {why}", o.commands)


def _range(chance: Chance) -> str:
    if not is_known(chance.ci_low):
        return ""
    return f"{100 * chance.ci_low:.0f} to {100 * chance.ci_high:.0f}"


def _wins(chance: Chance) -> str:
    """'won 5, tied 1, lost 2 of 8'."""
    ties = f"tied {chance.tie.count}, " if chance.tie.count else ""
    return f"won {chance.win.count}, {ties}lost {chance.loss.count} of {chance.n}"


def _crossed(o: Outlook, metric: Metric) -> str:
    if o.crossed is None:
        return DASH
    low, high = (possible(metric, end) for end in (o.crossed.ci_low, o.crossed.ci_high))
    return f"{signed(metric, low)} to {signed(metric, high)}"


def _parts(o: Outlook) -> str:
    """Shares of the variance from seeds, from images and from both: 'seeds 84%, images 0%, both 16%'."""
    x = o.crossed
    whole = 0.0 if x is None else x.from_seeds + x.from_images + x.from_both
    if x is None or not whole > 0:
        return ""
    parts = (("seeds", x.from_seeds), ("images", x.from_images), ("both", x.from_both))
    return ", ".join(f"{name} {100 * part / whole:.0f}%" for name, part in parts)
