"""Conclusions in words: what was compared, what the numbers show and what of the exercises they support.

The page and the handout share these texts. Where nothing is shown, the conclusion says how large the differences may be
at most, and what it would take to show them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from reg_sweep.comparison import insights
from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.claims import ClaimResult, claim_results, is_exercise
from reg_sweep.comparison.commands import seeds_to_train
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.insights import ClaimText, Spread, spread_text, spreads
from reg_sweep.comparison.labels import NORM_WORDS, flatten, listed, spelled
from reg_sweep.comparison.planning import cost_text, visible_text
from reg_sweep.comparison.sentences import (
    count,
    counts,
    difference_interval,
    error,
    is_boundless,
    is_known,
    level,
    margin,
    pairing_text,
    points,
    signed,
    split_over,
    words,
)
from reg_sweep.runs.ranking import lambda_text
from reg_sweep.stats.estimates import exceeds_range
from reg_sweep.stats.verdict import Verdict

TO_RESUME = "rerun the command that trained them, with hydra.sweeper.retry_failed=true if runs failed in a study"
N_LISTED = 4  # up to so many arms of a kind are listed one by one; for more, only their range is given
N_KINDS = 8  # kinds of arms with a sentence of their own; the others share one

Evidence = Literal["arms", "curves", "weights"]


@dataclass(frozen=True)
class Sentence:
    """A sentence, and the part of the page that shows its evidence."""

    text: str
    evidence: Evidence


@dataclass(frozen=True)
class Paragraph:
    """A paragraph with its heading."""

    heading: str
    text: str


@dataclass(frozen=True)
class Conclusions:
    """The conclusions as prose, the facts beside them, and the exercises' claims with each of their tests."""

    paragraphs: list[Paragraph] = field(default_factory=list)
    sentences: list[Sentence] = field(default_factory=list)
    claims: list[ClaimText] = field(default_factory=list)


def conclusions(comparison: Comparison) -> Conclusions:
    """The conclusions about a table's arms; with one seed or one arm, the only facts are those about weights."""
    base, sentences = comparison.baseline, []
    if base is None or not comparison.has_images:
        return Conclusions()
    if comparison.n_seeds > 1 and len(comparison.measured) > 1:
        sentences += [Sentence(text, "curves") for text in (insights.steadiness(comparison, base),) if text]
        sentences += [Sentence(text, "arms") for text in (insights.agreement(comparison, base),) if text]
    sentences += [Sentence(text, "weights") for text in insights.weights(comparison)]
    claims = claim_results(comparison)
    return Conclusions(_paragraphs(comparison, base, claims), sentences, [insights.claim_text(f) for f in claims])


def _paragraphs(comparison: Comparison, base: Arm, claims: list[ClaimResult]) -> list[Paragraph]:
    parts = {
        "What was compared": _compared(comparison, base),
        "What the numbers show": _shown(comparison, base),
        "The published conclusions": insights.published(comparison, claims),
        "What can't be said yet": _unsaid(comparison, base),
    }
    return [Paragraph(heading, text) for heading, text in parts.items() if text]


# ---- what was compared


def _compared(comparison: Comparison, base: Arm) -> str:
    data, others = comparison.data, [arm for arm in comparison.measured if arm is not base]
    numbers = [(data.n_train, "train"), (data.n_val or None, "val"), (data.n_test, "test")]
    counted = listed([f"{n:,} {split}" for n, split in numbers if n is not None])
    n_epochs = base.config["epochs"]
    length = f" for {count(n_epochs, 'epoch')}" if all(a.config["epochs"] == n_epochs for a in others) else ""
    ran = count(sum(len(arm.replicates) for arm in comparison.measured), "run")
    images = f"{data.name} ({counted} images)"
    if not others:
        only = "One arm was trained" if len(comparison.arms) == 1 else "Only one arm has complete runs"
        return f"{only}, {in_words(base)}: {ran}{length} on {images}."
    arms = "One arm was" if len(others) == 1 else f"{spelled(len(others))} arms were"
    said = f"{arms} compared with the baseline, {in_words(base)}, {_each_on(comparison)}: {ran}{length} on {images}. "
    said += f"Differences are in {words(comparison.metric)} at the {_epoch(comparison)}"
    if comparison.n_seeds > 1:
        corrected = f", corrected for {split}" if (split := split_over(comparison)) else ""
        paired = pairing_text(comparison, "paired by seed")
        said += f", {paired}, with {level(comparison)} intervals{corrected}"
    incomplete = Counter({s: n for s, n in comparison.n_by_status.items() if s not in ("complete", "pruned")})
    left = f" Runs that don't count: {counts(incomplete)}." if incomplete.total() else ""
    return f"{said}.{left}"


def in_words(arm: Arm) -> str:
    """'batch norm without a penalty (bn)': an arm's norm and lambdas, and its label."""
    name = str(arm.config["norm"]["name"])
    strengths = [key.upper() for key in ("l1", "l2") if arm.config[key] > 0]
    penalty = f"with {' and '.join(strengths)}" if strengths else "without a penalty"
    return f"{NORM_WORDS.get(name, name)} {penalty} ({arm.label})"


def _each_on(comparison: Comparison) -> str:
    """'each on seeds 1, 2 and 3'."""
    tried = {tuple(arm.seeds) for arm in comparison.measured}
    if len(tried) > 1:
        fewest, most = min(map(len, tried)), max(map(len, tried))
        return f"{'each on' if fewest == most else f'on {fewest} to'} {count(most, 'seed')}"
    (seeds,) = tried
    if len(seeds) > 5:
        return f"each on {len(seeds)} seeds"
    return f"each on seed{'s' if len(seeds) > 1 else ''} {listed(list(map(str, seeds)))}"


def _epoch(comparison: Comparison) -> str:
    return "last epoch" if comparison.epoch == "last" else "epoch of the lowest val loss"


# ---- what the numbers show


def _shown(comparison: Comparison, base: Arm) -> str:
    others = [arm for arm in comparison.listed if arm is not base]
    if not others:
        return ""
    groups = list(_groups(base, others).items())
    n_told = N_KINDS if len(groups) > N_KINDS + 1 else len(groups)
    rest = [arm for _, arms in groups[n_told:] for arm in arms]
    rough = spreads(comparison, base) if comparison.n_seeds > 1 and is_exercise(comparison) else {}
    sentences = [_lead(comparison, base, others)]
    for name, arms in groups[:n_told]:
        if len(arms) == 1:
            sentences.append(_of_arm(name, arms[0], comparison, rough))
        else:
            sentences.append(_of_arms(name, arms, comparison, rough))
    sentences += [_of_arms(f"The other {len(rest)} arms", rest, comparison, rough)] if rest else []
    return " ".join(sentences)


def _lead(comparison: Comparison, base: Arm, others: list[Arm]) -> str:
    """The answer first: which arms are better and worse, or that none is shown to be."""
    if comparison.compares_models:
        return "One seed compares trained networks, not methods: another seed gives other networks."
    if comparison.judgement is not None and comparison.judgement.exploratory:
        return f"Exploratory, since {comparison.judgement.exploratory}: figures without a verdict."
    is_shown = any(a.verdict is not None and a.verdict.is_settled for a in others)
    if (base.has_diverged or base.failed) and not is_shown:
        how, lost = ("diverged", len(base.diverged)) if base.diverged else ("failed", len(base.failed))
        return (
            f"The baseline {how} on {lost} of its {count(len(base.tried), 'seed')}, so its other seeds are not a "
            "fair sample: no arm is judged by its mean."
        )
    by_tone = {tone: [a for a in others if a.verdict and a.verdict.tone == tone] for tone in TONES}
    said = [f"{_some(arms)} shown {tone} than the baseline" for tone, arms in by_tone.items() if arms]
    if not said:
        said = [f"{'No arm is' if len(others) > 1 else 'The arm is not'} shown better or worse than the baseline"]
    alike = [a for a in others if a.verdict is Verdict.EQUIVALENT]
    if alike:
        said.append(f"{_some(alike)} shown equivalent to it within {margin(comparison)}")
    return f"{'; '.join(said)}."


TONES: tuple[Literal["better", "worse"], ...] = ("better", "worse")


def _some(arms: Sequence[Arm]) -> str:
    """'bn · L1 0.1 is', 'gbn, gn and 3 more are'."""
    return f"{listed([a.label for a in arms], insights.N_NAMED)} {'is' if len(arms) == 1 else 'are'}"


def _groups(base: Arm, others: list[Arm]) -> dict[str, list[Arm]]:
    """The other arms by what distinguishes them from the baseline, in the exercises' order."""
    groups: dict[str, list[Arm]] = {}
    for arm in others:
        groups.setdefault(_difference_in_words(arm, base), []).append(arm)
    first = ["L1 alone", "L2 alone", "L1 and L2 together"]

    def place(name: str) -> tuple[int, bool]:
        return first.index(name) if name in first else len(first), " with " in name

    return {name: groups[name] for name in sorted(groups, key=place)}


def _difference_in_words(arm: Arm, base: Arm) -> str:
    """'L1 alone', 'Ghost batch norm with L1 and L2', 'A stronger L1', or the arm's label."""
    ours, theirs = flatten(arm.config), flatten(base.config)
    apart = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    keys = {key for key in apart if key in ("l1", "l2")}
    if any(key not in keys and not key.startswith("norm.") for key in apart):
        return arm.label
    is_without = base.config["l1"] == base.config["l2"] == 0
    strengths = [key.upper() for key in ("l1", "l2") if (arm.config[key] > 0 if is_without else key in keys)]
    name = str(arm.config["norm"]["name"])
    norm = NORM_WORDS.get(name, name).capitalize() if apart - keys else ""
    if not strengths:
        return norm or arm.label
    penalty = " and ".join(strengths)
    if not is_without and arm.config["l1"] == arm.config["l2"] == 0:
        return f"{norm} without a penalty" if norm else "No penalty"
    if not is_without:
        penalty = f"another strength of {penalty}" if any(base.config[key] for key in keys) else f"{penalty} added"
        return f"{norm} with {penalty}" if norm else penalty[:1].upper() + penalty[1:]
    if norm:
        return f"{norm} with {penalty}"
    return f"{penalty} alone" if len(strengths) == 1 else f"{penalty} together"


_PLURAL = {"helps": "help", "hurts": "hurt", "makes": "make", "costs": "cost", "is": "are", "gave": "gave"}


def _of_arm(name: str, arm: Arm, comparison: Comparison, rough: dict[str, Spread]) -> str:
    """'L2 alone is not shown to help or to hurt: between -0.13 and +0.09 points (mean -0.02); ...'."""
    verb = (arm.verdict or Verdict.NOT_RANKED).verb.format(margin=margin(comparison))
    if name == "L1 and L2 together":
        first, _, rest = verb.partition(" ")
        verb = f"{_PLURAL.get(first, first)} {rest}".strip()
    label = "" if name.lower() == arm.label.lower() else f" ({arm.label})"
    if not arm.replicates:
        return f"{name}{label}{f' {verb}:' if verb else ''} has {_no_run(arm)}."
    if not verb:
        return f"{name}{label} can't be judged: {_why_unjudged(arm, comparison)}."
    return f"{name}{label} {verb}: {_range(arm, comparison)}{_curves([arm], rough)}."


def _why_unjudged(arm: Arm, comparison: Comparison) -> str:
    """Why an arm has no verdict, and its mean on the seeds that it shares with the baseline."""
    lost = len(arm.missing)
    if arm.has_diverged:
        why = f"{len(arm.diverged)} of its {count(len(arm.tried), 'seed')} diverged, so the rest are not a fair sample"
    elif lost:
        how = "lacks" if len(arm.failed) < lost else "failed on"
        unlucky = "the unlucky one" if lost == 1 else "the unlucky ones"
        n = comparison.n_seeds if arm.finding is None else arm.finding.n_expected
        whose = pairing_text(comparison, "the baseline's", "its")
        why = f"it {how} {lost} of {whose} {count(n, 'seed')}, perhaps {unlucky}"
    else:
        why = "the baseline lost seeds" if arm.contrast is not None else "it shares no seed with the baseline"
    if arm.contrast is None:
        return why
    seen = f"{signed(comparison.metric, arm.contrast.difference.mean)}{_unit(comparison)}"
    common = pairing_text(comparison, "in common", "that are left")
    return f"{why} ({seen} on {count(arm.contrast.pairs, 'seed')} {common})"


def _unit(comparison: Comparison) -> str:
    return points(comparison.metric) or f" in {words(comparison.metric)}"


def _range(arm: Arm, comparison: Comparison) -> str:
    """'between -0.13 and +0.09 points (mean -0.02)'."""
    c, metric = arm.contrast, comparison.metric
    if c is None:
        return "no seed in common with the baseline"
    mean, unit = signed(metric, c.difference.mean), _unit(comparison)
    evidence, of_level = c.difference, ""
    if c.rests_on_margin:
        evidence, of_level = c.evidence, f"; {c.evidence_level(error(comparison))} interval"
    if c.is_tied:
        return f"{mean}{unit} on every seed (no spread, so no interval)"
    if not is_known(c.difference.ci_low):
        return f"a difference of {mean}{unit}, with no interval"
    if is_boundless(metric, c.difference):
        return f"a difference of {mean}{unit} on average, and {count(c.pairs, 'seed')} are too few to bound it"
    over = " over the test images" if c.by_image else ""
    ends = difference_interval(metric, evidence).replace(" to ", " and ")
    return f"between {ends}{unit}{over} ({'here' if c.by_image else 'mean'} {mean}{of_level})"


def _curves(arms: list[Arm], rough: dict[str, Spread]) -> str:
    """Compares the curves with the exercises: L2 roughens them, L1 alone smooths them; empty if not measured."""
    found = [rough[arm.digest] for arm in arms if arm.digest in rough]
    if not found or not (arms[0].config["l1"] or arms[0].config["l2"]):
        return ""
    word, is_rougher = ("rocky", True) if arms[0].config["l2"] > 0 else ("smoother", False)
    said = {of.finding_on(is_rougher) for of in found}
    seen = next(text for text in ("is seen", "is contradicted", "is not shown", "is not seen") if text in said)
    if len(found) > 1:
        figures = f"{listed([f'{of.ratio:.2f}' for of in found])} times the baseline's"
    else:
        figures = spread_text(found[0]).replace(" times (", " times the baseline's (")
    return f"; the exercise's {word} curve {seen}: last-quarter spread {figures}"


def _of_arms(name: str, arms: list[Arm], comparison: Comparison, rough: dict[str, Spread]) -> str:
    """Tallies the arms that differ from the baseline in the same way, with each arm's interval or the common range."""
    were, are = ("were", "are") if name.startswith(("L1 and L2", "The other")) else ("was", "is")
    settings = "" if name.startswith("The other") else f", at {spelled(len(arms)).lower()} settings,"
    n_of = {tone: sum(a.verdict is not None and a.verdict.tone == tone for a in arms) for tone in TONES}
    said = f"{name}{settings} {are} shown better at {n_of['better'] or 'none'} and worse at {n_of['worse'] or 'none'}"
    if comparison.compares_models or not any(_is_judged(a) for a in arms):
        said = f"{name} {were} tried{settings.strip(',')}"
    elif not any(n_of.values()):
        said = f"{name}{settings} {are} not shown to help or to hurt"
    if len(arms) <= N_LISTED:
        by_strength = sorted(arms, key=lambda a: (a.config["l1"], a.config["l2"]))
        each = (f"{_setting(arm, arms)} {_seen(arm, comparison)}" for arm in by_strength)
        return f"{said}: {'; '.join(each)}{_curves(by_strength, rough)}."
    return f"{said}{_all_between(arms, comparison)}."


def _no_run(arm: Arm) -> str:
    """'no complete run (1 failed)'; or that the complete ones have no score that can be read."""
    what = "no score that can be read" if arm.n_by_status["complete"] else "no complete run"
    return f"{what} ({counts(arm.n_by_status)})"


def _is_judged(arm: Arm) -> bool:
    return bool(arm.replicates and arm.verdict and arm.verdict.verb)


def _seen(arm: Arm, comparison: Comparison) -> str:
    if not arm.replicates:
        return _no_run(arm)
    return _range(arm, comparison) if _is_judged(arm) else f"not judged, since {_why_unjudged(arm, comparison)}"


def _setting(arm: Arm, arms: list[Arm]) -> str:
    """'at L1 0.001': the settings that distinguish an arm from others of its kind."""
    strengths = [f"{key.upper()} {lambda_text(arm.config[key])}" for key in ("l1", "l2") if arm.config[key] > 0]
    n_norms, n_pairs = (len({str([a.config[key] for key in of]) for a in arms}) for of in (["norm"], ["l1", "l2"]))
    return f"at {' and '.join(strengths)}" if strengths and n_norms == 1 and n_pairs == len(arms) else arm.label


def _all_between(arms: list[Arm], comparison: Comparison) -> str:
    """'; all differences lie between -0.33 and +0.26 points; the best of them on val, bn, ...'."""
    metric, said = comparison.metric, ""
    found = [a.contrast.difference for a in arms if a.contrast is not None and is_known(a.contrast.difference.ci_low)]
    if found:
        low, high = min(d.ci_low for d in found), max(d.ci_high for d in found)
        said = f"; all differences lie between {signed(metric, low)} and {signed(metric, high)}{_unit(comparison)}"
        if metric.unit == "share" and exceeds_range(low, high, 0, 1):
            said = f"; {count(comparison.n_seeds, 'seed')} are too few to bound the differences"
    best = next((a for a in comparison.ranked if a in arms), None)
    if best is not None and best.contrast is not None:
        said += f"; the best of them on {comparison.selected_on}, {best.label}: {_range(best, comparison)}"
    return said


# ---- what can't be said


def _unsaid(comparison: Comparison, base: Arm) -> str:
    others = [arm for arm in comparison.measured if arm is not base]
    said = [] if others else ["There is nothing to compare this arm with."]
    if others and comparison.compares_models:
        said.append(
            "Nothing can be said about methods: that takes at least two seeds per arm, preferably three or more."
        )
    elif others:
        said += [text for text in (visible_text(comparison, others), cost_text(comparison, others)) if text]
    if any(arm.failed or (arm.missing and not arm.has_diverged) for arm in (base, *others)):
        is_failed = any(arm.failed for arm in (base, *others))
        to_do = TO_RESUME if is_failed or not seeds_to_train(comparison) else "train these seeds"
        said.append(f"Some seeds are missing or failed: {to_do}.")
    if all(arm.config["l1"] or arm.config["l2"] for arm in (base, *others)):
        said.append("No arm was trained without a penalty, so these runs can't show whether a penalty helps.")
    if comparison.selected_on == "test" and others:
        said.append("No val images were held out, so the best arm's lead is optimistic: test chose it.")
    said.append(
        f"All of this holds for {comparison.data.name}, this network and this training: other images, networks or "
        "lengths of training may differ."
    )
    return " ".join(said)
