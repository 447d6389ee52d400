"""A training that is killed again and again: a short form of benchmarks/chaos.py."""

from importlib import import_module
from pathlib import Path

PLACES = ("after a step", "inside a tensor file", "after the rename", "while the oldest is removed")


def test_a_run_that_was_killed_in_every_part_of_saving_ends_like_one_that_was_left_alone(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    chaos = import_module("chaos")
    options = dict(chaos.subjects())["gdw"]
    assert chaos.in_process(options, tmp_path / "whole") == 0
    for place in PLACES:
        assert chaos.in_process(options, tmp_path / "run", place, 1) == -9
    assert chaos.in_process(options, tmp_path / "run") == 0
    found, expected = chaos.results(tmp_path / "run"), chaos.results(tmp_path / "whole")
    assert [name for name in expected if found[name] != expected[name]] == []
