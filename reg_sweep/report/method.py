"""A comparison's title, question and method in words, from the settings that its arms share and those that vary."""

from collections.abc import Iterator
from typing import Any

from reg_sweep.comparison.arms import Arm
from reg_sweep.comparison.claims import is_exercise
from reg_sweep.comparison.compare import Comparison
from reg_sweep.comparison.conclusions import Paragraph, in_words
from reg_sweep.comparison.labels import listed, spelled
from reg_sweep.comparison.sentences import count, margin, words


def _varied(comparison: Comparison) -> list[str]:
    if not comparison.has_images:
        return []
    arms = comparison.measured
    varied = [key.upper() for key in ("l1", "l2") if len({arm.config[key] for arm in arms}) > 1]
    norms = {str(arm.config["norm"]["name"]) for arm in arms}
    if len(norms) > 1:
        varied.append("ghost batch norm" if norms == {"bn", "gbn"} else "the normalization layer")
    return varied


def title(comparison: Comparison) -> str:
    """Title of a comparison: its subject and its data; an exercise by its name."""
    if not comparison.has_images:
        return f"{count(len(comparison.measured), 'arm')} compared: {comparison.label}"
    varied = listed(_varied(comparison)) or "One arm"
    kinds = {str(arm.config["penalty"]["name"]) for arm in comparison.measured}
    norms = {str(arm.config["norm"]["name"]) for arm in comparison.measured}
    exercise = ""
    if is_exercise(comparison) and len(comparison.measured) > 2:
        if kinds == {"notebook"}:
            exercise = "Exercise B: "
        elif kinds == {"textbook"} and norms == {"bn", "gbn"}:
            exercise = "Exercise A: "
    return f"{exercise}{varied[:1].upper() + varied[1:]} on {comparison.data.name}"


def question(comparison: Comparison) -> str:
    """The question that the arms answer, from what varies among them."""
    base, varied = comparison.baseline, _varied(comparison)
    if base is not None and not comparison.has_images:
        return f"Which arm has the best {words(comparison.metric)}, and by how much is it better than {base.label}?"
    if base is None or len(comparison.measured) < 2:
        return f"How well does one arm classify the images of {comparison.data.name}?"
    what, images = _network(comparison), f"the images of {comparison.data.name}"
    if not varied:
        return f"Which of {len(comparison.measured)} settings lets {what} classify {images} best?"
    do = "Do" if len(varied) > 1 else "Does"
    together = f"{listed(varied)}, alone or together," if len(varied) > 1 else varied[0]
    strengths = {key.upper(): {arm.config[key] for arm in comparison.measured} - {0} for key in ("l1", "l2")}
    several = [name for name, its in strengths.items() if len(its) > 1]
    how_much = f" And how much {listed(several)} is best?" if several else ""
    return f"{do} {together} make {what} better at classifying {images} than {in_words(base)}?{how_much}"


def _network(comparison: Comparison) -> str:
    if is_exercise(comparison):
        return "the exercises' small convolutional network"
    base = comparison.baseline
    model = base.config.get("model") if base is not None else None
    target = str(model.get("_target_", "")) if isinstance(model, dict) else ""
    return f"the network {target.rpartition('.')[2]}" if target else "the network"


def method(comparison: Comparison) -> Iterator[Paragraph]:
    """Network, images, training, arms and comparison, a paragraph each."""
    base, held = comparison.baseline, comparison.held_fixed
    assert base is not None  # of arms with complete runs one is the baseline
    if not comparison.has_images:
        yield Paragraph("Arms", f"{count(len(comparison.measured), 'arm')}, each against {base.label}.")
        yield Paragraph("Comparison", _judged(comparison))
        return
    first = base.replicates[0]
    network = _network(comparison)
    size = f"{network[:1].upper()}{network[1:]}"
    if first.n_parameters:
        size += f", with {first.n_parameters:,} parameters"
    yield Paragraph("Network", f"{size}.")
    yield Paragraph("Images", _images_used(comparison, held))
    yield Paragraph("Training", _training(held, has_l1=any(arm.config["l1"] > 0 for arm in comparison.measured)))
    yield Paragraph("Arms", _arms(comparison, base, held))
    yield Paragraph("Comparison", _judged(comparison))


def _images_used(comparison: Comparison, held: dict[str, Any]) -> str:
    data = comparison.data
    n = [(data.n_train, "train"), (data.n_val or None, "val"), (data.n_test, "test")]
    said = f"{data.name} ({data.source}): {listed([f'{k:,} {split}' for k, split in n if k is not None])} images"
    if data.label_noise:
        said += f", {100 * data.label_noise:g}% of the train labels wrong"
    changes = [
        (f"rotation by up to {_number(held.get('data.rotation'))} degrees", held.get("data.rotation")),
        (f"brightness by up to {_percent(held.get('data.brightness'))}", held.get("data.brightness")),
        (f"contrast by up to {_percent(held.get('data.contrast'))}", held.get("data.contrast")),
        ("horizontal flips", held.get("data.flip")),
        (f"crops shifted by up to {held.get('data.crop')} pixels", held.get("data.crop")),
    ]
    augmented = [text for text, size in changes if size]
    said += f". Train images are varied at random in each epoch: {', '.join(augmented)}." if augmented else "."
    if not data.n_val:
        said += " No images are held out for validation: the test images are evaluated after each epoch."
    return said


def _number(x: Any) -> str:
    return f"{x:g}" if isinstance(x, int | float) else str(x)


def _percent(share: Any) -> str:
    return f"{100 * share:g}%" if isinstance(share, int | float) else ""


_FORMS = {
    "textbook": "L1 and L2 act on the weights of convolutions and linear layers, in the textbook's form",
    "notebook": "L1 and L2 act on all parameters, in the form of exercise B's published notebook: L1 takes the mean of "
    "|w| over each tensor, not the sum",
}
_UPDATES = {
    "subgradient": "L1 acts by its subgradient, which leaves small weights near 0 and seldom at exactly 0",
    "proximal": "L1 acts by its proximal step, which sets small weights to exactly 0",
}


def _training(held: dict[str, Any], *, has_l1: bool) -> str:
    optimizer = str(held.get("optimizer.name", "")).upper()
    found = [
        (optimizer, optimizer),
        (f"learning rate {held.get('optimizer.lr')}", held.get("optimizer.lr")),
        (f"momentum {held.get('optimizer.momentum')}", held.get("optimizer.momentum")),
        (f"{held.get('schedule.name')} schedule", held.get("schedule.name")),
        (f"batches of {held.get('batch_size')}", held.get("batch_size")),
        (count(int(held.get("epochs") or 0), "epoch"), held.get("epochs")),
    ]
    said = ", ".join(text for text, value in found if value)
    form = _FORMS.get(str(held.get("penalty.name")), "")
    is_plain = has_l1 and held.get("penalty.l1_on") in (None, "weights")
    update = _UPDATES.get(str(held.get("penalty.l1_update")), "") if is_plain else ""
    parts = [f"{part}." for part in (said, form, update) if part]
    return " ".join(parts) or "The arms share no setting of their training."


def _arms(comparison: Comparison, base: Arm, held: dict[str, Any]) -> str:
    others = [arm.label for arm in comparison.measured if arm is not base]
    said = f"The baseline is {in_words(base)}"
    if others:
        said += f"; {'one other arm' if len(others) == 1 else f'{spelled(len(others)).lower()} other arms'}: "
        said += f"{'; '.join(others[:20])}{f' and {len(others) - 20} more' if len(others) > 20 else ''}"
    seeds = sorted({seed for arm in comparison.measured for seed in arm.seeds})
    said += (
        f". Seeds: {listed([str(s) for s in seeds[:10]])}{f' and {len(seeds) - 10} more' if len(seeds) > 10 else ''}"
    )
    said += ". The same seed gives every arm the same initial weights, batches, augmentation and dropout masks."
    return f"{said}{_ghosts(comparison, held)}"


def _ghosts(comparison: Comparison, held: dict[str, Any]) -> str:
    """A sentence on ghost batch norm, where an arm has it."""
    if all(arm.config["norm"]["name"] != "gbn" for arm in comparison.measured):
        return ""
    size = held.get("norm.ghost_batch_size")
    parts = f"each {size} images" if size else "each part"
    return f" Ghost batch norm (gbn) normalizes {parts} of a batch by their own means and variances."


def _judged(comparison: Comparison) -> str:
    metric, judgement = words(comparison.metric), comparison.judgement
    at = "the last epoch" if comparison.epoch == "last" else "the epoch of the lowest val loss"
    what = f"{metric[:1].upper()}{metric[1:]} at {at}" if comparison.has_images else f"{metric} at the judged step"
    if judgement is None or (comparison.n_seeds < 2 and comparison.has_images):
        return f"{what}, of two trained networks, by McNemar's exact test over the test images."
    how = "interim analyses of a sequential study" if comparison.design is not None else "one analysis"
    paired = "paired by seed" if judgement.pairing == "seeds" else "not paired"
    error = f"with one error of {100 * judgement.alpha:g}% over all arms"
    said = f"{what}, arm by arm against the baseline, {paired}: t tests with {judgement.variance} variances in {how}, "
    said += "exploratory and without a verdict." if judgement.exploratory else f"{error}."
    if margin(comparison):
        said += f" A difference within {margin(comparison)} does not matter."
    return said + (f" The best arm is chosen on {comparison.selected_on}." if comparison.has_images else "")
