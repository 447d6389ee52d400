import pytest

from reweight_core import TablePlugin, UserError
from reweight_experiments.cells import plan_runs
from reweight_experiments.published import choose_cells, installed_cells, options_of_cells, planned_cells, read_table

STEPS = """
figure = "test_accuracy"

[options]
steps = 300

[[cells]]
name = "erm-digits"
method = "erm"
options = { data = "digits" }

[[cells]]
name = "erm-march"
method = "erm"
options = { data = "march" }
"""


ROWS = """
figure = "test_accuracy"

[options]
epochs = 7
lr = 0.3

[rows.spiced]
method = "stir"
package = "reweight-method-stir"
options = { with = ["spice"], loss = "dent", lr = 0.2 }
notes = ["of the row"]
no-target = "of the row"

[rows.shake]
package = "reweight-method-shake"

[[cells]]
name = "spiced-small"
row = "spiced"
mean = 80.0

[[cells]]
name = "spiced-large"
row = "spiced"
options = { epochs = 9, spice-amount = 0.7 }
notes = ["of the cell"]
no-target = "of the cell"

[[cells]]
name = "shake"
method = "shake"

[[cells]]
name = "stir"
method = "stir"
"""


@pytest.fixture
def read(table):
    """Write a table; read it."""
    return lambda *text: read_table(table(*text))


def test_the_options_of_all_cells_are_in_each(read):
    small, large, unknown = read().cells
    assert small.options == {"epochs": 7, "weight_decay": 0.5}
    assert large.options == {"epochs": 9, "weight_decay": 0.5, "data": "tail"}
    assert (small.mean, small.deviation, large.deviation, unknown.mean) == (80.0, 0.5, None, None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('figure = "test_accuracy"', 'figure = "accuracy"', "must be in"),
        ('figure = "test_accuracy"', "", "figure"),
        ("mean = 80.0", 'mean = "80"', "mean"),
        ("mean = 80.0", "men = 80", "men"),
        ("erm-large", "erm-small", "two cells have the same name"),
        ("[[cells]]", "[[cell]]", "KeyError: 'cells'"),
        ("[options]", "options = 3", "TypeError"),
        ("[options]", "[options", "TOMLDecodeError"),
        ("[options]", '[options]\nmethod = "gdw"', "'method' is a key of a cell"),
    ],
)
def test_a_file_of_another_form_is_an_error_that_names_it(table, old, new, message):
    path = table().path
    text = path.read_text().replace("weight-decay = 0.5", "").replace("epochs = 7", "").replace(old, new)
    with pytest.raises(UserError, match=f"table 'mine' in .*table.toml: .*{message}"):
        read_table(table(text))


def test_a_cell_has_what_its_row_has(read):
    small, large, shake, stir = read(ROWS).cells
    assert small.values == {"method": "stir", "with": ["spice"], "loss": "dent", "lr": 0.2, "epochs": 7}
    assert large.values == small.values | {"epochs": 9, "spice_amount": 0.7}
    assert (small.notes, large.notes) == (["of the row"], ["of the row", "of the cell"])
    assert (small.no_target, large.no_target, stir.no_target) == ("of the row", "of the cell", None)
    assert [cell.row for cell in (small, large, shake, stir)] == ["spiced", "spiced", "shake", "stir"]
    assert [cell.package for cell in (small, shake, stir)] == ["reweight-method-stir", "reweight-method-shake", None]
    assert small.plugins == [("method", "stir"), ("loss", "dent"), ("component", "spice")]
    assert stir.plugins == [("method", "stir")]


def test_a_row_that_is_not_described_is_an_error(read):
    with pytest.raises(UserError, match=r"cell spiced-small: there is no \[rows.spicy\]"):
        read(ROWS.replace('row = "spiced"', 'row = "spicy"', 1))


def test_a_method_does_not_choose_rows_that_add_to_it(read):
    table = read(ROWS)
    assert [cell.name for cell in choose_cells(table, "stir", "*")] == ["stir"]
    assert [cell.name for cell in choose_cells(table, "spiced", "*")] == ["spiced-small", "spiced-large"]


@pytest.mark.parametrize(
    ("kind", "name", "rows"),
    [
        ("method", "shake", ["spiced", "spiced", "stir"]),
        ("loss", "dent", ["shake", "stir"]),
        ("component", "spice", ["shake", "stir"]),
    ],
)
def test_cells_without_one_of_their_plugins_are_left_out_or_refused(read, plugins, monkeypatch, kind, name, rows):
    cells = read(ROWS).cells
    assert installed_cells(cells, leave_out=False) == cells
    monkeypatch.delitem(plugins[kind], name)
    with pytest.raises(UserError, match=rf"not installed: {kind} '{name}' \(reweight-method-\w+\); install"):
        installed_cells(cells, leave_out=False)
    with pytest.warns(UserWarning, match=rf"not installed: {kind} '{name}' .* their rows are left out"):
        assert [cell.row for cell in installed_cells(cells, leave_out=True)] == rows


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"table 'mine' in .*FileNotFoundError"):
        read_table(TablePlugin("mine", "my table", "I", tmp_path / "none.toml"))


def test_a_record_names_the_file_beside_its_module(tmp_path):
    record = TablePlugin.beside(str(tmp_path / "published.py"), "mine", "my table", "I")
    assert record == TablePlugin("mine", "my table", "I", tmp_path / "tables" / "mine.toml")


def test_cells_are_chosen_by_method_and_name(read):
    assert [cell.name for cell in choose_cells(read(), None, "*l*e")] == ["erm-large"]
    assert len(choose_cells(read(), ["erm"], "*")) == len(choose_cells(read(), "erm", "*")) == 3
    with pytest.raises(UserError, match=r"--only ern: table 'mine' has no cell of it \(did you mean 'erm'\?\)"):
        choose_cells(read(), "erm, ern", "*")
    with pytest.raises(UserError, match=r"--cells x\*: matches none of erm-small, erm-large, erm-unknown"):
        choose_cells(read(), None, "x*")


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("", "--only : holds an empty name"),
        ([], "--only : holds an empty name"),
        ("erm,", "--only erm,: holds an empty name"),
        (3, "--only 3: must be a list"),
    ],
)
def test_methods_that_are_no_names_are_refused(read, only, message):
    with pytest.raises(UserError, match=message):
        choose_cells(read(), only, "*")


def test_epochs_of_a_cell_take_back_the_steps_of_all_cells(read, tmp_path):
    table = read(STEPS.replace('{ data = "digits" }', '{ data = "digits", epochs = 9 }'))
    runs = plan_runs(planned_cells(table, table.cells, {}), 0, 1, tmp_path)
    assert [(run.config.epochs, run.config.steps) for run in runs] == [(9, None), (80, 300)]


def test_an_override_ranks_above_the_table(read):
    table = read()
    small, large = planned_cells(table, table.cells[:2], {"epochs": 1, "data": "digits"})
    assert small.values == large.values == {"method": "erm", "epochs": 1, "weight_decay": 0.5, "data": "digits"}
    with pytest.raises(UserError, match="--speed: none of the chosen cells has this option"):
        planned_cells(table, table.cells, {"speed": 1})


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [({}, (80, 300)), ({"epochs": 3}, (3, None)), ({"epochs": 3, "steps": 20}, (3, 20)), ({"steps": 20}, (80, 20))],
)
def test_epochs_in_place_of_steps_have_their_effect(read, tmp_path, overrides, expected):
    table = read(STEPS)
    runs = plan_runs(planned_cells(table, table.cells, overrides), 0, 1, tmp_path)
    assert [run.cell.name for run in runs] == ["erm-digits", "erm-march"]
    assert [(run.config.epochs, run.config.steps) for run in runs] == [expected] * 2


@pytest.mark.parametrize("line", ["epochs = 0", "epochz = 1"])
def test_a_cell_with_wrong_options_is_named(read, line):
    wrong = read(f'figure = "test_accuracy"\n[[cells]]\nname = "erm-small"\nmethod = "erm"\noptions = {{ {line} }}')
    with pytest.raises(UserError, match="table 'mine', cell erm-small: "):
        planned_cells(wrong, wrong.cells, {"epochs": 3})


def test_a_cell_whose_method_is_not_there_adds_no_options(read):
    table = read(f'{STEPS}\n[[cells]]\nname = "gone"\nmethod = "gone"\n[[cells]]\nname = "stir"\nmethod = "stir"')
    assert {"epochs", "speed"} <= set(options_of_cells(table.cells, {}))
    with pytest.raises(UserError, match="not installed: method 'gone'; install what the chosen rows need"):
        options_of_cells([cell for cell in table.cells if cell.method == "gone"], {})
    with pytest.raises(UserError, match="table 'mine', cell gone: no method is called 'gone'"):
        planned_cells(table, table.cells, {})
