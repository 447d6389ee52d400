"""Standard output that cannot be written."""

import errno
import io
import os
import sys

import pytest

from reweight_core.cli.main import main


class Broken(io.StringIO):
    """Fails as a file on a full disk does, or a pipe that nobody reads any more."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, text):
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["--help"], ["train", "--help"]])
def test_a_full_disk_is_told_in_one_line(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Broken(errno.ENOSPC))

    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert capsys.readouterr().err == "Error: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("arguments", [["list", "--json"], ["--help"]])
def test_whoever_stops_reading_is_told_nothing(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Broken(errno.EPIPE))

    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 1
    assert capsys.readouterr().err == ""


def test_a_closed_output_is_no_problem(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit) as ended:
        main(["list", "--nosuch"])
    assert ended.value.code == 2


def test_standard_output_is_put_back(monkeypatch):
    usual = io.StringIO()
    monkeypatch.setattr(sys, "stdout", usual)
    main(["list", "--json"])
    assert sys.stdout is usual
    assert usual.getvalue().startswith("{")
