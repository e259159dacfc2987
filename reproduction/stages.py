"""The trainings behind docs/reproduction.md: each stage's commands, which you can also type yourself.

A stage is created when its turn comes, because some stages use the lambdas that earlier stages chose.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reg_sweep.config.schema import DataConfig
from reg_sweep.runs.record import STUDY_FILE
from reg_sweep.runs.study import read_study

N_TEST = 10_000
N_VAL = 10_000
# Exercise B's (l1, l2), in the order of its table.
PAIRS = [(0, 0), (0.001, 0), (0, 0.0005), (0.001, 0.0005), (0.0005, 0), (0, 0.0001), (0.0005, 0.0001)]
LAMBDAS = [0.0005, 0.005, 0.0001, 0.001]
FIRST_FRESH_SEED = 101  # no search used it
FIRST_FAST_SEED, LAST_FAST_SEED = 11, 26
EIGHT = ("experiment=fast8",)  # the recipe that searches and exercise A's arms were trained with
N_EPOCHS = 8
N_TRIALS = 30
MAX_SEEDS = 8
LAST = "test_epochs=last"


@dataclass(frozen=True)
class Job:
    """One command: `python -m reg_sweep.train` and these overrides; it leaves `outputs/<name>`.

    `compacts` is a run whose compact network it trains further: `python -m reg_sweep.compact outputs/<compacts>` first.
    `n_images` is its cost: the number of images trained on over all epochs, plus a quarter of those evaluated, which
    take a quarter of the time; for a study, the largest possible number.
    """

    name: str
    overrides: tuple[str, ...]
    n_images: float
    is_study: bool = False
    compacts: str = ""


@dataclass(frozen=True)
class Stage:
    """Commands that don't depend on each other, and the subject of their report."""

    name: str
    about: str
    jobs: Callable[[Path], Iterator[Job]]  # called with the folder of all outputs
    needs: str | None = None  # the stage that chooses its lambdas


def cost(epochs: int, n_train: int, n_eval: int) -> float:
    return epochs * (n_train + n_eval / 4)


# ---- exercise B


def exercise_b(outputs: Path) -> Iterator[Job]:
    """Exercise B's seven pairs, 40 epochs, in its own protocol; seed by seed, so that complete rows are ready early."""
    for seed in (1, 2, 3):
        for l1, l2 in PAIRS:
            yield _of_b("exercise_b", l1, l2, seed, epochs=40)


def exercise_b_l1(outputs: Path) -> Iterator[Job]:
    """Exercise B's study of L1 alone."""
    yield from (_of_b("exercise_b_l1", l1, 0, seed, epochs=20) for seed in (1, 2, 3) for l1 in LAMBDAS)


def exercise_b_l2(outputs: Path) -> Iterator[Job]:
    """Exercise B's study of L2 alone."""
    yield from (_of_b("exercise_b_l2", 0, l2, seed, epochs=20) for seed in (1, 2, 3) for l2 in LAMBDAS)


def _of_b(stage: str, l1: float, l2: float, seed: int, epochs: int) -> Job:
    overrides = ["experiment=exercise_b", f"l1={l1}", f"l2={l2}", f"seed={seed}"]
    if epochs != 40:
        overrides.append(f"epochs={epochs}")
    return Job(f"{stage}/{l1}_{l2}_{seed}", tuple(overrides), cost(epochs, 60_000, N_TEST))


# ---- the fast recipes, and the studies that use them


def fast8(outputs: Path) -> Iterator[Job]:
    """Eight epochs, ten seeds."""
    for seed in range(1, 11):
        yield Job(f"fast8/{seed}", (*EIGHT, f"seed={seed}"), cost(N_EPOCHS, 50_000, N_VAL + N_TEST))


def fast(outputs: Path) -> Iterator[Job]:
    """Six and eight epochs, on seeds that chose no other setting. (Eight on 11 to 18: `smaller_mnist/dense_*`.)"""
    for seed in range(FIRST_FAST_SEED, LAST_FAST_SEED + 1):
        yield Job(f"fast/{seed}", ("experiment=fast", LAST, f"seed={seed}"), cost(6, 50_000, N_VAL))
    for seed in range(FIRST_FAST_SEED + 8, LAST_FAST_SEED + 1):
        yield Job(f"fast8/{seed}", (*EIGHT, LAST, f"seed={seed}"), cost(N_EPOCHS, 50_000, N_VAL))


def _search(name: str, study: str, *setting: str, n_train: int = 50_000, epochs: int = N_EPOCHS) -> Job:
    most = N_TRIALS * cost(epochs, n_train, N_VAL + N_TEST)
    return Job(name, (f"study={study}", *EIGHT, *setting), most, is_study=True)


def _until_verdict(name: str, points: list[str], *setting: str, n_train: int = 50_000, epochs: int = N_EPOCHS) -> Job:
    """Arms at these points, judged on at most MAX_SEEDS seeds that no search used."""
    overrides = (
        "study=until_verdict",
        *setting,
        f"hydra.sweeper.enqueue=[{','.join(points)}]",
        f"hydra.sweeper.first_seed={FIRST_FRESH_SEED}",
        f"max_seeds={MAX_SEEDS}",
    )
    return Job(name, overrides, MAX_SEEDS * len(points) * cost(epochs, n_train, N_VAL + N_TEST), is_study=True)


def exercise_a_search(outputs: Path) -> Iterator[Job]:
    """Exercise A's lambdas, chosen on val."""
    yield _search("exercise_a_search_l1", "l1_search")
    yield _search("exercise_a_search_l2", "l2_search")


def exercise_a(outputs: Path) -> Iterator[Job]:
    """Exercise A's five arms and none_bn: at the chosen lambdas, and at those that exercise B published."""
    chosen = best(outputs, "exercise_a_search_l1", "l1"), best(outputs, "exercise_a_search_l2", "l2")
    for name, (l1, l2) in {"exercise_a": chosen, "exercise_a_published": (0.001, 0.0005)}.items():
        arms = [("bn", 0, 0), ("bn", l1, 0), ("bn", 0, l2), ("bn", l1, l2), ("gbn", 0, 0), ("gbn", l1, l2)]
        points = [f"{{norm:{norm},l1:{a},l2:{b}}}" for norm, a, b in arms]
        yield _until_verdict(name, points, *EIGHT, "norm=bn,gbn", f"l1=0,{l1}", f"l2=0,{l2}")


@dataclass(frozen=True)
class Harder:
    """Images on which models overfit, or that are harder to learn."""

    name: str
    setting: tuple[str, ...]
    n_train: int = 50_000
    epochs: int = N_EPOCHS


HARDER = [
    Harder("fashion", ("data=fashion_mnist",)),
    Harder("few", ("data.train_size=1000", "epochs=60"), 1_000, 60),
    Harder("noisy", ("data.label_noise=0.2",)),
]


def harder_search(outputs: Path) -> Iterator[Job]:
    """Claim 4's lambdas, chosen on val."""
    for images in HARDER:
        size = {"n_train": images.n_train, "epochs": images.epochs}
        setting = (*images.setting, "penalty.l1_update=proximal")
        yield _search(f"{images.name}_search_l1", "l1_search", *setting, **size)
        yield _search(f"{images.name}_search_l2", "l2_search", *setting, **size)


def harder(outputs: Path) -> Iterator[Job]:
    """Claim 4: none, L1, L2 and both, on harder images."""
    for images in HARDER:
        l1, l2 = best(outputs, f"{images.name}_search_l1", "l1"), best(outputs, f"{images.name}_search_l2", "l2")
        points = [f"{{l1:{a},l2:{b}}}" for a, b in ((0, 0), (l1, 0), (0, l2), (l1, l2))]
        setting = (*EIGHT, *images.setting, "penalty.l1_update=proximal", f"l1=0,{l1}", f"l2=0,{l2}")
        yield _until_verdict(images.name, points, *setting, n_train=images.n_train, epochs=images.epochs)


def regularizers(outputs: Path) -> Iterator[Job]:
    """Eight arms on 1,000 images, eight epochs in small batches; also on photographs, if they are available."""
    few = ("data.train_size=1000", "data.val_size=1000", "batch_size=16", "margin=0.003", "max_seeds=12")
    yield Job("regularizers_few", ("study=regularizers", *EIGHT, *few), 12 * 8 * cost(8, 1_000, 1_000), is_study=True)
    photos = ("experiment=photos", "model=squeeze_expand", "data.source.file=photos/photos_12k.npz")
    photos += ("data.train_size=2000", "data.val_size=1000", "batch_size=32", "epochs=8", "margin=0.01", "max_seeds=5")
    if Path(DataConfig().root, "photos", "photos_12k.npz").exists():
        yield Job("regularizers_photos", ("study=regularizers", *photos), 5 * 8 * cost(8, 2_000, 1_000), is_study=True)


# ---- smaller networks


@dataclass(frozen=True)
class Smaller:
    """A network trained dense, with L1 on channels, and then further without its zero channels."""

    name: str
    setting: tuple[str, ...]
    l1: float
    dense_epochs: int
    epochs: int
    fine_epochs: int
    seeds: tuple[int, ...]
    n_train: int
    n_val: int


# The strengths and the epochs after removal were chosen on val, on seeds 1 and 2.
FASHION = ("model=resnet", "data=fashion_mnist", "data.train_size=5000", "data.val_size=3000", "l2=0.0005")
PHOTOS = ("experiment=photos", "data.source.file=photos/photos_12k.npz", "data.train_size=3000", "data.val_size=1000")
PHOTOS += ("batch_size=64",)
SMALLER = [
    Smaller("smaller_mnist", ("l2=0.0001",), 0.0003, 8, 8, 12, tuple(range(11, 19)), 50_000, N_VAL),
    Smaller("smaller_fashion", FASHION, 0.0004, 10, 10, 20, tuple(range(11, 16)), 5_000, 3_000),
    Smaller("smaller_photos", PHOTOS, 0.0003, 12, 8, 16, tuple(range(11, 16)), 3_000, 1_000),
]
RATE = "optimizer.lr=0.2"


def networks() -> list[Smaller]:
    """The networks whose images are available."""
    has_photos = Path(DataConfig().root, "photos", "photos_12k.npz").exists()
    return [one for one in SMALLER if one.setting is not PHOTOS or has_photos]


def smaller(outputs: Path) -> Iterator[Job]:
    """Dense networks, and networks with L1 on channels, on the same seeds."""
    on_channels = ("penalty=channels", "penalty.channel_weight=cost")
    for one in networks():
        setting = ("schedule=onecycle", *one.setting, RATE, LAST)
        kinds = {"dense": (one.dense_epochs, ()), "channels": (one.epochs, (*on_channels, f"l1={one.l1:g}"))}
        for seed in one.seeds:
            for kind, (epochs, own) in kinds.items():
                overrides = (*setting, *own, f"epochs={epochs}", f"seed={seed}")
                yield Job(f"{one.name}/{kind}_{seed}", overrides, cost(epochs, one.n_train, one.n_val))


def smaller_fine(outputs: Path) -> Iterator[Job]:
    """The compact networks of `smaller`, trained further without L1."""
    for one in networks():
        rest = (f"epochs={one.fine_epochs}", RATE, LAST, "model=compacted")
        data = tuple(s for s in one.setting if not s.startswith("model"))
        for seed in one.seeds:
            run = f"{one.name}/channels_{seed}"
            overrides = ("schedule=onecycle", *data, *rest, f"model.run=outputs/{run}", f"seed={seed}")
            images = cost(one.fine_epochs, one.n_train, one.n_val) / 2
            yield Job(f"{one.name}/fine_{seed}", overrides, images, compacts=run)


def best(outputs: Path, name: str, parameter: str) -> float:
    """The lambda that a search chose."""
    return float(read_study(outputs / name / STUDY_FILE).ranked[0].params[parameter])


STAGES = [
    Stage("exercise_b", "exercise B: seven pairs of L1 and L2", exercise_b),
    Stage("fast8", "eight epochs", fast8),
    Stage("fast", "six epochs beside eight", fast),
    Stage("exercise_a_search", "exercise A: which lambdas?", exercise_a_search),
    Stage("exercise_a", "exercise A: its arms, judged", exercise_a, "exercise_a_search"),
    Stage("exercise_b_l1", "exercise B: L1 alone", exercise_b_l1),
    Stage("exercise_b_l2", "exercise B: L2 alone", exercise_b_l2),
    Stage("harder_search", "claim 4: which lambdas?", harder_search),
    Stage("harder", "claim 4: harder images", harder, "harder_search"),
    Stage("regularizers", "which regularizer helps?", regularizers),
    Stage("smaller", "how small can networks be?", smaller),
    Stage("smaller_fine", "small networks trained further", smaller_fine, "smaller"),
]
