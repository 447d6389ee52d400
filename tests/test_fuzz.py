"""Bad input of every kind, drawn as benchmarks/fuzz.py does, only fewer: refused in one line, with exit status 2."""

import sys
from pathlib import Path

import pytest

EXAMPLES = {
    "command lines": 40,
    "tables (CSV)": 30,
    "features (.npy, .npz, .safetensors, .parquet)": 40,
    "folders of images": 40,
    "files of runs": 40,
    "full and read-only disks": 12,
}


@pytest.fixture(scope="module")
def fuzz():
    """The program, whose modules are forgotten again."""
    place = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, place)
    import fuzz

    yield fuzz
    sys.path.remove(place)
    for name in [name for name in sys.modules if name == "fuzz" or name.startswith("fuzz_parts")]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", EXAMPLES)
def test_bad_input_is_refused_in_one_line(fuzz, kind):
    from fuzz_parts.examine import examine

    assert EXAMPLES.keys() == fuzz.KINDS.keys()
    outcome = examine(fuzz.KINDS[kind], EXAMPLES[kind], 0)
    assert not outcome.problems, "\n".join(outcome.problems.values())
    # else the examples test nothing
    assert outcome.counts["refused"] > 5
    assert outcome.counts["ran"] > 5


@pytest.mark.parametrize(
    ("status", "err", "how"),
    [
        (0, "", "ran"),
        (0, "Warning: a\n", "ran"),
        (2, "Error: a\n", "refused"),
        (2, "Warning: a\nError: b\n", "refused"),
        (1, "Error: diverged\n", "ended"),
        (0, "Error: a\n", "problem"),
        (2, "", "problem"),
        (2, "Error: a\nb\n", "problem"),
        (2, "Error: a\nError: b\n", "problem"),
        (2, "Error: \x1b[31m\n", "problem"),
        (2, f"Error: {'a' * 4000}\n", "problem"),
        (2, "Error: memory is full\n", "problem"),
        (2, "Error: data 'csv': build: KeyError: 1 (csv.py, line 3)\n", "problem"),
        (2, "Traceback (most recent call last):\nError: a\n", "problem"),
        (0, "Warning: overflow encountered in cast\n", "problem"),
        (3, "Error: a\n", "problem"),
    ],
)
def test_what_is_a_problem(fuzz, status, err, how):
    from fuzz_parts.examine import judged

    assert judged(status, err).how == how


def test_an_exception_a_hang_and_an_opened_pickle_are_problems(fuzz, monkeypatch):
    import click

    from fuzz_parts import examine
    from reweight_core.cli import list_command

    def command(found):
        monkeypatch.setattr(list_command, "command", click.Command("list", callback=found))
        return examine.examine(examine.Kind("list", lambda draw, folder: [examine.Command(["list"])]), 1, 0)

    def fails():
        raise KeyError("x")

    def hangs():
        while True:
            pass

    assert list(command(lambda: None).problems) == []
    assert "KeyError: 'x'" in next(iter(command(fails).problems.values()))
    monkeypatch.setattr(examine, "SECONDS", 1)
    assert "takes more than 1 seconds" in next(iter(command(hangs).problems.values()))
    opened = command(lambda: Path(examine.OPENED).touch())
    assert "a pickle was opened" in next(iter(opened.problems.values()))
