"""What is written of a study's trials."""

from hydra.core.override_parser.overrides_parser import OverridesParser

from reg_sweep.overrides import experiment_yaml


def test_an_experiment_file_keeps_groups_and_values_apart():
    overrides = ["+db=mysql", "norm=gbn", "a.b=0.5", "experiment=l1", "~loss", "~gone", "name='x: y'"]
    parsed = OverridesParser.create().parse_overrides(overrides)
    text = experiment_yaml(parsed, {"db", "norm", "loss", "experiment"}.__contains__)
    assert text.splitlines() == [
        "# @package _global_",
        "# to be given on the command line: ~gone",
        "defaults:",
        "- l1",
        "- /db: mysql",
        "- override /norm: gbn",
        "- override /loss: null",
        "- _self_",
        "a:",
        "  b: 0.5",
        "name: 'x: y'",
    ]
