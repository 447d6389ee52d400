import json
import shlex

import pytest

import reweight_experiments
from reweight_core import UserError
from reweight_core.cli.main import main
from reweight_experiments import Watcher, run_sweep


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_sweep_makes_every_run_and_one_table(made, tmp_path):
    results = run_sweep(["erm", "stir"], "s", vary={"noise": [None, "blur:1"]}, seeds=2, seed=3, speed=2.0)
    assert len(made.names) == len(set(made.names)) == 8
    assert made.names[:2] == ["erm-digits-noise=none/seed-3", "erm-digits-noise=none/seed-4"]
    assert [one.cell.labels["noise"] for one in results.cells] == ["none", "blur:1"] * 2
    assert all(one.spreads["test_accuracy"].mean == pytest.approx(0.735) for one in results.cells)
    assert not results.errors
    options = json.loads((tmp_path / "s/stir-digits-noise=none/seed-3/config.json").read_text())["options"]
    assert (options["speed"], options["noise"], options["seed"]) == (2.0, None, 3)
    content = json.loads((tmp_path / "s/results.json").read_text())
    assert [cell["name"] for cell in content["cells"]] == [one.cell.name for one in results.cells]
    assert [entry["runs"] for entry in content["made_with"]] == [8]
    assert (tmp_path / "s/results.md").read_text() == results.report.markdown()


def test_again_it_makes_what_is_new(made):
    run_sweep("erm", "s", epochs=2)
    assert run_sweep("erm,stir", "s", seeds=2, epochs=2).cells[0].finished == 2
    assert made.names == ["erm-digits/seed-0", "erm-digits/seed-1", "stir-digits/seed-0", "stir-digits/seed-1"]
    with pytest.raises(UserError, match="erm-digits/seed-0: is finished, with epochs 2 where 3 is asked for"):
        run_sweep("erm", "s", epochs=3)


def test_the_command_that_is_kept_makes_the_same_runs(made, tmp_path, capsys):
    (tmp_path / "o.toml").write_text('data = "tail"\nlr = 0.3\n')
    vary = {"with": [[], ["spice", "blend"]], "noise": ["none", "blur:1 x"]}
    run_sweep(["erm"], "s", vary=vary, config="o.toml", seeds=2, momentum=0.5, channels_last=False)
    command = json.loads((tmp_path / "s/results.json").read_text())["command"]
    count = len(made.names)
    program, *arguments = shlex.split(command)
    main(arguments)
    assert (program, len(made.names)) == ("reweight", count)
    assert "8 of 8 runs are finished already" in capsys.readouterr().out


def test_the_file_chooses_what_is_not_given(made, tmp_path):
    (tmp_path / "o.toml").write_text('data = "tail"\nmethod = "stir"\nimb = 0.5\n')
    run_sweep(None, "s", config="o.toml")
    run_sweep("erm", "s", data=["digits"], vary={"imb": [0.3]}, config="o.toml")
    assert made.names == ["stir-tail/seed-0", "erm-digits-imb=0.3/seed-0"]
    for name, imb in zip(made.names, (0.5, 0.3), strict=True):
        assert json.loads((tmp_path / "s" / name / "config.json").read_text())["options"]["imb"] == imb


def test_a_failed_run_is_told_and_tried_again(made, tmp_path):
    made.broken["erm-digits/seed-1"] = "too hot"
    results = run_sweep("erm", "s", seeds=2)
    log = tmp_path.joinpath("s/erm-digits/seed-1.log").relative_to(tmp_path)
    assert results.errors == {"erm-digits/seed-1": f"too hot (see {log})"}
    assert results.cells[0].finished == 1
    assert f"failed: erm-digits/seed-1: too hot (see {log})" in results.report.markdown()
    made.broken.clear()
    assert not run_sweep("erm", "s", seeds=2).errors
    assert made.names == ["erm-digits/seed-0", "erm-digits/seed-1", "erm-digits/seed-1"]


def test_a_watcher_is_told_how_the_runs_get_on(made):
    class Told(Watcher):
        def __init__(self):
            self.begun, self.seen = [], []

        def begin(self, finished, runs):
            self.begun.append((finished, list(runs)))

        def watch(self, ended, running, elsewhere):
            self.seen.append((len(ended), elsewhere))

    told = Told()
    run_sweep("erm", "s", seeds=2, watcher=told)
    run_sweep("erm", "s", seeds=3, watcher=told)
    assert told.begun == [(0, ["erm-digits/seed-0", "erm-digits/seed-1"]), (2, ["erm-digits/seed-2"])]
    assert told.seen == [(1, 0), (2, 0), (1, 0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": None}, "--methods A,B is missing"),
        ({"methods": "erm", "seeds": 0}, "--seeds 0: must be a whole number, 1 or more"),
        ({"methods": "erm", "seed": "0"}, "--seed '0': must be a whole number, 0 or more"),
        ({"methods": "erm", "jobs": 0}, "--jobs 0: must be a whole number, 1 or more"),
        ({"methods": "erm", "jobs": "2"}, "--jobs '2': must be a whole number"),
        ({"methods": "erm", "vary": {"lr": 0.1}}, "--vary lr 0.1: must be a list of values"),
        ({"methods": "erm", "epoch": 3}, r"--epoch: no run here has such an option \(did you mean 'epochs'\?\)"),
        ({"methods": "erm", "config": "none.toml"}, "--config none.toml"),
    ],
)
def test_a_mistake_is_found_before_anything_is_made(made, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message) as refused:
        run_sweep(out="s", **arguments)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "s").exists()


def test_each_column_has_its_own_figure(made):
    report = run_sweep("erm", "s", seeds=2).report
    assert dict(zip(report.columns, report.rows[0], strict=True)) == {
        "method": "erm",
        "data": "digits",
        "n": "2",
        "test accuracy": "0.7050 ± 0.0071",
        "mean of last 5": "0.6050 ± 0.0071",
        "AUROC of weights": "-",
        "seconds": "2.0 ± 0.0",
    }


def test_the_package_has_what_it_says_and_no_more():
    for name in reweight_experiments.__all__:
        assert getattr(reweight_experiments, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'sweeep'"):
        _ = reweight_experiments.sweeep
