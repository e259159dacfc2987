"""Writes one experiment's scores with the writers of many programs: `python foreign_runs.py FOLDER [KIND ...]`.

Two methods, three seeds, three epochs. The small files are kept in tests/readers/data/, so that the readers can be
tested without the programs. A kind whose program is not installed is skipped with a message.
"""

import csv
import gzip
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

Run = tuple[str, int, list[float]]
N_EPOCHS = 3


def runs() -> Iterator[Run]:
    """Each run's method, seed and validation accuracy by epoch. Numbers are float32, which some programs store."""
    for method, lasts in (("base", (896, 903, 899)), ("new", (909, 907, 915))):
        for seed, last in enumerate(lasts, 1):
            yield method, seed, [(last - 128 * (N_EPOCHS - epoch)) / 1024 for epoch in range(1, N_EPOCHS + 1)]


def config(method: str, seed: int) -> dict[str, object]:
    """The settings that every program records."""
    return {"method": method, "lr": 0.125, "seed": seed}


def write_csv(folder: Path) -> None:
    """A table with one row per epoch."""
    with (folder / "results.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["method", "lr", "seed", "epoch", "val_acc"])
        for method, seed, scores in runs():
            rows.writerows([method, 0.125, seed, epoch, score] for epoch, score in enumerate(scores, 1))


def write_parquet(folder: Path) -> None:
    """The same table in Parquet, with one row per run."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{**config(method, seed), "val_acc": scores[-1]} for method, seed, scores in runs()]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "results.parquet")


def write_lightning(folder: Path) -> None:
    """Lightning's CSVLogger."""
    from pytorch_lightning.loggers import CSVLogger

    for method, seed, scores in runs():
        logger = CSVLogger(folder, name="lightning_logs")
        logger.log_hyperparams(config(method, seed))
        for epoch, score in enumerate(scores, 1):
            logger.log_metrics({"epoch": epoch, "val_acc": score}, step=10 * epoch)
            logger.save()
        logger.finalize("success")


def write_tensorboard(folder: Path) -> None:
    """TensorBoard's writer, with the hparams plugin."""
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    for method, seed, scores in runs():
        writer = SummaryWriter(str(folder / f"{method}-{seed}"))
        experiment, start, end = hparams(config(method, seed), {"val_acc": scores[-1]})
        file = writer.file_writer
        file.add_summary(experiment)
        file.add_summary(start)
        for epoch, score in enumerate(scores, 1):
            writer.add_scalar("val_acc", score, epoch)
        file.add_summary(end)
        writer.close()
    _without_host(folder)


def write_torch(folder: Path) -> None:
    """PyTorch's SummaryWriter, whose folders name the run."""
    from torch.utils.tensorboard import SummaryWriter

    for method, seed, scores in runs():
        writer = SummaryWriter(str(folder / method / f"seed_{seed}"))
        for epoch, score in enumerate(scores, 1):
            writer.add_scalar("val_acc", score, epoch)
        writer.close()
    _without_host(folder)


def _without_host(folder: Path) -> None:
    """Renames event files, whose names contain host and process."""
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        path.rename(path.with_name("events.out.tfevents.1.host.1.0"))


def write_mlflow(folder: Path) -> None:
    """MLflow's file store."""
    store = folder / "mlruns"
    _write_mlflow(store.absolute().as_uri())
    shutil.rmtree(store / "models", ignore_errors=True)
    for tags in store.glob("*/*/tags"):
        shutil.rmtree(tags)  # they contain the machine's user, folder and repository
    for meta in store.rglob("meta.yaml"):
        text = meta.read_text().replace(store.absolute().as_uri(), "file:///mlruns")
        meta.write_text(text.replace("root", "somebody"))


def write_mlflow_db(folder: Path) -> None:
    """MLflow's SQLite store, without data about this machine."""
    _write_mlflow(f"sqlite:///{folder.absolute()}/mlflow.db")
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        for change in (
            "DELETE FROM tags",
            "UPDATE runs SET artifact_uri = '', user_id = '', source_name = ''",
            "UPDATE experiments SET artifact_location = ''",
        ):
            database.execute(change)
        database.commit()
    _packed(folder / "mlflow.db")


def _packed(path: Path) -> None:
    """Compresses a database to a small .gz, because most of its pages are empty."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("VACUUM")
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()


def _write_mlflow(uri: str) -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("digits")
    for method, seed, scores in runs():
        with mlflow.start_run():
            mlflow.log_params(config(method, seed))
            for epoch, score in enumerate(scores, 1):
                mlflow.log_metric("val_acc", score, step=epoch)


def write_wandb(folder: Path) -> None:
    """W&B, offline. Only the runs' files are kept."""
    os.environ["WANDB_HOST"] = "host"
    import wandb

    for method, seed, scores in runs():
        settings = wandb.Settings(console="off", x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True)
        run = wandb.init(mode="offline", dir=folder, project="digits", config=config(method, seed), settings=settings)
        for epoch, score in enumerate(scores, 1):
            run.log({"epoch": epoch, "val_acc": score})
        run.finish()
    for path in sorted((folder / "wandb").iterdir()):
        if path.is_symlink() or path.is_file():
            path.unlink()
    for name in ("files", "logs", "tmp"):
        for path in (folder / "wandb").glob(f"*/{name}"):
            shutil.rmtree(path)


def write_trackio(folder: Path) -> None:
    """Trackio, stored locally."""
    os.environ["TRACKIO_DIR"] = str(folder.absolute())
    import trackio

    for method, seed, scores in runs():
        trackio.init(project="digits", name=f"{method}-{seed}", config=config(method, seed), embed=False)
        for epoch, score in enumerate(scores, 1):
            trackio.log({"val_acc": score}, step=epoch)
        trackio.finish()
    for path in folder.iterdir():
        if path.suffix != ".db":
            path.unlink() if path.is_file() else shutil.rmtree(path)
    _packed(folder / "digits.db")


def write_optuna(folder: Path) -> None:
    """An Optuna study in SQLite."""
    import optuna

    storage = f"sqlite:///{folder.absolute()}/study.db"
    _write_study(optuna.create_study(study_name="digits", storage=storage, direction="maximize"))
    _packed(folder / "study.db")


def write_optuna_journal(folder: Path) -> None:
    """An Optuna study in a journal."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    _write_study(optuna.create_study(study_name="digits", storage=storage, direction="maximize"))


def _write_study(study: "object") -> None:
    import optuna

    assert isinstance(study, optuna.Study)
    for method, seed, scores in runs():
        study.enqueue_trial({"method": method, "seed": seed})

        def objective(trial: optuna.Trial, scores: list[float] = scores) -> float:
            trial.suggest_categorical("method", ["base", "new"])
            trial.suggest_int("seed", 1, 3)
            for epoch, score in enumerate(scores, 1):
                trial.report(score, epoch)
            return scores[-1]

        study.optimize(objective, n_trials=1)


def write_huggingface(folder: Path) -> None:
    """Hugging Face's TrainerState and TrainingArguments."""
    import torch
    from transformers import TrainerState, TrainingArguments

    for method, seed, scores in runs():
        own = folder / f"{method}-{seed}"
        state = TrainerState(global_step=10 * N_EPOCHS, max_steps=10 * N_EPOCHS, num_train_epochs=N_EPOCHS)
        for epoch, score in enumerate(scores, 1):
            state.log_history.append({"epoch": float(epoch), "step": 10 * epoch, "eval_accuracy": score})
        own.mkdir(parents=True)
        state.epoch = float(N_EPOCHS)
        state.save_to_json(str(own / "trainer_state.json"))
        arguments = TrainingArguments(output_dir=method, seed=seed, learning_rate=0.125, use_cpu=True, report_to=[])
        torch.save(arguments, own / "training_args.bin")


def write_hydra(folder: Path) -> None:
    """A Hydra multirun of an app that writes a metrics file."""
    from omegaconf import OmegaConf

    for job, (method, seed, scores) in enumerate(runs()):
        own = folder / "multirun" / str(job)
        (own / ".hydra").mkdir(parents=True)
        OmegaConf.save(OmegaConf.create(config(method, seed)), own / ".hydra" / "config.yaml")
        (own / "metrics.json").write_text(json.dumps({"val_acc": scores[-1]}))


def write_records(folder: Path) -> None:
    """Records that this project writes for other training loops."""
    from reg_sweep import record_run

    for method, seed, scores in runs():
        with record_run(folder / f"{method}-{seed}", {"method": method, "lr": 0.125}, seed) as run:
            for epoch, score in enumerate(scores, 1):
                run.log(epoch, val_acc=score)


WRITERS: dict[str, Callable[[Path], None]] = {
    name.removeprefix("write_"): function for name, function in list(globals().items()) if name.startswith("write_")
}


def main(folder: Path, kinds: list[str]) -> None:
    """Writes the given kinds, by default all, each into a folder of its own."""
    for kind in kinds or WRITERS:
        own = folder / kind
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        try:
            WRITERS[kind](own)
        except ImportError as error:
            print(f"{kind}: left out, {error}", file=sys.stderr)
            own.rmdir()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
