"""What the tests of the whole program share."""

from types import SimpleNamespace

import pytest


@pytest.fixture
def reweight(capsys):
    """Run the program; give its exit status, standard output and error."""
    from reweight_core.cli.main import main

    def run(*arguments):
        capsys.readouterr()
        status = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as finished:
            status = finished.code or 0
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return run
