import json
from pathlib import Path
from typing import Literal

import attrs
import pytest
from attrs.validators import gt
from hypothesis import given
from hypothesis import strategies as st

from reweight_core.config.options import option
from reweight_core.config.resolve import (
    as_values,
    check_plugin,
    configure,
    known_options,
    noise_parts,
    over,
    read_file,
)
from reweight_core.config.run_config import DataConfig, RunConfig
from reweight_core.errors import UserError
from reweight_core.plugins import registry
from reweight_core.plugins.records import (
    ComponentPlugin,
    DataPlugin,
    LossPlugin,
    MethodPlugin,
    NoisePlugin,
    NoOptions,
    ObserverPlugin,
)


@attrs.frozen
class StirOptions:
    """Options of the method `stir`."""

    speed: float = option(1.0, "Turns a second.", check=gt(0))
    whisk: Literal["wire", "wooden"] = option("wire", "Which whisk.")
    salt_options: bool = option(False, "An option whose name ends like a field of core's.")


@attrs.frozen
class GreedyOptions:
    """Options of the method `greedy`."""

    lr: float = option(1.0, "Core has this one.")


@attrs.frozen
class TornOptions:
    """Options of the method `torn`, whose author checked too little."""

    keep: float = option(-1.0, "Must be positive, and is not.", check=gt(0))


@attrs.frozen
class ShelfOptions:
    """Options of the dataset `shelf`."""

    shelf_root: Path | None = option(None, "Where it stands.")


def never_built(*arguments):
    raise AssertionError("a configuration must not build anything")


def parse_rate(argument):
    if argument != "half":
        raise UserError(f"--noise blur:{argument}: must be half")
    return lambda labels, num_classes, rng: labels


@attrs.frozen
class SpiceOptions:
    """Options of the component `sweet-spice`."""

    amount: float = option(0.5, "How much.", check=gt(0))


@attrs.frozen
class ThermometerOptions:
    """Options of the observer `thermometer`."""

    scale: str = option("celsius", "Which one.")


RECORDS = {
    "component": {
        "sweet-spice": ComponentPlugin("sweet-spice", "adds to any method", never_built, SpiceOptions),
        "lid": ComponentPlugin("lid", "has no options", never_built),
        "shelf": ComponentPlugin("shelf", "is called like a dataset", never_built),
    },
    "method": {
        "erm": MethodPlugin("erm", "plain", never_built),
        "stir": MethodPlugin(
            "stir",
            "stirs",
            never_built,
            StirOptions,
            presets={
                "feast": {"with": ("sweet-spice", "lid"), "sweet_spice_amount": 2.0, "speed": 9.0, "lr": 0.7},
                "long": {"steps": 500},
                "rounds": {"epochs": 30},
                "wrong": {"spede": 1.0},
            },
        ),
        "twin": MethodPlugin("twin", "is called like a dataset", never_built),
        "greedy": MethodPlugin("greedy", "takes an option of core's", never_built, GreedyOptions),
        "torn": MethodPlugin("torn", "has a bad default", never_built, TornOptions),
        "hasty": MethodPlugin("hasty", "has a bad preset", never_built, presets={"fast": {"lr": -1.0}}),
        "lonely": MethodPlugin("lonely", "has a preset of nobody's", never_built, presets={"p": {"with": ("nobody",)}}),
    },
    "data": {
        "digits": DataPlugin("digits", "small", never_built),
        "shelf": DataPlugin(
            "shelf",
            "big",
            never_built,
            ShelfOptions,
            defaults={"lr": 0.5, "model": "mlp", "speed": 3.0, "declared_by_nobody": 1},
        ),
        "twin": DataPlugin("twin", "is called like a method", never_built),
        "lengthy": DataPlugin("lengthy", "takes many steps", never_built, defaults={"steps": 900, "lr": 0.5}),
        "fitting": DataPlugin(
            "fitting",
            "fits its defaults to a folder",
            never_built,
            ShelfOptions,
            defaults={"lr": 0.5, "steps": 900},
            fitted_defaults=lambda config: {"epochs": len(config.shelf_root.name), "lr": 0.25},
        ),
        "rotten": DataPlugin("rotten", "has a bad better default", never_built, defaults={"epochs": "many"}),
    },
    "noise": {
        "blur": NoisePlugin("blur", "blur:half", parse_rate),
        "table": NoisePlugin("table", "table:FILE", lambda argument: parse_rate("half"), takes_file=True),
    },
    "model": {},
    "observer": {"thermometer": ObserverPlugin("thermometer", "measures", never_built, ThermometerOptions)},
    "loss": {"cross-entropy": LossPlugin("cross-entropy", "plain", never_built)},
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


def write(folder, text):
    path = folder / "options.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_values_every_option_has_its_default():
    config = configure()
    assert config == RunConfig()
    assert (config.method, config.data, config.seed) == ("erm", "digits", 0)


def test_an_option_given_ranks_above_the_datasets_default_and_that_above_the_options_own():
    assert configure().lr == 0.1
    assert configure(data="shelf").lr == 0.5
    assert configure(data="shelf", lr=0.2).lr == 0.2


def test_a_dataset_may_give_a_default_for_an_option_of_the_method():
    assert configure(method="stir").method_options.speed == 1.0
    assert configure(method="stir", data="shelf").method_options.speed == 3.0
    assert configure(method="stir", data="shelf", speed=2).method_options.speed == 2.0


def test_a_preset_ranks_above_the_dataset_and_below_what_is_given():
    config = configure(method="stir", preset="feast", data="shelf")
    assert (config.lr, config.method_options.speed, config.model) == (0.7, 9.0, "mlp")
    assert config.with_ == ("sweet-spice", "lid")
    assert config.component_options == (SpiceOptions(amount=2.0), NoOptions())
    config = configure(method="stir", preset="feast", lr=0.2, sweet_spice_amount=3)
    assert (config.lr, config.component_options[0]) == (0.2, SpiceOptions(amount=3.0))


def test_epochs_that_are_given_rank_above_the_steps_of_a_preset():
    assert configure(method="stir", preset="long").steps == 500
    assert configure(method="stir", preset="long", epochs=3).steps is None
    assert configure(method="stir", preset="long", epochs=3, steps=7).steps == 7


def test_epochs_of_a_preset_rank_above_the_steps_of_a_dataset():
    assert configure(method="stir", data="lengthy").steps == 900
    config = configure(method="stir", data="lengthy", preset="rounds")
    assert (config.steps, config.epochs, config.lr) == (None, 30, 0.5)
    assert configure(method="stir", data="lengthy", preset="long").steps == 500
    assert configure(method="stir", data="lengthy", preset="rounds", steps=7).steps == 7


@pytest.mark.parametrize(
    ("higher", "lower", "expected"),
    [
        ({"lr": 1}, {"lr": 2, "steps": 3}, {"lr": 1, "steps": 3}),
        ({"epochs": 1}, {"epochs": 2, "steps": 3, "lr": 4}, {"epochs": 1, "lr": 4}),
        ({"epochs": 1, "steps": 5}, {"steps": 3}, {"epochs": 1, "steps": 5}),
        ({"steps": 5}, {"epochs": 2}, {"steps": 5, "epochs": 2}),
        ({}, {"epochs": 2, "steps": 3}, {"epochs": 2, "steps": 3}),
    ],
)
def test_of_two_layers_the_higher_wins_and_its_epochs_drop_the_lowers_steps(higher, lower, expected):
    before = dict(lower)
    assert over(higher, lower) == expected
    assert lower == before


def test_given_components_take_the_place_of_the_presets():
    config = configure(method="stir", preset="feast", **{"with": ["lid"]})
    assert (config.with_, config.component_options, config.lr) == (("lid",), (NoOptions(),), 0.7)
    assert configure(**{"with": "sweet-spice"}).component_options == (SpiceOptions(),)


def test_the_options_of_a_component_are_those_of_runs_that_it_is_in():
    with pytest.raises(UserError, match="no option is called 'sweet_spice_amount'"):
        configure(sweet_spice_amount=1.0)


def test_a_preset_with_an_option_that_nobody_has_is_refused():
    with pytest.raises(UserError, match=r"preset 'wrong' of method 'stir' sets unknown options \(spede\)"):
        configure(method="stir", preset="wrong")


@pytest.mark.parametrize(
    ("method", "message"),
    [("stir", "it has feast, long, rounds, wrong"), ("erm", "method 'erm' has no such preset; it has none")],
)
def test_an_unknown_preset_is_an_error_that_lists_those_there_are(method, message):
    with pytest.raises(UserError, match=message):
        configure(method=method, preset="fast")


def test_the_option_of_presets_says_which_the_chosen_method_has():
    assert known_options(RunConfig, {"method": "stir"})["preset"].choices == ("feast", "long", "rounds", "wrong")
    of_erm = known_options(RunConfig, {})["preset"]
    assert (of_erm.choices, of_erm.help.endswith("Method 'erm' has none.")) == ((), True)


BAD_PLUGINS = {
    ("method", "torn"): "method 'torn' declares a default that cannot be used (--keep must be > 0: -1.0)",
    ("method", "greedy"): "method 'greedy' declares --lr, which 'reweight' has already",
    ("method", "hasty"): "preset 'fast' of method 'hasty' gives a default that cannot be used (--lr must be > 0: -1.0)",
    ("method", "stir"): "preset 'wrong' of method 'stir' sets unknown options (spede)",
    ("method", "lonely"): "no component is called 'nobody'",
    ("data", "rotten"): "data 'rotten' gives a default that cannot be used (--epochs 'many': must be int)",
}


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in ("method", "data", "component") for n in RECORDS[k]])
def test_a_plugin_whose_options_no_run_can_use_is_found_before_one_does(kind, name):
    if (kind, name) not in BAD_PLUGINS:
        return check_plugin(kind, name)
    with pytest.raises(UserError) as caught:
        check_plugin(kind, name)
    assert BAD_PLUGINS[kind, name] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values", [{"method": "torn", "keep": 2.0}, {"method": "hasty", "preset": "fast"}, {"data": "rotten"}]
)
def test_a_default_that_cannot_be_used_is_laid_to_the_plugin_and_not_to_the_user(values):
    with pytest.raises(UserError, match="report it to the plugin's author"):
        configure(**values)


def test_a_component_has_a_section_of_its_own_in_a_file(tmp_path):
    path = write(tmp_path, 'with = ["lid", "sweet-spice"]\n[sweet-spice]\namount = 4\n')
    config = configure(**read_file(path, RunConfig, {}))
    assert (config.with_, config.component_options) == (("lid", "sweet-spice"), (NoOptions(), SpiceOptions(amount=4.0)))


def test_a_file_ranks_between_what_is_given_and_the_datasets_default(tmp_path):
    path = write(tmp_path, 'method = "stir"\ndata = "shelf"\nlr = 0.3\nepochs = 7\n[stir]\nspeed = 4\n')
    options = {"epochs": 9}
    config = configure(**over(options, read_file(path, RunConfig, options)))
    assert (config.lr, config.epochs, config.method_options.speed, config.model) == (0.3, 9, 4.0, "mlp")


def test_known_options_show_the_datasets_defaults_and_their_owners():
    options = known_options(RunConfig, {"method": "stir", "data": "shelf"})
    assert options["lr"].default == 0.5
    owners = {name: item.owner for name, item in options.items()}
    assert (owners["lr"], owners["speed"], owners["shelf_root"]) == ("reweight", "stir", "shelf")
    assert "declared_by_nobody" not in options


def test_defaults_that_fit_the_data_rank_above_the_datasets_others():
    fitted = configure(data="fitting", shelf_root="abc")
    assert (fitted.epochs, fitted.steps, fitted.lr) == (3, None, 0.25)
    given = configure(data="fitting", shelf_root="abc", lr=0.1, steps=7)
    assert (given.epochs, given.steps, given.lr) == (3, 7, 0.1)
    preset = configure(data="fitting", shelf_root="abc", method="stir", preset="rounds")
    assert preset.epochs == 30


def test_a_plugin_that_cannot_fit_its_defaults_is_named(monkeypatch):
    def fail(config):
        raise KeyError("no shelf")

    record = attrs.evolve(RECORDS["data"]["fitting"], fitted_defaults=fail)
    monkeypatch.setitem(RECORDS["data"], "fitting", record)
    with pytest.raises(UserError, match="data 'fitting': fitted_defaults: KeyError: 'no shelf'"):
        configure(data="fitting")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "no option is called 'epoch' here (did you mean 'epochs'?)"),
        ({"speed": 3.0}, "no option is called 'speed' here"),
        ({"method": "stirr"}, "no method is called 'stirr'"),
        ({"method": 3}, "--method 3: must be str"),
        ({"data": ["digits"]}, "--data ['digits']: must be str"),
        ({"data": None}, "--data None: must be str"),
        ({"epochs": None}, "--epochs None: must be int"),
        ({"epochs": 0}, "--epochs must be > 0: 0"),
        ({"imb": 0}, "--imb must be > 0: 0.0"),
        ({"imb": 2}, "--imb must be <= 1: 2.0"),
        ({"seed": 2**32}, "--seed must be < 4294967296: 4294967296"),
        ({"noise": "blur"}, "--noise blur: must be KIND:ARGUMENT"),
        ({"noise": "fog:1"}, "no noise is called 'fog'"),
        ({"noise": "blur:more"}, "--noise blur:more: must be half"),
        ({"method": "stir", "whisk": "wirre"}, "must be one of wire, wooden (did you mean 'wire'?)"),
        ({"method": "stir", "speed": -1}, "--speed must be > 0: -1.0"),
        ({"method": "greedy"}, "method 'greedy' declares --lr, which 'reweight' has already"),
        ({"method": "twin", "data": "twin"}, "'twin' is chosen twice in this run"),
    ],
)
def test_a_value_that_cannot_work_is_refused(values, message):
    with pytest.raises(UserError) as caught:
        configure(RunConfig, **values)
    assert message in str(caught.value)


def test_a_configuration_of_the_data_alone_has_no_training_options():
    assert configure(DataConfig, data="shelf", noise="blur:half").noise == "blur:half"
    with pytest.raises(UserError, match="no option is called 'lr' here"):
        configure(DataConfig, lr=0.1)


def test_a_file_may_write_names_with_hyphens_or_underscores(tmp_path):
    path = write(tmp_path, 'batch-size = 7\nmeta_size = 3\ndata = "shelf"\n[shelf]\nshelf-root = "x"\n')
    values = {"batch_size": 7, "meta_size": 3, "data": "shelf", "shelf_root": "x"}
    assert read_file(path, RunConfig, {}) == values


def test_sections_of_installed_plugins_that_the_run_does_not_use_are_skipped(tmp_path):
    path = write(tmp_path, "[stir]\nspeed = 4\n[shelf]\nshelf_root = 'x'\n[sweet-spice]\namount = 1\n")
    assert read_file(path, RunConfig, {}) == {}


def test_a_key_that_the_plugin_of_an_unused_section_does_not_have_is_refused_too(tmp_path):
    path = write(tmp_path, "[stir]\nsped = 4\n")
    with pytest.raises(UserError, match=r"'stir' has no option 'sped' \(did you mean 'speed'\?\)"):
        read_file(path, RunConfig, {})


def test_an_option_of_a_plugin_at_the_top_of_a_file_is_sent_to_its_section(tmp_path):
    path = write(tmp_path, 'method = "stir"\nspeed = 4\n')
    with pytest.raises(UserError, match=r"'speed' is an option of 'stir': write it below \[stir\]"):
        read_file(path, RunConfig, {})


def test_the_command_line_chooses_the_plugins_whose_sections_count(tmp_path):
    path = write(tmp_path, 'method = "erm"\n[stir]\nspeed = 4\n')
    assert read_file(path, RunConfig, {"method": "stir"}) == {"method": "erm", "speed": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epocs = 3", "no option is called 'epocs' (did you mean 'epochs'?)"),
        ("speed = 3.0", "no option is called 'speed'"),
        ("[stirr]\nspeed = 3.0", "no plugin is called 'stirr' (did you mean 'stir'?)"),
        ('method = "stir"\n[stir]\nspede = 3.0', "'stir' has no option 'spede' (did you mean 'speed'?)"),
        ('method = "stir"\n[stir]\nlr = 3.0', "'stir' has no option 'lr'"),
        ("[[stir]]\nspeed = 3.0", "no option is called 'stir'"),
        ("epochs = = 3", "at line 1, column 10"),
        ("epochs = 3\nepochs = 4", "Cannot overwrite a value"),
    ],
)
def test_a_file_with_a_mistake_is_refused_by_its_name(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_file(path, RunConfig, {})
    assert str(caught.value).startswith(f"--config {path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["method = 3", "data = ['digits']", "data = true"])
def test_a_plugins_name_in_a_file_must_be_text(tmp_path, text):
    with pytest.raises(UserError, match="must be str"):
        read_file(write(tmp_path, text), RunConfig, {})


def test_a_file_that_cannot_be_read_is_refused_by_its_name(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing.toml", tmp_path, tmp_path / "binary.toml"):
        with pytest.raises(UserError) as caught:
            read_file(path, RunConfig, {})
        assert str(caught.value).startswith(f"--config {path}: ")


def test_only_options_that_say_where_or_how_a_run_is_made_change_no_result():
    without = {name for name, item in known_options(RunConfig, {}).items() if not item.changes_result}
    assert without == {"device", "graph", "workers", "observe", "checkpoint_every", "keep", "out", "stop_when"}
    assert not known_options(RunConfig, {"observe": "thermometer"})["thermometer_scale"].changes_result


def test_an_observer_and_its_options_are_chosen_like_a_component():
    config = configure(observe=["thermometer"], thermometer_scale="kelvin")
    assert (config.observe, config.observer_options) == (("thermometer",), (ThermometerOptions(scale="kelvin"),))
    assert configure(**as_values(config)) == config
    assert configure(observe="none").observe == ()


FINITE = st.floats(min_value=1e-6, max_value=1e6)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(
    values=st.fixed_dictionaries(
        {"method": st.sampled_from(["erm", "stir"]), "data": st.sampled_from(["digits", "shelf"])},
        optional={
            "lr": FINITE,
            "imb": st.none() | st.floats(min_value=1e-6, max_value=1),
            "meta_size": st.none() | st.integers(0, 10**6),
            "seed": st.integers(0, 2**32 - 2),
            "augment": st.sampled_from([None, "none", "crop", "flip", "crop-flip"]),
            "noise": st.sampled_from([None, "blur:half"]),
            "out": st.none() | NAMES.map(lambda name: Path("/") / name),
            "model": NAMES,
        },
    ),
    stir=st.fixed_dictionaries(
        {},
        optional={
            "speed": FINITE,
            "whisk": st.sampled_from(["wire", "wooden"]),
            "salt_options": st.booleans(),
        },
    ),
    shelf=st.fixed_dictionaries({}, optional={"shelf_root": st.none() | NAMES.map(lambda name: Path("/") / name)}),
)
def test_saved_values_give_an_equal_configuration(values, stir, shelf):
    own = (stir if values["method"] == "stir" else {}) | (shelf if values["data"] == "shelf" else {})
    config = configure(**values, **own)
    saved = json.loads(json.dumps(as_values(config)))
    assert configure(**saved) == config
    assert set(saved) == set(known_options(RunConfig, values))


@pytest.mark.parametrize(
    ("text", "parts"),
    [("blur:half", ("blur", "half")), ("table:C:/T.txt", ("table", "C:/T.txt")), ("blur:", ("blur", "")), (None, None)],
)
def test_a_noise_is_parted_at_its_first_colon(text, parts):
    assert noise_parts(DataConfig(noise=text)) == parts


def test_the_file_of_a_noise_is_saved_as_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert as_values(configure(noise="table:some/T.txt"))["noise"] == f"table:{tmp_path}/some/T.txt"
    assert as_values(configure(noise="table:/some/T.txt"))["noise"] == "table:/some/T.txt"
    assert as_values(configure(noise="blur:half"))["noise"] == "blur:half"
    assert as_values(configure())["noise"] is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"val_fold": "0/4"}, "--val-fold 0/4: must be K/N, the K-th of N parts, e.g. 1/5"),
        ({"val_fold": "5/4"}, "--val-fold 5/4: must be K/N"),
        ({"val_fold": "two"}, "--val-fold two: must be K/N"),
        ({"val_fold": "1/4", "val_size": 3}, "--val-fold and --val-size both make the validation set"),
    ],
)
def test_a_fold_that_cannot_be_is_refused(given, message):
    with pytest.raises(UserError, match=f"^{message}"):
        configure(**given)
