"""The examples run, as their own first lines and docs/training.md say, on a few images."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import check_run

from reg_sweep.runs import study as study_record
from reg_sweep.runs.reading import read_record, read_runs

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
TEXT = (ROOT / "docs" / "training.md").read_text()
TINY = ["data.train_size=100", "data.val_size=50", "batch_size=50", "epochs=2", "runtime.threads=1"]

pytestmark = pytest.mark.slow


def commands() -> list[str]:
    """Each command of the text and of the examples' headings, once; those of the YAML files are parts of these."""
    shown = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
    for path in EXAMPLES.glob("*.py"):
        shown += [line for line in path.read_text().splitlines() if line.startswith("python -m")]
    return sorted({line for line in shown if "FOLDER" not in line})  # whose images are the reader's own


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_examples_trains(command, tmp_path):
    """One that begins with torchrun is started without it, whose own tests are in tests/training/test_ranks.py."""
    _, *rest = shlex.split(command.replace("torchrun --nproc-per-node 2", "python"))
    said = check_run(EXAMPLES, *rest, *TINY, f"hydra.run.dir={tmp_path}/a").stdout
    assert read_record(tmp_path / "a")["status"] == "complete"
    assert ("watched 2 epochs: complete" in said) == ("watch" in command)


def test_the_trained_network_judges_as_it_did_in_its_run(tmp_path):
    own = ["--config-dir", "conf", "data=digits", "model=small_net"]
    check_run(EXAMPLES, "-m", "reg_sweep.train", *own, *TINY, f"hydra.run.dir={tmp_path}/a")
    last = read_record(tmp_path / "a")["last"]
    judged = check_run(EXAMPLES, "your_trained_model.py", str(tmp_path / "a"))
    assert f"accuracy {last['test_accuracy']:.2%}" in judged.stdout


def test_the_texts_python_gives_a_trained_network_back(tmp_path):
    mnist = ["data=mnist_5k", *TINY, "model=mlp", "name=a"]
    check_run(tmp_path, "-m", "reg_sweep.train", *mnist)
    said = check_run(tmp_path, "-c", "".join(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))).stdout
    assert re.fullmatch(r"\[0\.\d+\] \[0\.\d+\]\n", said)


def test_an_app_without_a_network_is_judged_until_it_is_clear(tmp_path):
    quick = ["n_steps=300", "hydra.sweeper.design.max_seeds=3", "hydra.sweeper.report=true"]
    quick.append(f"hydra.sweep.dir={tmp_path}/tours")
    said = check_run(EXAMPLES, "annealing.py", "-m", "cooling=constant,geometric", *quick).stdout
    assert "verdict of study tours by tour_length, each arm against cooling=constant" in said
    assert study_record.read_study(tmp_path / "tours" / "study.json").kind == "until_verdict"
    page = (tmp_path / "tours" / "report" / "index.html").read_text(encoding="utf-8")
    assert "Judged by the design of the study tours" in page


def test_the_loop_of_ones_own_finds_exact_zeros():
    said = check_run(EXAMPLES, "your_own_loop.py").stdout
    zeros = int(re.search(r"([\d,]+) weights are exactly zero", said)[1].replace(",", ""))
    assert zeros > 0


def test_the_sweeper_searches_in_an_app_without_a_network(tmp_path):
    app = EXAMPLES / "your_own_app.py"
    search, best = [line for line in app.read_text().splitlines() if line.startswith("python ")]
    search = re.sub(r"n_trials=\d+", "n_trials=3", search)
    check_run(tmp_path, str(app), *shlex.split(search)[2:])
    best_trial = study_record.read_study(tmp_path / "svm" / "study.json").ranked[0]
    assert f"error {best_trial.values[0]:.2%}" in check_run(tmp_path, str(app), *shlex.split(best)[2:]).stdout


def test_the_walk_leads_from_a_question_to_a_verdict(tmp_path):
    tiny = ["data.train_size=100", "data.val_size=50", "batch_size=50", "epochs=1", "runtime.threads=1"]
    tiny += ["model.channels=4", "report=false", "hydra.sweeper.n_trials=2", "hydra.sweeper.workers=1"]
    walk = (EXAMPLES / "question_to_verdict.sh").read_text()
    assert walk.count("max_seeds=8") == 1
    (tmp_path / "walk.sh").write_text(walk.replace("max_seeds=8", "max_seeds=2 hydra.sweeper.design.looks=[2]"))
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    done = subprocess.run(["bash", "walk.sh", *tiny], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "outputs" / "report" / "index.html").exists()
    assert {run.record["trial"]["study"] for run in read_runs(tmp_path)} == {"l1_search", "l1_search_confirm"}


def test_every_yaml_file_of_the_text_is_the_examples_own():
    blocks = re.findall(r"```yaml\n# (\S+)\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) >= 4
    for path, block in blocks:
        kept = [line for line in (EXAMPLES / path).read_text().splitlines() if not line.startswith("#")]
        assert block.splitlines() == kept


def test_optunas_own_optimize_ends_when_each_arm_is_decided():
    done = subprocess.run([sys.executable, str(EXAMPLES / "optuna_verdict.py")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    good, same, trials = done.stdout.splitlines()
    assert good.startswith("good: better")
    assert same.startswith("same: shown equivalent")
    assert trials == "15 trials of at most 60"
