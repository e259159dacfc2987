from reg_sweep.comparison.commands import more_seeds

RUN = "python -m reg_sweep.train"


def test_arms_that_differ_in_one_override_become_one_grid():
    commands = [f"{RUN} l1=0 seed=1 data=mnist_5k", f"{RUN} l1=1e-05 seed=3 data=mnist_5k"]
    assert more_seeds(commands, [4, 5]) == [f"{RUN} l1=0,1e-05 data=mnist_5k seed=4,5 -m"]


def test_arms_that_differ_in_more_get_a_command_each_since_a_grid_would_train_others_too():
    commands = [f"{RUN} norm=bn l1=0 seed=1", f"{RUN} norm=gbn l1=0.1 seed=1"]
    assert more_seeds(commands, [4]) == [f"{RUN} norm=bn l1=0 seed=4 -m", f"{RUN} norm=gbn l1=0.1 seed=4 -m"]


def test_a_command_without_a_seed_gets_one_and_its_folders_stay():
    command = f"{RUN} --config-dir 'my conf' experiment=best name=old -m"
    assert more_seeds([command], [1, 2]) == [f"{RUN} --config-dir 'my conf' experiment=best seed=1,2 -m"]


def test_what_no_record_tells_is_no_command():
    assert more_seeds(["", f"{RUN} l1=0"], [2]) == []
    assert more_seeds([f"{RUN} 'unended"], [2]) == []
    assert more_seeds([f"{RUN} l1=0"], []) == []
