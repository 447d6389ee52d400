from types import SimpleNamespace

import pytest

from reweight_core.errors import UserError
from reweight_core.plugins import registry
from reweight_core.plugins.records import DataPlugin, TablePlugin
from reweight_experiments.published import Comparison, cells_of, comparison_report, options_of_cells, read, select
from reweight_experiments.report import Spread

TABLE = """
figure = "test_accuracy"
deviation = "standard deviation"
notes = ["of all"]

[options]
epochs = 7
weight-decay = 0.5

[[cells]]
name = "erm-small"
method = "erm"
mean = 80.0
deviation = 0.5

[[cells]]
name = "erm-large"
method = "erm"
mean = 90.0
options = { epochs = 9, data = "shelf" }
notes = ["of one"]

[[cells]]
name = "erm-unknown"
method = "erm"
"""


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Write a table; read it."""
    find = registry.find
    data = {name: DataPlugin(name, "small", lambda config: None) for name in ("digits", "shelf")}
    monkeypatch.setattr(registry, "find", lambda kind, name: data[name] if kind == "data" else find(kind, name))
    monkeypatch.setattr(registry, "names", lambda kind: sorted(data) if kind == "data" else ["erm"])

    def make(text=TABLE):
        path = tmp_path / "table.toml"
        path.write_text(text)
        return read(TablePlugin("mine", "my table", "I, 2020, table 1", path))

    return make


def test_the_options_of_all_cells_are_in_each(table):
    small, large, unknown = table().cells
    assert small.options == {"epochs": 7, "weight_decay": 0.5}
    assert large.options == {"epochs": 9, "weight_decay": 0.5, "data": "shelf"}
    assert (small.mean, small.deviation, large.deviation, unknown.mean) == (80.0, 0.5, None, None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("figure =", "figur =", "TypeError"),
        ('"test_accuracy"', '"best_accuracy"', "'figure' must be in"),
        ("mean = 80.0", 'mean = "80"', "'mean' must be"),
        ("deviation = 0.5", "sd = 0.5", "unexpected keyword argument 'sd'"),
        ('name = "erm-small"', "", "missing 1 required keyword-only argument: 'name'"),
        ('"erm-small"', '"erm-large"', "two cells have the same name"),
        ("[[cells]]", "[[cell]]", "KeyError: 'cells'"),
        ("[options]", "options = 3", "TypeError"),
        ("[options]", "[options", "TOMLDecodeError"),
        ("[options]", '[options]\nmethod = "gdw"', "'method' is a key of a cell"),
    ],
)
def test_a_file_of_another_form_is_an_error_that_names_it(table, old, new, message):
    with pytest.raises(UserError, match=f"table 'mine' in .*table.toml: .*{message}"):
        table(TABLE.replace("weight-decay = 0.5", "").replace("epochs = 7", "").replace(old, new))


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"table 'mine' in .*FileNotFoundError"):
        read(TablePlugin("mine", "my table", "I", tmp_path / "none.toml"))


def test_cells_are_chosen_by_method_and_name(table):
    assert [cell.name for cell in select(table(), [], "*l*e")] == ["erm-large"]
    assert len(select(table(), ["erm"], "*")) == 3
    with pytest.raises(UserError, match=r"--only ern: table 'mine' has no cell of it \(did you mean 'erm'\?\)"):
        select(table(), ["ern"], "*")
    with pytest.raises(UserError, match=r"--cells x\*: matches none of erm-small, erm-large, erm-unknown"):
        select(table(), [], "x*")


def test_an_override_ranks_above_the_table(table):
    read_table = table()
    small, large = cells_of(read_table, read_table.cells[:2], {"epochs": 1, "data": "digits"})
    assert small.values == large.values == {"method": "erm", "epochs": 1, "weight_decay": 0.5, "data": "digits"}
    assert "epochs" in options_of_cells(read_table.cells, {})
    with pytest.raises(UserError, match="--eta-w: none of the chosen cells has this option"):
        cells_of(read_table, read_table.cells, {"eta_w": 1})


@pytest.mark.parametrize("line", ["epochs = 0", "epochz = 1"])
def test_a_cell_with_wrong_options_is_named(table, line):
    wrong = table(TABLE.replace("epochs = 7", line))
    with pytest.raises(UserError, match="table 'mine', cell erm-small: "):
        cells_of(wrong, wrong.cells, {"epochs": 3})


def result(*accuracies):
    return SimpleNamespace(spreads={"test_accuracy": Spread.of(accuracies)}, finished=len(accuracies), runs=[])


def test_a_difference_is_in_points_and_in_published_deviations(table):
    read_table = table()
    small, large, unknown = read_table.cells
    one = Comparison.of(read_table, small, result(0.81, 0.82))
    assert (one.mean, one.difference, one.in_deviations) == pytest.approx((81.5, 1.5, 3.0))
    assert one.deviation == pytest.approx(100 * Spread.of([0.81, 0.82]).deviation)
    other = Comparison.of(read_table, large, result(0.88))
    assert (other.difference, other.in_deviations, other.deviation) == (pytest.approx(-2.0), None, None)
    assert Comparison.of(read_table, unknown, result(0.5)).difference is None
    assert Comparison.of(read_table, small, result()).difference is None


def test_the_report_states_what_differs_from_the_paper(table):
    read_table = table()
    comparisons = [Comparison.of(read_table, cell, result(0.81, 0.82)) for cell in read_table.cells]
    report = comparison_report(read_table, comparisons, {"epochs": 2, "download": True}, ["made here"])
    assert "I, 2020, table 1" in report.heading[0]
    assert report.heading[1] == "With --epochs 2 --download: not the paper's setting."
    assert report.rows[0] == ["erm-small", "80.00 ± 0.50", "2", "81.50 ± 0.71", "+1.50", "+3.0"]
    assert report.rows[1][-1] == "-"
    assert report.remarks == ["of all", "of one (erm-large)", "made here"]
    report = comparison_report(read_table, comparisons, {"device": "cpu", "data_root": "x"}, [])
    assert report.heading[1] == "With --device cpu --data-root x."
    assert len(comparison_report(read_table, comparisons, {}, []).heading) == 1
