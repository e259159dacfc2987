import csv
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file
from trees import N_TEST, write_arms, write_run, write_study

from reg_sweep.arms import ArmError
from reg_sweep.report import ReportError, main, write_report

VOID = {"meta", "link", "br", "input", "img", "hr"}
BN, L1 = ("bn", 0.0, 0.0), ("bn", 0.001, 0.0)


class Page(HTMLParser):
    """A page's text, its addresses and ids; every tag must close."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self._open
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("href", "src", "xlink:href"):
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self.texts.append(data)


def report(*roots: Path, out: Path, **options) -> tuple[Page, str]:
    made = write_report(roots, out, progress=False, **options)
    return Page(made.page), made.verdict


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def make_runs() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "make_runs.py"
    spec = importlib.util.spec_from_file_location("make_runs", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_runs"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def simulated(make_runs, tmp_path_factory) -> tuple[Path, Page]:
    """A tree with runs of every status, its weights and predictions, and its report."""
    root = tmp_path_factory.mktemp("simulated")
    make_runs.make_runs(root / "runs", 60, 5, 200, n_per_unfinished=10, with_weights=True)
    page, _ = report(root / "runs", out=root / "report")
    return root, page


@pytest.fixture(autouse=True)
def _pictures_are_blank(request, monkeypatch):
    """Drawing takes most of a report's time; tests that look at pictures ask for `drawn`."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(
            "reg_sweep.figures.save", lambda picture, folder, prefix: f'<svg aria-label="{picture.alt}"/>'
        )


@pytest.fixture
def drawn() -> None:
    """Pictures are really drawn."""


# ---- the verdict


@pytest.mark.parametrize(
    ("ours", "says"),
    [
        ([0.96, 0.97, 0.965], "bn · L1 0.001 is better than the baseline, bn."),
        ([0.905, 0.93, 0.90], "No difference shown between the best arm, bn · L1 0.001, and the baseline, bn."),
        ([0.9003, 0.9104, 0.9052], "bn · L1 0.001, is shown equivalent to the baseline, bn, within ±0.1 points."),
        ([0.85, 0.84, 0.86], "No arm beats the baseline, bn, on val."),
    ],
)
def test_the_verdict_says_what_the_numbers_say(tmp_path, ours, says):
    write_arms(tmp_path / "runs", {BN: [0.90, 0.91, 0.905], L1: ours})
    page, verdict = report(tmp_path / "runs", out=tmp_path / "report")
    assert says in verdict
    assert "95% interval" in verdict
    assert "3 seeds" in verdict
    assert says in page.text.replace("\u00a0", " ")


def test_the_best_on_val_that_is_worse_on_test_is_called_worse(tmp_path):
    for seed, noise in enumerate((0, 0.001, 0.002), 1):
        write_run(tmp_path / f"a{seed}", seed=seed, accuracy=0.95 + noise, val_accuracy=0.90)
        write_run(tmp_path / f"b{seed}", seed=seed, l1=0.1, accuracy=0.90 + 2 * noise, val_accuracy=0.92)
    _, verdict = report(tmp_path, out=tmp_path / "report")
    assert verdict.startswith("bn · L1 0.1 looked best on val, but is worse than the baseline, bn.")


def test_a_loss_is_better_when_it_is_lower(tmp_path):
    for seed, noise in enumerate((0, 0.001, 0.002), 1):
        write_run(tmp_path / f"a{seed}", seed=seed, loss=0.3 + noise)
        write_run(tmp_path / f"b{seed}", seed=seed, l1=0.1, loss=0.2 + 2 * noise)
    _, verdict = report(tmp_path, out=tmp_path / "report", metric="test_loss")
    assert verdict.startswith("bn · L1 0.1 is better than the baseline, bn.")
    assert "0.2020 against 0.3010: −0.0990 (95% interval" in verdict


def test_the_margin_is_the_readers(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.90, 0.91, 0.905], L1: [0.905, 0.93, 0.90]})
    _, verdict = report(tmp_path / "runs", out=tmp_path / "report", margin=0.2)
    assert "shown equivalent to the baseline, bn, within ±20 points" in verdict


def test_arms_count_at_the_epoch_that_val_chose_when_asked(tmp_path):
    run = write_run(tmp_path / "runs" / "a", accuracy=0.9)
    record = json.loads((run / "run.json").read_text())
    record["best_val"] |= {"test_accuracy": 0.5}
    (run / "run.json").write_text(json.dumps(record))
    _, last = report(tmp_path / "runs", out=tmp_path / "last")
    _, chosen = report(tmp_path / "runs", out=tmp_path / "chosen", epoch="best_val")
    assert "90.00 %" in last
    assert "50.00 %" in chosen


def test_one_seed_compares_models_not_methods_and_the_verdict_says_so(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8], L1: [0.9]})
    page, verdict = report(tmp_path / "runs", out=tmp_path / "report")
    assert "two trained models, not two methods" in verdict
    assert "McNemar" in verdict
    assert "over test images" in page.text


def test_intervals_end_where_an_accuracy_or_a_loss_ends(tmp_path):
    for seed, (accuracy, loss) in enumerate([(0.99, 0.01), (0.90, 0.2)], 1):
        write_run(tmp_path / "runs" / str(seed), seed=seed, accuracy=accuracy, loss=loss)
    report(tmp_path / "runs", out=tmp_path / "report")
    summary = (tmp_path / "report" / "summary.md").read_text()
    assert "to 100.00]" in summary
    assert "[0.0000 to" in summary


def test_the_data_and_its_selection_are_named(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9]})
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "digits (50 test images; local copy; fingerprint 0123456789abcdef)" in page.text
    assert "chosen on val (20 images held out of train)" in page.text


@pytest.mark.parametrize("better", [0, 1])
def test_the_default_baseline_does_not_depend_on_which_arm_did_better(tmp_path, better):
    scores = [[0.8, 0.81], [0.9, 0.91]]
    write_arms(tmp_path / "runs", {BN: scores[better], ("gbn", 0.0, 0.0): scores[1 - better]})
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "the baseline, bn" in page.text


def test_the_offline_sample_is_said_loudly(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9]}, data={"source": "offline sample"})
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert page.text.index("Offline sample") < page.text.index("Only one arm")
    assert "not MNIST" in (tmp_path / "report" / "summary.md").read_text()


def test_without_val_images_the_page_says_that_test_chose(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9], L1: [0.8, 0.85]}, data={"n_val": 0})
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "Chosen on test" in page.text
    assert "best on test" in page.text


def test_different_data_get_tables_of_their_own(tmp_path):
    write_arms(tmp_path / "runs" / "a", {BN: [0.8, 0.9], L1: [0.8, 0.85]})
    write_arms(tmp_path / "runs" / "b", {BN: [0.7, 0.8]}, data={"fingerprint": "other", "name": "letters"})
    page, verdict = report(tmp_path / "runs", out=tmp_path / "report")
    assert len(verdict.splitlines()) == 2
    assert "nothing is compared across them" in page.text
    assert [t for t in page.ids if t.endswith("-table")] == ["d1-table", "d2-table", "runs-table"]
    assert len(page.ids) == len(set(page.ids))


# ---- the page and the files beside it


def test_a_tree_of_every_status_becomes_a_whole_page(simulated):
    _, page = simulated
    for heading in ("The arms", "Curves", "How much: the lambdas", "What became of the weights", "Mistakes", "Runs"):
        assert heading in page.text
    assert "60 runs: 54 complete, 2 pruned, 2 diverged, 1 failed, 1 running" in page.text
    assert len(page.ids) == len(set(page.ids))


def test_the_page_asks_for_nothing_from_anywhere(simulated):
    root, page = simulated
    folder = root / "report"
    for address in page.addresses:
        assert "://" not in address
        assert address.startswith(("#", "data:image/png;base64,")) or (folder / address).exists(), address
    assert not re.search(r"@import|url\((?!data:|#)", page.source)
    targets = {a[1:] for a in page.addresses if a.startswith("#")}
    assert targets <= set(page.ids)


def test_every_figure_lies_beside_the_page_in_both_forms(simulated):
    root, page = simulated
    svgs = {p.stem for p in (root / "report").glob("*.svg")}
    assert svgs == {p.stem for p in (root / "report").glob("*.png")}
    assert {"curves-test-accuracy", "weights-by-size", "confusion-best", "why-contours"} <= svgs
    assert page.source.count('role="img" aria-label=') >= page.tags.count("figure")


def test_the_tables_beside_the_page_have_a_row_for_each_arm_and_run(simulated):
    root, _ = simulated
    arms, runs = rows(root / "report" / "summary.csv"), rows(root / "report" / "runs.csv")
    assert len(runs) == 60
    assert {r["arm"] for r in runs} == {a["arm"] for a in arms}
    assert sum(int(a["n_seeds"]) for a in arms) == 54
    assert sum(a["is_baseline"] == "True" for a in arms) == 1
    measured = [r for r in runs if r["status"] == "complete" and r["arm"] == arms[0]["arm"]]
    mean = sum(float(r["test_accuracy"]) for r in measured) / len(measured)
    assert float(arms[0]["test_accuracy"]) == pytest.approx(mean)


def test_the_summary_for_a_pull_request_is_a_markdown_table(simulated):
    root, _ = simulated
    lines = (root / "report" / "summary.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert lines[0].startswith("**")
    assert len(table) == 2 + len(rows(root / "report" / "summary.csv"))
    assert len({line.count(" |") for line in table[2:]}) == 1


def test_the_same_runs_give_the_same_page(simulated, tmp_path, drawn):
    root, page = simulated
    again, _ = report(root / "runs", out=root / "again")

    def undated(source: str) -> str:
        return re.sub(r"Written [^b]* by", "", source)

    assert undated(again.source) == undated(page.source)


def test_a_report_inside_the_tree_is_not_taken_for_runs(tmp_path):
    write_arms(tmp_path, {BN: [0.8, 0.9]})
    first = write_report([tmp_path], progress=False)
    assert first.page == tmp_path / "report" / "index.html"
    write_report([tmp_path], progress=False)
    assert len(rows(tmp_path / "report" / "runs.csv")) == 2


def test_two_roots_that_overlap_count_a_run_once(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9]})
    report(tmp_path / "runs", tmp_path / "runs" / "0-1", out=tmp_path / "report")
    assert len(rows(tmp_path / "report" / "runs.csv")) == 2


def test_links_lead_to_the_runs_folders_whatever_their_names(tmp_path):
    run = write_run(tmp_path / "runs" / "l1=0.1, a #1 ü%")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    from urllib.parse import unquote

    links = [tmp_path / "report" / unquote(a) for a in page.addresses if a.endswith("/")]
    assert [os.path.normpath(link) for link in links] == [str(run)]


def test_lambdas_are_studied_where_three_of_them_differ_in_nothing_else(tmp_path, drawn):
    write_arms(tmp_path / "two", {BN: [0.8, 0.9], L1: [0.8, 0.9]})
    write_arms(tmp_path / "three", {BN: [0.8, 0.9], L1: [0.8, 0.9], ("bn", 0.01, 0): [0.7, 0.8]})
    for name in ("two", "three"):
        report(tmp_path / name, out=tmp_path / f"{name}-report")
    assert not list((tmp_path / "two-report").glob("study-*"))
    assert (tmp_path / "three-report" / "study-l1-1.svg").exists()


def test_the_one_standard_error_choice_is_the_stronger_lambda_that_is_as_good(tmp_path):
    scores = {BN: [0.80, 0.82], L1: [0.90, 0.94], ("bn", 0.01, 0): [0.905, 0.915], ("bn", 0.1, 0): [0.5, 0.6]}
    write_arms(tmp_path / "runs", scores)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "Best val accuracy: L1 = 0.001 (ring). One-standard-error choice: L1 = 0.01" in page.text


def test_a_grid_of_both_lambdas_becomes_a_heat_map(tmp_path, drawn):
    write_arms(tmp_path / "runs", {("bn", a, b): [0.9 - a - b] for a in (0, 0.01, 0.02) for b in (0, 0.01)})
    report(tmp_path / "runs", out=tmp_path / "report")
    assert (tmp_path / "report" / "heat-map-1.svg").exists()


def test_dead_kernels_are_counted_by_layer(tmp_path):
    run = write_run(tmp_path / "runs" / "a")
    kernels = np.ones((4, 2, 3, 3), np.float32)
    kernels[0, 0] = 0.0005
    kernels[1, 1] = 0.0005
    kernels[1, 1, 0, 0] = 0.002  # one weight is enough to live
    save_file({"conv.weight": kernels, "norm.weight": np.zeros(4, np.float32)}, run / "weights.safetensors")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "1 / 8" in page.text
    assert "Dead kernels of bn: 1" in page.source


def test_a_convolution_of_one_by_one_has_no_kernels(tmp_path):
    """As in the records' counts."""
    run = write_run(tmp_path / "runs" / "a")
    weights = {"conv.weight": np.ones((4, 2, 3, 3)), "classify.weight": np.zeros((10, 4, 1, 1))}
    save_file({k: v.astype(np.float32) for k, v in weights.items()}, run / "weights.safetensors")
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "0 / 8" in page.text
    assert "classify" not in page.text
    assert "no kernel died" in page.text


# ---- studies


def write_search(root: Path) -> Path:
    """A study of six trials: three complete, two pruned after one of four epochs, one failed without a record."""
    for n, l1 in enumerate((0.1, 0.01, 0.001)):
        write_run(root / str(n), l1=l1, accuracy=0.8 + 0.05 * n, loss=0.3 - 0.05 * n, n_epochs=4)
    for n in (3, 4):
        run = write_run(root / str(n), l1=1.0 * n, status="pruned", n_epochs=4, predictions=False)
        lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
        (run / "metrics.csv").write_text("".join(lines[:2]))
    trials = [{"params": {"l1": l1}, "values": [0.3 - 0.05 * n]} for n, l1 in enumerate((0.1, 0.01, 0.001))]
    trials += [{"params": {"l1": 1.0 * n}, "state": "pruned", "values": None, "steps": [[1, 2.0]]} for n in (3, 4)]
    trials += [{"params": {"l1": 0.5}, "state": "failed", "values": None, "message": "ValueError: <i>no</i>"}]
    return write_study(root, trials, importances={"l1": 1.0})


def test_a_study_is_told_in_numbers(tmp_path):
    write_search(tmp_path / "search")
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert "6 trials: 3 complete, 2 pruned, 1 failed. Best is trial 2 (l1 0.001): val loss 0.2000." in page.text
    assert "The ended trials took 14 of 20 epochs: pruning saved 30%." in page.text
    assert "Trial 5 failed: ValueError: <i>no</i>" in page.text
    assert "l1 100%" in page.text
    assert page.ids.count("d1-studies") == 1
    assert len(page.ids) == len(set(page.ids))


def test_a_study_has_its_figures_and_its_trials_lead_to_their_folders(tmp_path, drawn):
    write_search(tmp_path / "search")
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert {p.stem for p in (tmp_path / "report").glob("trials-*.svg")} == {"trials-1-history", "trials-1-l1"}
    for address in page.addresses:
        assert address.startswith(("#", "data:")) or (tmp_path / "report" / address).exists(), address
    assert page.addresses.count("../search/2/") == 2  # among the best trials, and among the runs


def test_arms_that_a_search_chose_are_called_optimistic_and_how_to_judge_them_is_told(tmp_path):
    write_search(tmp_path / "search")
    (tmp_path / "search" / "experiment").mkdir()
    (tmp_path / "search" / "experiment" / "best.yaml").touch()
    page, verdict = report(tmp_path, out=tmp_path / "report")
    assert verdict.startswith("bn · L1 0.001 is the best of 3 arms on val. No arm is without L1 and L2")
    assert "The study search chose its arms, one seed each: the best of 6 tries looks better on val" in page.text
    command = f"python -m reg_sweep.train -m --config-dir {tmp_path}/search experiment=best seed=1,2,3"
    assert command in page.text


def test_a_study_that_varied_the_seed_is_no_search(tmp_path):
    trials = [{"params": {"l1": l1, "seed": seed}} for l1 in (0.1, 0.01) for seed in (1, 2)]
    for n, t in enumerate(trials):
        write_run(tmp_path / "it" / str(n), **t["params"])
    write_study(tmp_path / "it", trials)
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert "4 trials: 4 complete" in page.text
    assert "optimistic." not in page.text
    assert "one seed each" not in page.text


def test_pruned_arms_are_counted_not_listed(tmp_path):
    write_search(tmp_path / "search")
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert "Not in the table: 2 arms that a study pruned" in page.text
    assert len(rows(tmp_path / "report" / "summary.csv")) == 5
    lines = (tmp_path / "report" / "summary.md").read_text().splitlines()
    assert sum(line.startswith("| bn") for line in lines) == 3


def test_two_objectives_have_a_front_whose_every_trial_can_be_run_again(tmp_path, drawn):
    values = [[0.1, 0.1], [0.2, 0.5], [0.3, 0.4]]
    objective = ["val_loss", "zero_share"]
    for n in range(3):
        write_run(tmp_path / "it" / str(n), l1=0.1 * n, objective=objective)
    path = write_study(
        tmp_path / "it",
        [{"values": v, "params": {"l1": 0.1 * n}} for n, v in enumerate(values)],
        directions=["minimize", "maximize"],
    )
    (path.parent / "experiment").mkdir()
    for n in (0, 1):
        (path.parent / "experiment" / f"best_{n}.yaml").touch()
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert "2 trials are on the Pareto front" in page.text
    assert "experiment=best_0,best_1 seed=1,2,3" in page.text
    assert "Trial val loss zero share, % l1 epochs trial 0 0.1000 10.00" in page.text
    assert (tmp_path / "report" / "trials-1-front.svg").exists()


def test_a_study_whose_runs_never_saw_data_is_still_shown(tmp_path):
    write_run(tmp_path / "other" / "0")
    write_study(tmp_path / "lost", [{"state": "failed", "values": None, "directory": None, "message": "no disk"}])
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert "1 trial: 1 failed." in page.text
    assert "no disk" in page.text
    assert "d1-studies" not in page.ids


def test_studies_of_different_data_stand_with_their_own(tmp_path):
    write_search(tmp_path / "a")
    for n in range(2):
        write_run(tmp_path / "b" / str(n), l1=0.1 * n, data={"fingerprint": "other"})
    write_study(tmp_path / "b", [{"params": {"l1": 0.1 * n}} for n in range(2)])
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert page.ids.index("d1-studies") < page.ids.index("d2-arms") < page.ids.index("d2-studies")


def test_a_damaged_study_is_named_and_its_runs_are_reported(tmp_path):
    path = write_search(tmp_path / "search")
    truncate(path)
    page, verdict = report(tmp_path, out=tmp_path / "report")
    assert "study.json: not a readable study" in page.text
    assert "is the best of 3 arms" in verdict
    assert "d1-studies" not in page.ids


def test_html_in_a_study_stays_text(tmp_path, drawn):
    evil = "<script>alert(1)</script>"
    for n in range(2):
        write_run(tmp_path / "it" / str(n), l1=0.1 * n)
    trials = [{"params": {evil: f"{evil}{n}", f"../{evil}": 0.1 * n}} for n in range(2)]
    write_study(tmp_path / "it", trials, study=evil, importances={evil: 1.0})
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert page.tags.count("script") == 1
    assert evil in page.text
    assert all(p.parent == tmp_path / "report" for p in tmp_path.rglob("trials-*"))


@pytest.mark.mnist
def test_misclassified_images_of_real_mnist_are_drawn(tmp_path, mnist_root, drawn):
    from reg_sweep.config import RunConfig, to_dict
    from reg_sweep.predictions import find_test_images

    config = to_dict(RunConfig())
    config["data"]["root"] = str(mnist_root)
    run = write_run(tmp_path / "runs" / "a", data={"n_test": 10_000}, predictions=False)
    _, why = find_test_images(config, "local copy", np.zeros(3), None)
    assert "labels differ" in why
    from reg_sweep.predictions import _idx

    label = _idx(mnist_root / "MNIST/raw/t10k-labels-idx1-ubyte").astype(int)
    predicted = label.copy()
    predicted[:5] = (label[:5] + 1) % 10
    np.savez(run / "predictions.npz", predicted=predicted, probability=np.full(10_000, 0.9), label=label)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert page.source.count('class="tile d1-tile"') == 10  # five of the arm, the same five of all arms
    assert "data:image/png;base64," in page.source
    assert (tmp_path / "report" / "mistakes-0.png").exists()


# ---- bad input


@pytest.mark.parametrize("options", [{}, {"baseline": "bn"}])
def test_a_missing_folder_is_one_clear_line(tmp_path, options):
    with pytest.raises(ReportError, match="nowhere is not a folder"):
        write_report([tmp_path / "nowhere"], progress=False, **options)


def test_an_empty_folder_is_one_clear_line_and_leaves_nothing(tmp_path):
    with pytest.raises(ReportError, match="no runs under"):
        write_report([tmp_path], progress=False)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_complete_run_gets_a_page_that_says_so(tmp_path):
    for i, status in enumerate(("running", "failed", "pruned", "diverged")):
        write_run(tmp_path / str(i), status=status, seed=i)
    page, verdict = report(tmp_path, out=tmp_path / "report")
    assert verdict == "No complete run yet (1 pruned, 1 diverged, 1 failed, 1 running): there is nothing to compare."
    assert verdict in page.text


def test_runs_that_failed_before_they_had_data_get_a_page_that_says_so(tmp_path):
    run = write_run(tmp_path / "a", status="failed", predictions=False, n_epochs=1)
    record = json.loads((run / "run.json").read_text())
    record |= {"data": None, "last": None, "best_val": None, "weights": None, "message": "no network"}
    (run / "run.json").write_text(json.dumps(record))
    (run / "metrics.csv").unlink()
    page, verdict = report(tmp_path, out=tmp_path / "report")
    assert verdict == "No complete run yet (1 failed): there is nothing to compare."
    assert "no network" in page.text


def test_one_run_only_gets_its_numbers(tmp_path):
    write_run(tmp_path / "a")
    _, verdict = report(tmp_path, out=tmp_path / "report")
    assert verdict.startswith("Only one arm has complete runs: bn. Test accuracy 90.00 % (1 seed).")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: truncate(run / "run.json"), "run.json: unreadable"),
        (lambda run: (run / "run.json").write_text("[]"), "not a record"),
        (lambda run: (run / "run.json").write_text('{"schema": 99}'), "newer reg_sweep"),
        (lambda run: truncate(run / "predictions.npz"), "predictions.npz: unreadable"),
        (lambda run: (run / "weights.safetensors").write_bytes(b"torn"), "weights.safetensors: unreadable"),
        (lambda run: np.savez(run / "predictions.npz", predicted=[1], probability=[1], label=[1]), "must have shape"),
    ],
    ids=["truncated", "no record", "newer", "torn predictions", "torn weights", "other size"],
)
def test_one_bad_file_is_named_and_the_others_are_reported(tmp_path, damage, says):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9]})
    damage(write_run(tmp_path / "runs" / "bad", l1=0.1, accuracy=0.95))
    page, verdict = report(tmp_path / "runs", out=tmp_path / "report")
    assert says in page.text
    assert "bad" in page.text
    assert "bn" in verdict


def test_a_torn_metrics_file_costs_its_last_line_alone(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9]})
    path = tmp_path / "runs" / "0-1" / "metrics.csv"
    path.write_text(path.read_text()[:-20])
    _, verdict = report(tmp_path / "runs", out=tmp_path / "report")
    assert "85.00 %" in verdict
    assert [r["n_epochs"] for r in rows(tmp_path / "report" / "runs.csv")] == ["2", "3"]


def test_metrics_that_are_not_numbers_are_named_and_left_out(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9]})
    write_run(tmp_path / "runs" / "nan", l1=0.1, accuracy=math.nan, loss=math.inf, predictions=False)
    page, verdict = report(tmp_path / "runs", out=tmp_path / "report")
    assert "missing or not a finite number" in page.text
    assert verdict.startswith("Only one arm has complete runs: bn.")


def test_html_in_a_name_stays_text(tmp_path, drawn):
    evil = "<script>alert(1)</script>"
    for seed in (1, 2):
        write_run(tmp_path / "runs" / f"a{seed}", seed=seed)
        model = {"_target_": f"my.{evil}", "note": "$x_1$ </style> & \" '"}
        write_run(
            tmp_path / "runs" / f"b{seed}", seed=seed, accuracy=0.95, data={"name": evil, "source": evil}, model=model
        )
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert page.tags.count("script") == 1
    assert page.tags.count("style") == 1
    assert evil in page.text
    assert "<script" not in (tmp_path / "report" / "summary.md").read_text()


def test_a_margin_of_zero_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ReportError, match="--margin must be a finite number above 0, got 0"):
        write_report([tmp_path], margin=0, progress=False)


def test_a_baseline_that_is_no_arm_leaves_no_report(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9]})
    with pytest.raises(ArmError, match="use one of bn"):
        write_report([tmp_path / "runs"], tmp_path / "report", baseline="gn", progress=False)
    assert not (tmp_path / "report").exists()


# ---- the command


def test_the_command_prints_the_verdict_and_the_page(tmp_path, capsys, drawn):
    write_arms(tmp_path, {BN: [0.8, 0.9], L1: [0.9, 0.95]})
    assert main([str(tmp_path), "--baseline", "l1=0.001"]) == 0
    verdict, page = capsys.readouterr().out.splitlines()
    assert "the baseline, bn · L1 0.001" in verdict
    assert Path(page).is_file()


def test_the_command_turns_an_error_into_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is not a folder" in error


def test_the_command_opens_the_page_when_asked(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    write_arms(tmp_path, {BN: [0.8]})
    assert main([str(tmp_path), "--open"]) == 0
    assert opened == [(tmp_path / "report" / "index.html").as_uri()]


def test_the_report_runs_without_torch_and_without_a_screen(tmp_path):
    write_arms(tmp_path, {BN: [0.8, 0.9]})
    code = (
        "import sys; from reg_sweep.report import main; code = main(sys.argv[1:]); "
        "assert not {'torch', 'hydra', 'optuna', 'matplotlib.pyplot'} & sys.modules.keys(); sys.exit(code)"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MPLBACKEND")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_page_of_many_arms_stays_small(make_runs, tmp_path, drawn):
    make_runs.make_runs(tmp_path / "runs", 520, 3, N_TEST, n_seeds=2)
    made = write_report([tmp_path / "runs"], tmp_path / "report", progress=False)
    assert made.page.stat().st_size < 4e6
    page = Page(made.page)
    assert "Listed here are 500, those that did not complete first" in page.text
    assert len(rows(tmp_path / "report" / "runs.csv")) == 520
