from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reweight_core import UserError, as_values, configure
from reweight_experiments.cells import as_arguments, axes_of, cells_of, options_of_all, plan_runs, union

pytestmark = pytest.mark.usefixtures("plugins")


def file_with(tmp_path, text):
    file = tmp_path / "options.toml"
    file.write_text(text)
    return file


def plan(methods, data="digits", vary=None, **given):
    return cells_of(axes_of(methods, data, vary or {}), given)


def check(cells, first=0, seeds=1):
    return plan_runs(cells, first, seeds, Path("x"))


def test_a_cell_is_a_combination_of_all_that_varies():
    cells = plan("erm,stir", "digits,tail", {"noise": "none,blur:1", "lr": "0.1,0.2"})
    assert len(cells) == 2 * 2 * 2 * 2
    assert len({cell.name for cell in cells}) == len(cells)
    last = cells[-1]
    assert last.labels == {"method": "stir", "data": "tail", "noise": "blur:1", "lr": "0.2"}
    assert last.values == last.labels
    assert last.name == "stir-tail-noise=blur-1-lr=0.2"


def test_an_option_goes_to_the_cells_that_have_it():
    erm, stir = plan("erm,stir", speed=2.0, lr=0.3)
    assert erm.values == {"method": "erm", "data": "digits", "lr": 0.3}
    assert stir.values == erm.values | {"method": "stir", "speed": 2.0}


def test_a_cell_does_not_vary_in_what_it_does_not_have():
    cells = plan("erm,stir", vary={"speed": "1,2", "with": "none,spice", "spice_amount": "3,4"})
    assert [cell.labels for cell in cells if cell.labels["method"] == "erm"] == [
        {"method": "erm", "data": "digits", "with": "none"},
        {"method": "erm", "data": "digits", "with": "spice", "spice_amount": "3"},
        {"method": "erm", "data": "digits", "with": "spice", "spice_amount": "4"},
    ]
    assert len(cells) == 3 + 2 * 3


def test_values_that_are_no_plain_text():
    (none, one, two) = plan("erm", vary={"with": "none,spice,spice+blend"})
    assert [cell.values["with"] for cell in (none, one, two)] == [("none",), ("spice",), ("spice", "blend")]
    assert check([none, two])[1].config.with_ == ("spice", "blend")
    (yes, no) = plan("stir", vary={"gently": "true,false"})
    assert (yes.values["gently"], no.values["gently"]) == (True, False)
    (_, none) = plan("shake", vary={"whisk": "wire,none"})
    assert none.values["whisk"] == "none", "where it is a choice, none is a value"
    assert plan("erm", vary={"noise": "none,blur:1"})[0].values["noise"] is None


def test_none_cannot_take_back_the_default_of_a_dataset():
    check(plan("erm", vary={"imb": "none,0.5"}))
    with pytest.raises(UserError, match=r"erm-tail-imb=none: imb=none: here the default is 0\.1"):
        check(plan("erm", "tail", {"imb": "none,0.5"}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("erm,,stir",), "--methods erm,,stir: holds an empty name"),
        ((["erm", ""],), "--methods erm,: holds an empty name"),
        (([],), "--methods : holds an empty name"),
        (("erm,erm",), "'erm' comes twice"),
        ((3,), "--methods 3: must be a list of values, or a text with commas"),
        (("erm", "digits", {"noise": ""}), "holds an empty name"),
        (("erm", "digits", {"lr": 0.1}), "--vary lr 0.1: must be a list of values, or a text with commas"),
        (("erm", "digits", {"noise": ["blur:1,2"]}), "--vary noise blur:1,2: a value with a comma cannot vary"),
        (("stir", "digits", {"pauses": "2,5"}), "--vary pauses: its values have commas themselves"),
        (("erm", "digits", {"lr_drops": "2,5"}), "--vary lr_drops: its values have commas themselves"),
        (("erm", "digits", {"method": "erm"}), "--vary method: give --methods A,B"),
        (("erm", "digits", {"data": "tail"}), "--vary data: give --data A,B"),
        (("erm", "digits", {"seed": "1,2"}), "see --seeds"),
        (
            ("erm", "digits", {"nois": "blur:1"}),
            r"--vary nois: no run here has such an option \(did you mean 'noise'\?\)",
        ),
        (("erm", "digits", {"speed": "1,2"}), "--vary speed: no run here has such an option"),
        (("sitr",), "no method is called 'sitr'"),
        (("erm", "digits", {"noise": "matrix:a/b,matrix:a:b"}), "two settings would share the folder"),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        plan(*arguments)


def test_an_option_cannot_vary_and_be_given():
    with pytest.raises(UserError, match="--vary weight_decay: --weight-decay is given too"):
        plan("erm", vary={"weight_decay": "1,2"}, weight_decay=3.0)


def test_an_option_that_no_cell_has_is_refused():
    with pytest.raises(UserError, match=r"--sped: no run here has such an option \(did you mean 'speed'\?\)"):
        plan("erm,stir", sped=2.0)


def test_values_of_python_are_those_of_the_command_line():
    texts = {"noise": "none,blur:1", "lr": "0.1,1e-05", "with": "none,spice,spice+blend", "gently": "true,false"}
    values = {"noise": [None, "blur:1"], "lr": (0.1, 1e-5), "with": [[], ["spice"], ("spice", "blend")]}
    values |= {"gently": [True, False]}
    assert axes_of(["stir", "erm"], ["digits"], values) == axes_of("stir,erm", "digits", texts)


@pytest.mark.parametrize(
    ("methods", "given", "message"),
    [
        ("erm,stir", {"speed": -1.0}, "stir-digits: --speed must be > 0: -1.0"),
        ("erm,stir", {"with": ("blend",)}, "stir-digits: --with blend: method 'stir' is defined for one label"),
        ("erm", {"noise": "blur"}, "erm-digits: --noise blur: must be KIND:ARGUMENT"),
    ],
)
def test_every_configuration_is_checked(methods, given, message):
    with pytest.raises(UserError, match=message):
        check(plan(methods, **given), seeds=2)


def test_the_last_seed_is_checked_too():
    with pytest.raises(UserError, match="--seed must be"):
        check(plan("erm"), 2**32 - 1, 2)


@pytest.mark.parametrize(
    ("first", "seeds", "message"),
    [
        (0, 0, "--seeds 0: must be a whole number, 1 or more"),
        (0, 1.0, "--seeds 1.0: must be a whole number"),
        ("0", 1, "--seed '0': must be a whole number, 0 or more"),
        (-1, 2, "--seed -1: must be a whole number, 0 or more"),
    ],
)
def test_seeds_are_counted_in_whole_numbers(first, seeds, message):
    with pytest.raises(UserError, match=message):
        check(plan("erm"), first, seeds)


def test_seeds_may_be_numbers_of_numpy():
    runs = check(plan("erm"), np.int64(3), np.int64(2))
    assert [(type(run.config.seed), run.config.seed) for run in runs] == [(int, 3), (int, 4)]


def test_a_run_has_a_folder_and_a_command_of_its_own():
    first, second = plan_runs(plan("stir", gently=False, **{"with": ("spice",)}), 3, 2, Path("out"))
    assert (first.config.seed, second.config.seed) == (3, 4)
    assert (first.folder, first.name) == (Path("out/stir-digits/seed-3"), "stir-digits/seed-3")
    assert first.arguments == [
        *("train", "--no-gently", "--with", "spice"),
        *("--method", "stir", "--data", "digits", "--seed", "3", "--out", "out/stir-digits/seed-3"),
    ]


def test_options_of_all_cells_are_merged():
    known = options_of_all(axes_of("erm,stir,shake", "digits,tail", {}), {"with": ("spice",)})
    assert {"lr", "speed", "gently", "spice_amount"} <= set(known)
    assert known["lr"].default == 0.1
    assert known["speed"].default is None, "the methods disagree"
    assert known["imb"].default is None, "the datasets disagree"
    assert (known["whisk"].type, known["whisk"].choices) == (str, ())


def test_an_option_that_may_change_a_result_somewhere_counts_as_such():
    stir, shake = (options_of_all(axes_of(name, "digits", {}), {}) for name in ("stir", "shake"))
    assert (stir["speed"].changes_result, shake["speed"].changes_result) == (True, False)
    assert union([stir, shake])["speed"].changes_result
    assert union([shake, stir])["speed"].changes_result
    assert not union([shake, shake])["speed"].changes_result


def test_a_file_ranks_below_what_varies_and_serves_every_method(tmp_path):
    file = file_with(tmp_path, 'lr = 0.7\nnoise = "blur:9"\n[stir]\nspeed = 4.0\n')
    cells = cells_of(axes_of("erm,stir", "digits", {"noise": "none,blur:2"}, file), {"epochs": 3}, file)
    assert [run.config.noise for run in check(cells)] == [None, "blur:2"] * 2
    assert all((cell.values["lr"], cell.values["epochs"]) == (0.7, 3) for cell in cells)
    assert ["speed" in cell.values for cell in cells] == [False, False, True, True]


def test_an_option_of_a_plugin_that_varies_ranks_above_the_file(tmp_path):
    file = file_with(tmp_path, "[stir]\nspeed = 4.0\n")
    cells = cells_of(axes_of("stir", None, {"speed": "1,2"}, file), {}, file)
    assert [run.config.method_options.speed for run in check(cells)] == [1.0, 2.0]


@pytest.mark.parametrize(("vary", "given"), [({"epochs": "3"}, {}), ({}, {"epochs": 3})])
def test_epochs_above_a_file_take_its_steps_back(tmp_path, vary, given):
    file = file_with(tmp_path, "steps = 500\n")
    (run,) = check(cells_of(axes_of("erm", "digits", vary, file), given, file))
    assert (run.config.epochs, run.config.steps) == (3, None)


@pytest.mark.parametrize(
    ("methods", "data", "expected"),
    [
        (None, None, ["stir-tail"]),
        ("erm,shake", None, ["erm-tail", "shake-tail"]),
        (None, "digits,march", ["stir-digits", "stir-march"]),
        ("erm", "digits", ["erm-digits"]),
    ],
)
def test_method_and_data_of_a_file_count_where_none_are_given(tmp_path, methods, data, expected):
    file = file_with(tmp_path, 'data = "tail"\nmethod = "stir"\n')
    runs = check(cells_of(axes_of(methods, data, {}, file), {}, file))
    assert [run.cell.name for run in runs] == expected
    assert [f"{run.config.method}-{run.config.data}" for run in runs] == expected


@pytest.mark.parametrize("line", ["seed = 3", 'out = "there"'])
def test_a_file_cannot_say_what_every_run_has_of_its_own(tmp_path, line):
    file = file_with(tmp_path, line)
    with pytest.raises(UserError, match=f"'{line[:3]}.*' is for a single run"):
        cells_of(axes_of("erm", "digits", {}, file), {}, file)


def test_options_are_known_before_any_dataset_is_installed(plugins, monkeypatch):
    monkeypatch.setitem(plugins, "data", {})
    assert "lr" in options_of_all(axes_of(None, None, {}), {})


@given(
    st.fixed_dictionaries(
        {"method": st.just("stir")},
        optional={
            "lr": st.floats(1e-6, 10),
            "epochs": st.integers(1, 10**6),
            "speed": st.floats(1e-6, 1e6),
            "gently": st.booleans(),
            "channels_last": st.booleans(),
            "with": st.sampled_from([(), ("none",), ("spice",)]),
            "whisk": st.sampled_from(["wire", "wooden"]),
            "noise": st.sampled_from([None, "blur:a b"]),
        },
    )
)
def test_arguments_give_the_configuration_that_the_values_give(values):
    given, rest = {}, as_arguments(values)
    while rest:
        name = rest.pop(0).removeprefix("--").replace("-", "_")
        if name.removeprefix("no_") in ("gently", "channels_last"):
            given[name.removeprefix("no_")] = not name.startswith("no_")
        elif name == "with":
            given.setdefault("with", []).append(rest.pop(0))
        else:
            given[name] = rest.pop(0)
    wanted = configure(**{name: value for name, value in values.items() if value is not None})
    assert as_values(configure(**given)) == as_values(wanted)
