"""The two commands: what they read, print and exit with."""

import json
import shlex
from pathlib import Path

import pytest

from reweight_experiments import claims, leases

GONE = '\n[rows.gone]\npackage = "reweight-method-gone"\n[[cells]]\nname = "gone"\nmethod = "gone"\n'
STIR = '\n[[cells]]\nname = "stir"\nmethod = "stir"\n'


def options_in(folder):
    return json.loads((folder / "config.json").read_text())["options"]


def test_sweep_reads_what_varies_from_texts(reweight, tmp_path):
    done = reweight(
        *("sweep", "--methods", "erm,stir", "--vary", "weight-decay=0.1,0.2", "--vary", "with=none,spice"),
        *("--speed", "3", "--spice-amount", "2", "--seed", "4", "--out", "s"),
    )
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[0].startswith("erm-digits-weight_decay=0.1-with=none/seed-4  test 0.7400")
    assert "also in s/results.md" in done.out
    options = options_in(tmp_path / "work/s/stir-digits-weight_decay=0.2-with=spice/seed-4")
    assert (options["weight_decay"], options["speed"], options["spice_amount"]) == (0.2, 3.0, 2.0)


def test_sweep_takes_method_and_data_from_a_file(reweight, tmp_path):
    (tmp_path / "work" / "f.toml").write_text('method = "stir"\ndata = "tail"\n[stir]\nspeed = 9.0\n[tail]\ncut = 4\n')
    done = reweight("sweep", "--config", "f.toml", "--out", "s", "--gently", "--shelf", "there")
    assert done.status == 0, done.err
    options = options_in(tmp_path / "work/s/stir-tail/seed-0")
    assert (options["data"], options["speed"], options["cut"], options["gently"]) == ("tail", 9.0, 4, True)


def test_a_failed_run_is_exit_status_1(reweight, made, table):
    made.broken["erm-digits/seed-0"] = made.broken["erm-small/seed-0"] = "too hot"
    table()
    for command in (["sweep", "--methods", "erm,stir", "--out", "s"], ["reproduce", "mine"]):
        done = reweight(*command)
        assert (done.status, done.err) == (1, "")
        assert "seed-0: too hot (see " in done.out


@pytest.mark.parametrize("command", ["sweep --methods erm,stir --seeds 2 --out s", "reproduce mine --out s"])
def test_a_result_can_be_json_and_nothing_else(reweight, table, command):
    table()
    done = reweight(*command.split(), "--json")
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out) == json.loads(Path("s/results.json").read_text())


def test_quiet_leaves_one_line_and_what_went_wrong(reweight, made):
    done = reweight("sweep", "--methods", "erm", "--out", "s", "--quiet")
    assert (done.out, done.err) == (f"1 of 1 runs finished, results in {Path('s/results.md')}\n", "")
    made.broken["stir-digits/seed-0"] = "too hot"
    summary = Path("s/erm-digits/seed-0/summary.json")
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"health": [{"problem": "chance"}]}))
    done = reweight("sweep", "--methods", "erm,stir", "--out", "s", "--quiet")
    assert (done.status, done.out) == (1, f"1 of 2 runs finished, results in {Path('s/results.md')}\n")
    first, second = done.err.splitlines()
    assert first.startswith("failed: stir-digits/seed-0: too hot (see ")
    assert second == "chance: erm-digits/seed-0 (health in summary.json)"


def test_what_others_are_at_work_on_is_told(reweight, made, monkeypatch):
    for module in (leases, claims):
        monkeypatch.setattr(module, "RENEW_SECONDS", 0.02)
    Path("s/stir-digits").mkdir(parents=True)
    sweep = ["sweep", "--methods", "erm,stir", "--out", "s"]
    with leases.Leases().held(Path("s/stir-digits/seed-0")):
        shown, quiet, as_json = reweight(*sweep), reweight(*sweep, "--quiet"), reweight(*sweep, "--json")
    assert (shown.status, quiet.status, as_json.status) == (0, 0, 0)
    told = "other processes are at work on it; the last one to end completes the table"
    line = f"not finished yet: stir-digits/seed-0: {told}"
    assert line in shown.out.splitlines()
    assert "1 run is left, which others began: waiting a minute at most to see whether they are alive" in shown.out
    assert line in Path("s/results.md").read_text().splitlines()
    assert "| stir | digits | 0 |" in Path("s/results.md").read_text()
    assert quiet.out == f"1 of 2 runs finished, others at work on 1, results in {Path('s/results.md')}\n"
    (run,) = json.loads(as_json.out)["cells"][1]["runs"]
    assert (run["elsewhere"], "error" in run) == (True, False)
    assert reweight(*sweep, "--quiet").out == f"2 of 2 runs finished, results in {Path('s/results.md')}\n"
    assert "not finished yet" not in Path("s/results.md").read_text()


def test_what_reproduce_lists_and_would_run_can_be_json(reweight, table):
    table()
    listed = json.loads(reweight("reproduce", "--list", "--json").out)
    assert listed == {"mine": {"summary": "my table", "source": "I, 2020, table 1"}}
    commands = json.loads(reweight("reproduce", "mine", "--dry-run", "--json").out)
    shown = reweight("reproduce", "mine", "--dry-run").out.splitlines()
    assert [shlex.join(command) for command in commands] == shown
    assert len(shown) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("sweep --out s", "--methods A,B is missing"),
        ("sweep --methods erm", "Missing option '--out'"),
        ("sweep --methods erm --vary noise --out s", "--vary noise: must be NAME=VALUE,VALUE"),
        ("sweep --methods erm --vary lr=1,2 --vary lr=3 --out s", "--vary lr=3: the values of 'lr' are given twice"),
        ("sweep --methods erm --vary weight-decay=1 --weight-decay 2 --out s", "--weight-decay is given too"),
        ("sweep --methods erm --vary lr-drops=2,5 --out s", "its values have commas themselves"),
        ("sweep --methods erm --speed 3 --out s", "--speed"),
        ("sweep --methods erm --seeds 0 --out s", "'--seeds'"),
        ("reproduce", "give the NAME of a table"),
        ("reproduce hers", "no table"),
        ("reproduce mine --only=", "--only : holds an empty name"),
        ("reproduce mine --only stir", "--only stir: table 'mine' has no cell of it"),
        ("reproduce mine --speed 3", "--speed"),
        ("reproduce mine --epochs 0", "erm-small: --epochs must be > 0"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(reweight, table, made, tmp_path, arguments, message):
    table()
    done = reweight(*arguments.split())
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not made.names
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("choice", [["--only", "stir"], ["--cells", "st*"]])
def test_reproduce_looks_at_the_chosen_cells_only(reweight, table, made, choice):
    table(table().path.read_text() + GONE + STIR)
    help_text = reweight("reproduce", "mine", *choice, "--help").out
    assert "--speed" in help_text
    dry = reweight("reproduce", "mine", *choice, "--speed", "3", "--dry-run")
    assert dry.out.splitlines() == [
        "reweight train --method stir --epochs 7 --weight-decay 0.5 --speed 3.0 --seed 0 --out runs/mine/stir/seed-0"
    ]
    assert not made.names
    assert reweight("reproduce", "mine", *choice, "--speed", "3").status == 0
    assert made.names == ["stir/seed-0"]


def test_rows_that_are_not_installed_are_one_line_that_says_what_to_install(reweight, table, made):
    table(table().path.read_text() + GONE + STIR)
    done = reweight("reproduce", "mine")
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "Error: not installed: method 'gone' (reweight-method-gone); install what these rows need, or leave them out: "
        "--only erm,stir\n"
    )
    assert not made.names
    assert "--speed" in reweight("reproduce", "mine", "--help").out


def test_of_the_rows_that_are_asked_for_those_not_installed_are_left_out(reweight, table):
    table(table().path.read_text() + GONE + STIR)
    done = reweight("reproduce", "mine", "--only", "gone,stir", "--dry-run")
    assert done.status == 0
    assert "not installed: method 'gone' (reweight-method-gone); their rows are left out" in done.err
    assert [line.split()[3] for line in done.out.splitlines()] == ["stir"]
    alone = reweight("reproduce", "mine", "--only", "gone", "--dry-run")
    assert (alone.status, alone.out) == (2, "")
    assert "not installed: method 'gone' (reweight-method-gone); install what the chosen rows need" in alone.err


def test_a_sweep_over_losses_gives_each_its_own_options(reweight, made):
    arguments = ["sweep", "--methods", "erm,stir", "--vary", "loss=cross-entropy,dent", "--dent-depth", "0.3"]
    done = reweight(*arguments, "--out", "s")
    assert (done.status, done.err) == (0, "")
    assert made.names == [
        f"{method}-digits-loss={loss}/seed-0" for method in ("erm", "stir") for loss in ("cross-entropy", "dent")
    ]
    assert "| stir | digits | dent | 1 |" in Path("s/results.md").read_text()
    wrong = reweight("sweep", "--methods", "erm", "--vary", "loss=dent,bump", "--out", "t")
    assert (wrong.status, wrong.out) == (2, "")
    assert "no loss is called 'bump'" in wrong.err


def test_a_loss_for_all_runs_brings_its_options(reweight, made):
    done = reweight("sweep", "--methods", "erm,stir", "--loss", "dent", "--vary", "dent-depth=0.1,0.2", "--out", "s")
    assert (done.status, done.err) == (0, "")
    assert len(made.names) == 4


def test_tables_are_listed(reweight, table):
    table()
    (line,) = (line for line in reweight("reproduce", "--list").out.splitlines() if "mine" in line)
    assert line.split(maxsplit=1) == ["mine", line.split(maxsplit=1)[1]]
    assert "my table" in line
    assert "I, 2020, table 1" in line


def test_help_works_before_anything_is_chosen(reweight):
    for command in ("sweep", "reproduce"):
        done = reweight(command, "--help")
        assert (done.status, done.err) == (0, "")
        assert "--weight-decay" in done.out
