"""The example's changes are settings that the trainer accepts, and kept changes stay while the next is tried."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from scripts import script

from reg_sweep import train
from reg_sweep.hydra_app.internals import VERSION_BASE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example():
    return script("examples/research_loop.py")


def test_every_change_is_one_that_the_trainer_takes(example):
    lines = [*example.CHANGES.splitlines(), *(ROOT / "benchmarks" / "real_loop.txt").read_text().splitlines()]
    assert len(lines) == 20 + 40
    composed_together: list[dict[str, str]] = []  # changes of different keys
    for line in lines:
        key, _, value = line.partition("|")[2].strip().partition("=")
        others = next((changes for changes in composed_together if key not in changes), {})
        if not others:
            composed_together.append(others)
        others[key] = value
    with initialize_config_dir(str(train.CONF), **VERSION_BASE):
        for changes in composed_together:
            train.to_run_config(compose("config", ["data=mnist_5k", *(f"{k}={v}" for k, v in changes.items())]))


@pytest.mark.slow
def test_what_is_kept_stays_while_the_next_is_tried(example, tmp_path, monkeypatch, capfd):
    """A replacement for the trainer, whose loss is 5 for the first code and lower for a larger rate."""

    def trainer(folder, settings):
        rate = next((float(s.partition("=")[2]) for s in settings if s.startswith("lr=")), 0)
        return ["--", "sh", "-c", f"echo {5 - rate:.0f}.{{seed}}"]

    monkeypatch.setattr(example, "trainer", trainer)
    example.main(tmp_path, "one | lr=1 l1=0\nslower | lr=0.5\nthree | lr=3\n")
    assert "kept settings: l1=0 lr=3" in capfd.readouterr().out
    tried = [json.loads(line).get("digest") for line in (tmp_path / "loop.jsonl").read_text().splitlines()]
    assert [d for d in dict.fromkeys(tried) if d] == ["lr=1+l1=0", "l1=0+lr=0.5", "l1=0+lr=3"]
