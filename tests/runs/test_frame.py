import sys

import pytest
from trees import write_run

from reg_sweep import read_runs


def test_runs_become_a_table_with_a_row_each_and_a_column_for_each_setting(tmp_path):
    pytest.importorskip("pandas")
    for seed in (1, 2):
        write_run(tmp_path / str(seed), seed=seed)
    table = read_runs(tmp_path).to_frame()
    assert list(table["config.seed"]) == [1, 2]
    assert list(table["path"]) == [str(tmp_path / "1"), str(tmp_path / "2")]
    assert {"status", "config.norm.name", "last.test_accuracy"} <= set(table.columns)


def test_without_pandas_one_line_says_what_to_install(tmp_path, monkeypatch):
    write_run(tmp_path / "1")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"^to_frame\(\) needs pandas, which is not installed: pip install pandas$"):
        read_runs(tmp_path).to_frame()
