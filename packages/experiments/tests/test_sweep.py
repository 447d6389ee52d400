from pathlib import Path
from typing import Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reweight_core.config.options import option
from reweight_core.config.resolve import as_values, configure
from reweight_core.errors import UserError
from reweight_core.plugins import registry
from reweight_core.plugins.records import ComponentPlugin, DataPlugin, MethodPlugin, NoisePlugin
from reweight_experiments.cells import as_arguments, cells_of, options_of_all, parse_axes, runs_of


@attrs.frozen
class StirOptions:
    """Options of the method `stir`."""

    speed: float = option(1.0, "Turns a second.", check=attrs.validators.gt(0))
    whisk: Literal["wire", "wooden"] = option("wire", "Which whisk.")
    gently: bool = option(False, "Whether to take care.")


@attrs.frozen
class ShakeOptions:
    """Options of the method `shake`."""

    speed: float = option(5.0, "Times a second.")
    whisk: Literal["none", "wire"] = option("none", "Which whisk.")


@attrs.frozen
class SpiceOptions:
    """Options of the component `spice`."""

    amount: float = option(0.5, "How much.")


def never_built(*arguments):
    raise AssertionError("a plan must not build anything")


RECORDS = {
    "method": {
        "erm": MethodPlugin("erm", "plain", never_built),
        "stir": MethodPlugin("stir", "stirs", never_built, StirOptions, one_label=True),
        "shake": MethodPlugin("shake", "shakes", never_built, ShakeOptions),
    },
    "component": {
        "spice": ComponentPlugin("spice", "adds", never_built, SpiceOptions),
        "blend": ComponentPlugin("blend", "mixes", never_built, mixes_targets=True),
    },
    "data": {
        "digits": DataPlugin("digits", "small", never_built),
        "tail": DataPlugin("tail", "long", never_built, defaults={"imb": 0.1}),
    },
    "noise": {"blur": NoisePlugin("blur", "blur:X", lambda argument: argument)},
    "model": {},
}


@pytest.fixture(autouse=True, scope="module")
def plugins():
    """Put records of the test's own in the place of what is installed."""

    def find(kind, name):
        if name not in RECORDS[kind]:
            raise UserError(f"no {kind} is called '{name}'")
        return RECORDS[kind][name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "find", find)
        patch.setattr(registry, "names", lambda kind: sorted(RECORDS[kind]))
        yield


def plan(methods, data="digits", vary=(), **given):
    return cells_of(parse_axes(methods, data, vary), given)


def test_a_cell_is_a_combination_of_all_that_varies():
    cells = plan("erm,stir", "digits,tail", ["noise=none,blur:1", "lr=0.1,0.2"])
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
    cells = plan("erm,stir", vary=["speed=1,2", "with=none,spice", "spice-amount=3,4"])
    assert [cell.labels for cell in cells if cell.labels["method"] == "erm"] == [
        {"method": "erm", "data": "digits", "with": "none"},
        {"method": "erm", "data": "digits", "with": "spice", "spice_amount": "3"},
        {"method": "erm", "data": "digits", "with": "spice", "spice_amount": "4"},
    ]
    assert len(cells) == 3 + 2 * 3


def test_values_that_are_no_plain_text():
    (none, one, two) = plan("erm", vary=["with=none,spice,spice+blend"])
    assert [cell.values["with"] for cell in (none, one, two)] == [("none",), ("spice",), ("spice", "blend")]
    assert runs_of([none, two], range(1), Path("x"))[1].config.with_ == ("spice", "blend")
    (yes, no) = plan("stir", vary=["gently=true,false"])
    assert (yes.values["gently"], no.values["gently"]) == (True, False)
    (_, none) = plan("shake", vary=["whisk=wire,none"])
    assert none.values["whisk"] == "none", "where it is a choice, none is a value"
    assert plan("erm", vary=["noise=none,blur:1"])[0].values["noise"] is None


def test_none_cannot_take_back_the_default_of_a_dataset():
    runs_of(plan("erm", vary=["imb=none,0.5"]), range(1), Path("x"))
    with pytest.raises(UserError, match=r"erm-tail-imb=none: imb=none: here the default is 0\.1"):
        runs_of(plan("erm", "tail", vary=["imb=none,0.5"]), range(1), Path("x"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("erm,,stir",), "--methods erm,,stir: holds an empty name"),
        (("erm,erm",), "'erm' comes twice"),
        (("erm", "digits", ["noise"]), "must be NAME=VALUE,VALUE"),
        (("erm", "digits", ["noise="]), "holds an empty name"),
        (("erm", "digits", ["lr=1,2", "lr=3"]), "'lr' are given twice"),
        (("erm", "digits", ["method=erm"]), "'method' are given twice"),
        (("erm", "digits", ["seed=1,2"]), "see --seeds"),
        (("erm", "digits", ["nois=blur:1"]), r"--vary nois: no run here has such an option \(did you mean 'noise'\?\)"),
        (("erm", "digits", ["speed=1,2"]), "--vary speed: no run here has such an option"),
        (("sitr",), "no method is called 'sitr'"),
        (("erm", "digits", ["noise=matrix:a/b,matrix:a:b"]), "two settings would share the folder"),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        plan(*arguments)


def test_an_option_cannot_vary_and_be_given():
    with pytest.raises(UserError, match="--vary weight_decay: --weight-decay is given too"):
        plan("erm", vary=["weight-decay=1,2"], weight_decay=3.0)


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
        runs_of(plan(methods, **given), range(2), Path("x"))


def test_the_last_seed_is_checked_too():
    with pytest.raises(UserError, match="--seed must be"):
        runs_of(plan("erm"), range(2**32 - 1, 2**32 + 1), Path("x"))


def test_a_run_has_a_folder_and_a_command_of_its_own():
    first, second = runs_of(plan("stir", gently=False, **{"with": ("spice",)}), range(3, 5), Path("out"))
    assert (first.config.seed, second.config.seed) == (3, 4)
    assert (first.folder, first.name) == (Path("out/stir-digits/seed-3"), "stir-digits/seed-3")
    assert first.arguments == [
        *("train", "--gently" if first.config.method_options.gently else "--no-gently", "--with", "spice"),
        *("--method", "stir", "--data", "digits", "--seed", "3", "--out", "out/stir-digits/seed-3"),
    ]


def test_options_of_all_cells_are_merged():
    known = options_of_all(parse_axes("erm,stir,shake", "digits,tail", []), {"with": ("spice",)})
    assert {"lr", "speed", "gently", "spice_amount"} <= set(known)
    assert known["lr"].default == 0.1
    assert known["speed"].default is None, "the methods disagree"
    assert known["imb"].default is None, "the datasets disagree"
    assert (known["whisk"].type, known["whisk"].choices) == (str, ())


def test_a_file_ranks_below_what_varies_and_serves_every_method(tmp_path):
    file = tmp_path / "options.toml"
    file.write_text('lr = 0.7\nnoise = "blur:9"\n[stir]\nspeed = 4.0\n')
    cells = cells_of(parse_axes("erm,stir", "digits", ["noise=blur:1,blur:2"]), {"epochs": 3}, file)
    assert [cell.values["noise"] for cell in cells] == ["blur:1", "blur:2"] * 2
    assert all((cell.values["lr"], cell.values["epochs"]) == (0.7, 3) for cell in cells)
    assert ["speed" in cell.values for cell in cells] == [False, False, True, True]


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
