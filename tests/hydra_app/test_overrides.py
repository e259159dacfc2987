"""Overrides of trials, written as they would be typed."""

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from reg_sweep.hydra_app.overrides import experiment_yaml, search_path, whole_lists


def test_an_experiment_file_keeps_groups_and_values_apart():
    overrides = ["+db=mysql", "norm=gbn", "a.b=0.5", "experiment=l1", "~loss", "~gone", "name='x: y'"]
    parsed = OverridesParser.create().parse_overrides(overrides)
    text = experiment_yaml(parsed, {"db", "norm", "loss", "experiment"}.__contains__)
    assert text.splitlines() == [
        "# @package _global_",
        "# must be given on the command line: ~gone",
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


def test_one_element_of_a_list_becomes_the_list_since_a_file_can_not_set_one_alone():
    config = OmegaConf.create({"a": {"b": [1, {"c": "x y"}]}, "d": 2})
    overrides = ["a.b.0=1", "d=2", "+a.b.1.c='x y'", "~d"]
    assert whole_lists(overrides, config) == ["++a.b=[1,{c:'x y'}]", "d=2", "~d"]


def test_a_plain_word_is_written_without_quotes_and_what_is_read_otherwise_with_them():
    words = ["test_accuracy", "null", "True", "NaN", "1e5", "x y", "", "é", "a-b"]
    (written,) = whole_lists(["a.0=z"], OmegaConf.create({"a": words}))
    assert written == "++a=[test_accuracy,'null','True','NaN','1e5','x y','','é','a-b']"
    (parsed,) = OverridesParser.create().parse_overrides([written])
    assert [str(getattr(w, "text", w)) for w in parsed.value()] == words


def test_folders_that_were_typed_are_found_again_from_where_the_app_was_started():
    def runtime(*sources):
        keys = ("provider", "schema", "path")
        return OmegaConf.create({"cwd": "/w", "config_sources": [dict(zip(keys, s, strict=True)) for s in sources]})

    flagged, main = ("command-line", "file", "/own"), ("main", "file", "/app")
    typed = ("hydra.searchpath in command-line", "pkg", "some.conf")
    in_main = ("hydra.searchpath in main", "file", "more")
    assert search_path(runtime(main)) == []
    assert search_path(runtime(main, flagged)) == ["--config-dir", "../own"]
    assert search_path(runtime(main, in_main)) == []
    assert search_path(runtime(main), "/w/-out") == ["--config-dir", "./-out"]  # else it would be an option
    assert search_path(runtime(main, typed)) == ["hydra.searchpath=[pkg://some.conf]"]
    both = ["--config-dir", "../own", "hydra.searchpath=[file://out,file://more]"]
    assert search_path(runtime(main, flagged, in_main), "/w/out") == both
