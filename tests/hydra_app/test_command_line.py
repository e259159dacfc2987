"""The command that was typed, as text."""

import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from reg_sweep.hydra_app.command_line import (
    TypedCommand,
    app_command,
    continuing_arguments,
    elsewhere,
    overrides_and_flags,
    place_overrides,
    placed_beside_study,
)


@pytest.mark.parametrize("options", [[], ["-u"], ["-W", "error"]])
def test_an_app_that_is_a_module_is_started_as_one_whatever_the_interpreters_options(options, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/app.py", "-m", "x=1,2"])
    monkeypatch.setattr(sys, "orig_argv", ["python3.11", *options, "-m", "apps.train", "-m", "x=1,2"])
    assert app_command() == ["python", "-m", "apps.train"]
    monkeypatch.setattr(sys, "orig_argv", ["python3.11", *options, "../app.py", "-m", "x=1,2"])
    monkeypatch.setattr(sys, "argv", ["../app.py", "-m", "x=1,2"])
    assert app_command() == ["python", "../app.py"]


def test_overrides_stand_before_flags_whatever_was_typed():
    typed = ["-m", "a=1", "--config-dir", "conf=mine", "~b", "--config-name=main", "+c=2"]
    flags = ["-m", "--config-dir", "conf=mine", "--config-name=main"]
    assert overrides_and_flags(typed) == (["a=1", "~b", "+c=2"], flags)


@pytest.mark.parametrize(
    ("flags", "placed"),
    [([], ["--multirun"]), (["--multirun"], ["--multirun"]), (["-m"], ["-m"]), (["--cfg", "job"], ["--cfg", "job"])],
)
def test_a_study_is_made_a_multirun_once(flags, placed):
    typed = ["study=until_verdict", "max_seeds=3"]
    assert placed_beside_study(typed, flags) == [typed[0], "hydra.sweeper.design.max_seeds=3", *placed]


def config_of(*overrides):
    return OmegaConf.create({"hydra": {"sweep": {"dir": "out"}, "overrides": {"task": list(overrides)}}})


@pytest.mark.parametrize(
    ("typed", "flags"),
    [
        (["-m", "x=1"], []),
        (["-cn", "other", "x=1", "hydra.sweep.dir=out", "+hydra.sweeper.x=1"], ["--config-name", "other"]),
        (["--config-name=other", "x=1", "--config-path", "a b"], ["--config-path", "a b", "--config-name", "other"]),
    ],
)
def test_the_typed_command_has_its_main_configs_flags(monkeypatch, typed, flags):
    monkeypatch.setattr(sys, "argv", ["app.py", *typed])
    assert TypedCommand.of(config_of("x=1")).flags == flags


@pytest.mark.parametrize(
    "arguments",
    [["-f", "kernel-1.json"], ["--fancy", "x=1"], ["--version"], ["-q", "test_app.py"], ["test_app.py"], ["x=2"], []],
)
def test_the_command_line_of_another_program_is_not_the_sweeps(monkeypatch, capsys, arguments):
    """A notebook's, pytest's, a script's with flags of its own."""
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    assert TypedCommand.of(config_of("x=1")) is None
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("directory", "name", "lacks", "other"),
    [
        ("out", "n", [], "hydra.sweep.dir=..."),
        ("out/${name}", "n", [], "name=..."),
        ("out/${name}", "${oc.select:x,'a b'}", ["name='a b'"], "name=..."),
        ("out/${oc.select:x,today}/${name}", "n", ["hydra.sweep.dir=out/today/n"], "name=..."),
    ],
)
def test_a_directory_that_every_start_would_name_anew_is_written_into_the_command(directory, name, lacks, other):
    config = OmegaConf.create({"name": name, "hydra": {"sweep": {"dir": directory}}})
    assert place_overrides(config, "sweep") == lacks
    assert elsewhere(config, None) == other
    assert elsewhere(config, "mine") == f"{other} and another hydra.sweeper.study_name"


def test_what_resumes_takes_the_place_of_what_was_typed_added_keys_included(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["app.py", "-m", "+name=${now:%H}", "x=1,2", "~gone", "n=3"])
    assert continuing_arguments(["name=12"], "n=6") == ["x=1,2", "~gone", "+name=12", "n=6", "-m"]


@pytest.mark.parametrize(
    "name", ["a b", "it's", 'a"b', "\u00fcn\u00ef", "x,y", "back\\", "a=b", "null", "1e5", "007", "", "v1.2/c"]
)
def test_a_name_in_a_printed_command_is_read_back_as_it_is(name):
    config = OmegaConf.create({"stamp": "${oc.select:given}", "given": name, "hydra": {"sweep": {"dir": "${stamp}"}}})
    (override,) = place_overrides(config, "sweep")
    read = OverridesParser.create().parse_override(override).value()
    assert getattr(read, "text", read) == name
