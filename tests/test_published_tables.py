"""The published tables that our packages bring."""

import json
import shlex

import pytest

from reweight_core import RunConfig, configure, registry
from reweight_core.cli.main import main
from reweight_experiments.cells import refuse_misfit
from reweight_experiments.published import read_table

TABLES = registry.names("table")
SMALL = ["--data", "digits", "--model", "mlp", "--steps", "2", "--meta-size", "20", "--device", "cpu"]


def cells(name):
    return read_table(registry.find("table", name)).cells


def test_the_tables_are_found():
    assert {"gdw-uniform", "gdw-flip", "gdw-long-tail", "l2rw-uniform", "l2rw-background"} <= set(TABLES)
    assert sum(len(cells(name)) for name in TABLES) >= 100


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_can_be_configured_as_it_is(name):
    for cell in cells(name):
        config = configure(RunConfig, method=cell.method, **cell.options)
        refuse_misfit(config, has_meta_set=config.meta_size != 0 or config.data == "clothing1m")


@pytest.mark.parametrize("name", TABLES)
def test_published_figures_are_percentages(name):
    for cell in cells(name):
        assert cell.mean is None or 5 < cell.mean < 100
        assert cell.deviation is None or 0 < cell.deviation < 10


def test_a_few_figures_are_those_of_the_papers():
    published = {
        (name, cell.name): (cell.mean, cell.deviation)
        for name in TABLES
        if name.startswith(("gdw", "l2rw", "fsr"))
        for cell in cells(name)
    }
    assert published["gdw-uniform", "gdw-cifar10-40"] == (88.14, 0.35)
    assert published["gdw-flip", "l2rw-cifar100-40"] == (45.41, 2.53)
    assert published["gdw-long-tail", "mwnet-cifar10-0.01"] == (62.70, 1.76)
    assert published["l2rw-background", "l2rw-cifar10"] == (86.73, 0.48)
    assert published["l2rw-mnist", "l2rw-0.995"] == (None, None)
    assert published["fsr-cifar10-uniform", "fsr-cifar10-80"] == (74.2, 0.9)
    assert published["fsr-long-tail", "fsr-df-cifar10-200"] == (66.15, None)
    assert published["gdw-uniform", "co-teaching-cifar100-60"] == (37.74, 2.60)
    assert published["gdw-flip", "glc-cifar10-40"] == (89.74, 0.19)
    assert published["gdw-flip", "soft-label-cifar100-20"] == (65.20, 0.45)
    assert published["gdw-long-tail", "class-balanced-cifar100-0.01"] == (27.60, 1.39)
    assert published["gdw-clothing1m", "gdw"] == (69.39, None)
    assert published["l2rw-uniform", "random-fine-tune-cifar100"] == (58.54, 0.52)
    assert published["l2rw-background", "erm-es-fine-tune-cifar10"] == (85.19, 0.46)
    assert published["fsr-asymmetric", "forward-cifar10-40"] == (83.6, 0.3)


def test_rows_that_a_paper_quotes_and_slips_are_no_targets():
    for name in ("fsr-cifar10-uniform", "fsr-cifar100-uniform", "fsr-asymmetric", "fsr-long-tail"):
        assert all((cell.no_target is None) == (cell.row == "fsr") for cell in cells(name))
    no_targets = {
        (name, cell.name) for name in TABLES if not name.startswith("fsr") for cell in cells(name) if cell.no_target
    }
    assert {("gdw-uniform", "co-teaching-cifar10-60"), ("l2rw-background", "random-cifar100")} <= no_targets
    assert not any(name.startswith("gdw-") and cell.startswith(("gdw", "erm", "mwnet")) for name, cell in no_targets)


def test_the_papers_rows_of_l2rw_have_no_bound():
    found = [cell for name in TABLES for cell in cells(name) if cell.method == "l2rw"]
    assert len(found) >= 30
    assert all(cell.options["max_weight"] == 0 for cell in found)


@pytest.mark.parametrize("name", TABLES)
def test_a_row_of_another_package_says_which(name):
    own = registry.find_entry("table", name).dist.name
    for cell in cells(name):
        brought = {registry.find_entry(kind, plugin).dist.name for kind, plugin in cell.plugins}
        missing = brought - {own, "reweight-core"}
        assert missing == set((cell.package or "").split(" and ")) - {""}, cell.name


@pytest.mark.parametrize("name", TABLES)
def test_each_command_of_a_dry_run_is_that_of_its_cell(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["reproduce", name, "--dry-run"])
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == len(cells(name))
    # the options are read, the run is not made
    main([*shlex.split(commands[-1])[1:], "--help"])
    assert not list(tmp_path.iterdir())


def test_a_table_can_be_run_in_part_by_whoever_has_one_of_its_methods(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REWEIGHT_PLUGINS", "reweight-method-gdw,reweight-data-noisy,reweight-experiments,reweight-core")
    main(["reproduce", "gdw-uniform", "--only", "gdw", "--eta-w", "7", "--dry-run"])
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert len(commands) == sum(cell.method == "gdw" for cell in cells("gdw-uniform"))
    assert all(command[command.index("--method") + 1] == "gdw" for command in commands)
    assert all(float(command[command.index("--eta-w") + 1]) == 7 for command in commands)
    for choice in (["--only", "gdw"], []):
        main(["reproduce", "gdw-uniform", *choice, "--help"])
        assert "--eta-w" in capsys.readouterr().out
    with pytest.raises(SystemExit) as finished:
        main(["reproduce", "gdw-uniform", "--dry-run"])
    assert finished.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "not installed: method 'l2rw' (reweight-method-l2rw), " in line
    assert "method 'co-teaching' (reweight-method-selection)" in line
    assert "or leave them out: --only erm,gdw" in line


@pytest.mark.parametrize(
    ("name", "cell", "more"),
    [
        ("gdw-uniform", "gdw-cifar10-40", []),
        ("gdw-long-tail", "mwnet-cifar100-0.1", []),
        ("l2rw-uniform", "random-cifar10", ["--val-size", "20"]),
        ("l2rw-mnist", "l2rw-0.9", []),
        ("fsr-components", "fsr-mixup", ["--dictionary-size", "50", "--probe-size", "20"]),
    ],
)
def test_a_cell_runs_on_small_data(name, cell, more, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["reproduce", name, "--cells", cell, *SMALL, *more])
    out = capsys.readouterr().out
    assert "not the paper's setting" in out
    content = json.loads((tmp_path / "runs" / name / "results.json").read_text())
    (result,) = content["cells"]
    (published,) = [one for one in cells(name) if one.name == cell]
    assert result["published"] == {"mean": published.mean, "deviation": published.deviation, "no_target": None}
    assert result["n"] == 1
    if published.mean is not None:
        assert result["difference"] == pytest.approx(100 * result[content["figure"]]["mean"] - published.mean)
    assert content["overrides"]["data"] == "digits"
