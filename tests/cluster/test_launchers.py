"""A real tiny study on joblib and on submitit, on this machine: the serial one's results."""

import engines
import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

HOW = {"joblib": ["+cluster=joblib", "hydra.launcher.n_jobs=2"], "local": ["+cluster=local", "hydra.sweeper.n_jobs=2"]}


@pytest.mark.parametrize("engine", HOW)
def test_a_study_is_what_it_is_without_a_launcher(tmp_path, serial, engine):
    pytest.importorskip({"joblib": "joblib", "local": "submitit"}[engine], reason=f"needs the extra for {engine}")
    code, said = engines.run(tmp_path, *engines.STUDY, *HOW[engine])
    assert code == 0, said
    engines.check_study(tmp_path, serial, said)
    assert "+cluster" not in (tmp_path / "outputs" / "it" / "experiment" / "best.yaml").read_text()
    # The same study without the launcher is the same study.
    code, said = engines.run(tmp_path, *engines.STUDY)
    assert code == 0, said
    assert "4 of 4 trials done" in said


def test_a_grid_of_runs_is_the_serial_ones(tmp_path, serial):
    pytest.importorskip("joblib", reason="needs the extra reg_sweep[joblib]")
    grid = ["-m", "l1=0,0.00001", "seed=1,2", "report=false", "name=it", *engines.RUN]
    code, said = engines.run(tmp_path, *grid, *HOW["joblib"])
    assert code == 0, said
    assert engines.outcomes(tmp_path / "outputs" / "it") == serial
