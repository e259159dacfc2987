import json

import pytest
from pages import BN, L1
from trees import write_arms

from reg_sweep.report import main


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    from pages import _blank

    monkeypatch.setattr("reg_sweep.report.figures.theme.rendered", _blank)


@pytest.fixture
def worse(tmp_path):
    write_arms(tmp_path, {BN: [0.95, 0.951, 0.949, 0.95], L1: [0.80, 0.802, 0.799, 0.80]})
    return str(tmp_path)


@pytest.fixture
def undecided(tmp_path):
    write_arms(tmp_path, {BN: [0.90, 0.94, 0.91], L1: [0.93, 0.91, 0.92]})
    return str(tmp_path)


def test_json_tells_the_verdict_and_an_arm_for_each_row_of_the_summary(worse, capsys):
    assert main([worse, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (table,) = told["tables"]
    assert told["schema"] == 1
    assert table["baseline"] == "bn"
    assert {arm["arm"]: arm["verdict"] for arm in table["arms"]} == {"bn": None, "bn · L1 0.001": "worse"}
    assert all(arm["p_divergence"] is None for arm in table["arms"])


def test_a_check_fails_with_3_and_names_the_arm_that_is_shown_worse(worse, capsys):
    assert main([worse, "--fail-if", "worse"]) == 3
    said = capsys.readouterr().err
    assert "--fail-if: 'worse' shown for bn · L1 0.001 against the baseline, bn" in said
    assert main([worse, "--fail-if", "undecided"]) == 0


def test_a_check_fails_where_nothing_is_shown_only_if_it_asks_for_that(undecided, capsys):
    assert main([undecided, "--fail-if", "worse"]) == 0
    assert main([undecided, "--fail-if", "worse,undecided"]) == 3
    assert "'no difference shown' for bn · L1 0.001" in capsys.readouterr().err
