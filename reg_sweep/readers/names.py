"""Common names of seeds, steps and scores, the scores' directions, and names of settings that affect no result."""

import re
from functools import cache
from pathlib import PurePath
from typing import Any, Literal

from reg_sweep.readers.foreign import plain, text

Role = Literal["seed", "step", "status", "dataset", "id", "nothing", ""]


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LOWER = _set(
    "loss error err perplexity ppl mse rmse mae mape wer cer fid nll bpc bpb bpd regret distance cost eer kl "
    "crossentropy brier ece rmsle latency logloss ce minimized"
)
_HIGHER = _set(
    "acc accuracy f1 auc auroc auprc ap map miou iou dice precision recall bleu rouge meteor r2 reward return score "
    "psnr ssim success mrr ndcg corr correlation spearman pearson spearmanr pearsonr matthews mcc kappa elo top1 top5 "
    "em exact win winrate pass fscore balanced specificity sensitivity hits jaccard "
    "maximized"
)
# Of several scores the first of these is judged, unless the reader names another.
_PREFERRED = ("acc", "accuracy", "top1", "f1", "auc", "auroc", "miou", "map", "score", "reward", "return")
_SPLITS = (("test",), ("eval", "evaluation"), ("val", "valid", "validation", "dev"), ())
_TRAIN = frozenset(("train", "training", "tr"))
_OPTIMISTIC = frozenset(("best", "max", "min", "peak"))
_SEEDS = _listed(
    "seed random_seed rng_seed random_state seed_everything rand_seed manual_seed global_seed training_seed train_seed "
    "rng data_seed replicate rep repeat fold"
)
_STEPS = _listed(
    "epoch _step step global_step steps iteration iter iterations timestep timesteps total_timesteps epochs_done "
    "trainer/global_step train_step global_steps update"
)
_ROLES: dict[Role, frozenset[str]] = {
    "status": frozenset(("status", "state", "run_status")),
    "dataset": _set(
        "dataset data data.name dataset.name dataset_name data.dataset task benchmark env env_id data.source.dataset"
    ),
    "id": _set(
        "run_id id run run_name name uuid run_uuid trial trial_id experiment_id number wandb_id display_name exp_name "
        "group experiment_name job_id version trial_number"
    ),
    "nothing": _set(
        "host hostname user username path dir directory folder_path cwd output_dir log_dir logdir save_dir ckpt "
        "checkpoint checkpoint_path resume url uri git commit git_commit git_hash git_sha device gpu gpu_id cuda gpus "
        "num_workers workers n_jobs pid port created updated started ended start end date time timestamp datetime "
        "start_time end_time created_at updated_at duration runtime seconds elapsed wall_time walltime wall notes note "
        "tags comment description job_type project entity sweep index level_0 _timestamp _runtime _wandb command argv "
        "verbose debug wandb logger progress_bar images_per_s throughput memory artifact_uri lifecycle_stage "
        "source_name report_to logging_dir run_dir root data_dir data_root local_rank rank world_size master_port "
        "master_addr python github"
    )
    | {"unnamed: 0"},
}
_TIMES = _set("seconds elapsed duration runtime _runtime wall_time walltime train_runtime")
# A number under one of these names is always a setting.
_HYPERPARAMETERS = _set(
    "lr learning_rate wd weight_decay l1 l2 momentum dropout batch_size bs hidden width depth layers n_layers "
    "num_layers gamma beta beta1 beta2 alpha lambda lam tau temperature epsilon eps warmup warmup_steps epochs "
    "n_epochs num_epochs max_epochs max_steps rank_r lora_r lora_alpha k n size dim hidden_size d_model n_heads heads "
    "channels label_smoothing clip clip_grad grad_clip ema decay noise sigma augment mixup cutmix scale budget"
)


@cache
def words_of(name: str) -> tuple[str, ...]:
    """A name's words in lower case: 'val/topOneAcc' is val, top, one, acc."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return tuple(w for w in re.split(r"[^a-z0-9]+", spaced.lower()) if w)


@cache
def direction(name: str) -> bool | None:
    """Whether a higher value of this score is better; None where its name does not say."""
    words = words_of(name)
    for word in reversed(words):
        bare = re.sub(r"\d+$", "", word)
        if word in _HIGHER or word in _LOWER:
            return word in _HIGHER
        if bare in _HIGHER or bare in _LOWER:
            return bare in _HIGHER
    joined = "".join(words)
    if joined.endswith(("loss", "error")):
        return False
    return True if joined.endswith(("acc", "accuracy", "score", "reward")) else None


def is_accuracy(name: str) -> bool:
    """Whether it is a share of right answers, which may be written as a share or in percent."""
    words = words_of(name)
    joined = "".join(words)
    return joined.endswith(("acc", "accuracy", "top1", "top5")) or "acc" in words or "accuracy" in words


def preference(name: str) -> tuple[int, ...]:
    """A sort key of scores: test before validation before train, accuracies before losses, maxima over epochs last."""
    words = words_of(name)
    split = next((i for i, split in enumerate(_SPLITS) if not set(split).isdisjoint(words)), len(_SPLITS) - 1)
    if is_train(name):
        split = len(_SPLITS)
    kind = next((i for i, word in enumerate(_PREFERRED) if word in words), len(_PREFERRED))
    kind += len(_PREFERRED) * (direction(name) is False)
    return int(is_optimistic(name)), split, kind, len(words)


def is_optimistic(name: str) -> bool:
    """Whether a score's name says that it is the best of several epochs."""
    return not _OPTIMISTIC.isdisjoint(words_of(name))


def is_train(name: str) -> bool:
    """Whether a score is of the training data, by its name."""
    return not _TRAIN.isdisjoint(words_of(name))


@cache
def role(name: str) -> Role:
    """The role of a column or setting, by its name; empty where the name does not say."""
    known = name.strip().lower()
    last = re.split(r"[./]", known)[-1]
    if known in _SEEDS or last in ("seed", "random_seed", "random_state"):
        return "seed"
    if known in _STEPS:
        return "step"
    for found, names in _ROLES.items():
        if known in names or (found == "nothing" and last in names):
            return found
    if known.startswith("_") or re.search(r"(^|[_./ ])(dir|path|time|timestamp|host|url|uri|uuid)$", known):
        return "nothing"
    return ""


def seed_rank(name: str) -> int:
    """A sort key of seeds' names: the most common first."""
    known = name.strip().lower()
    return _SEEDS.index(known) if known in _SEEDS else 1


def step_rank(name: str) -> int:
    """A sort key of steps' names: epochs before steps.

    Raises:
        ValueError: the name is not a step's.
    """
    return _STEPS.index(name.strip().lower())


def is_duration(name: str) -> bool:
    """Whether it is the time that a run took, in seconds."""
    return name.strip().lower() in _TIMES


def is_hyperparameter(name: str) -> bool:
    """Whether a number under this name is a setting."""
    known = name.strip().lower()
    return known in _HYPERPARAMETERS or re.split(r"[./]", known)[-1] in _HYPERPARAMETERS


_SEED = re.compile(
    r"(?:^|[_\-. ,])(?:seed|rng|random_seed)[_=\- ]?(\d{1,18})(?=$|[_\-. ,])|^s(\d{1,10})$", re.IGNORECASE
)
_ASSIGNED = re.compile(r"(?:^|[,;_])([A-Za-z][\w./-]*?)=([^,;=]*)(?=$|[,;]|_[A-Za-z][\w.]*=)")
_SAYS_NOTHING = re.compile(
    r"[\d\-_.:T]+|(?:offline-)?run-\d.*|version_\d+|events\.out.*|checkpoint-\d+|lightning_logs|multiruns?|runs?|logs?|"
    r"outputs?|results?|metrics|progress|history|training_log|log|train|eval|csv|tb|tensorboard|wandb|data|files|events|trainer_state|hparams|scores",
    re.IGNORECASE,
)


def path_settings(path: PurePath) -> dict[str, Any]:
    """The settings in a path below its root: `key=value`, a seed, and what else the names of its folders say."""
    found: dict[str, Any] = {}
    rest: list[str] = []
    parts = [*path.parent.parts, path.stem if path.suffix else path.name]
    for part in parts:
        said = part
        for key, value in _ASSIGNED.findall(part):
            found[text(key)] = plain(_typed(value))
            said = said.replace(f"{key}={value}", "")
        match = _SEED.search(said)
        if match is not None and "seed" not in found:
            found["seed"] = int(match[1] or match[2])
            said = said.replace(match[0], "")
        said = said.strip("_-. ,;")
        if said and not _SAYS_NOTHING.fullmatch(said):
            rest.append(said)
    if rest:
        found["folder"] = text("/".join(rest))
    return found


def _typed(value: str) -> Any:
    try:
        return float(value) if re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", value, re.IGNORECASE) else value
    except ValueError:
        return value
