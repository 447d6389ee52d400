from pathlib import Path
from typing import Literal, Optional

import attrs
import pytest
from attrs.validators import and_, ge, gt, le
from hypothesis import given
from hypothesis import strategies as st

from reweight_core.config.options import Option, Owner, convert, fill, option, options_of, table
from reweight_core.errors import UserError


@attrs.frozen
class Oven:
    heat: float = option(180.0, "Degrees.", check=and_(gt(0), le(300)))
    trays: int = option(1, "How many trays.", check=ge(1))
    fan: bool = option(False, "Blow air.")
    dish: str = option("cake", "What it is.")
    mode: Literal["top", "bottom"] = option("top", "Which side.")
    side_mode: Literal["top", "bottom"] | None = option(None, "Another side.")
    timer: int | None = option(None, "Minutes.", check=gt(0))
    recipe: Optional[Path] = option(None, "A file.")  # noqa: UP045  both ways of writing it must work
    not_an_option: int = 7


OVEN = Owner("oven", Oven)
OPTIONS = {item.name: item for item in options_of(OVEN)}


def test_every_declared_option_is_listed_in_order_and_no_other_field():
    assert list(OPTIONS) == ["heat", "trays", "fan", "dish", "mode", "side_mode", "timer", "recipe"]


def test_a_declaration_becomes_an_option_with_flag_type_and_help():
    assert OPTIONS["heat"] == Option("heat", "heat", "oven", float, (), False, False, 180.0, "Degrees.")
    choices = ("top", "bottom")
    assert OPTIONS["side_mode"] == Option(
        "side_mode", "side_mode", "oven", str, choices, True, False, None, "Another side."
    )
    assert OPTIONS["side_mode"].flag == "--side-mode"
    types = {name: (item.type, item.optional) for name, item in OPTIONS.items()}
    assert types["fan"] == (bool, False)
    assert types["timer"] == (int, True)
    assert types["recipe"] == (Path, True)


def test_what_stands_for_the_value_in_help_is_declared_with_the_option():
    @attrs.frozen
    class Stove:
        fuel: str = option("gas", "What burns.", metavar="FUEL:AMOUNT")

    (item,) = options_of(Owner("stove", Stove))
    assert item.metavar == "FUEL:AMOUNT"
    assert OPTIONS["dish"].metavar is None


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (list[int], []),
        (dict[str, int], {}),
        (tuple[int, ...], ()),
        (int | str, 1),
        (Literal[1, 2], 1),
        (bytes, b""),
        (None, None),
    ],
)
def test_a_type_that_no_flag_can_have_is_laid_to_the_plugins_field(annotation, default):
    body = {"__annotations__": {"sizes": annotation}, "sizes": option(default, "Sizes.")}
    with pytest.raises(UserError) as caught:
        options_of(Owner("wrong", attrs.frozen(type("Wrong", (), body)), kind="method"))
    assert str(caught.value).startswith("method 'wrong' declares the field 'sizes', which must be str, int, ")
    assert str(caught.value).endswith(": report it to the plugin's author")


@pytest.mark.parametrize("config_class", [int, 3, None])
def test_a_configuration_that_is_no_attrs_class_is_laid_to_the_plugin(config_class):
    with pytest.raises(UserError, match=r"^plugin 'wrong' has options that cannot be read \(.*: report it"):
        options_of(Owner("wrong", config_class))


def test_a_type_that_does_not_exist_is_laid_to_the_plugin():
    @attrs.frozen
    class Wrong:
        size: "Sise" = option(1, "Size.")  # noqa: F821  the mistake under test

    with pytest.raises(UserError, match="NameError: name 'Sise' is not defined"):
        options_of(Owner("wrong", Wrong))


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (option(-1.0, "", check=gt(0)), "--keep must be > 0: -1.0"),
        (option(float("nan"), ""), "--keep nan: must be a finite number"),
        (option(None, "", check=gt(0)), "--keep None: must be float"),
        (option("much", ""), "--keep 'much': must be float"),
        (option(1.0, "", check=lambda value: None), "takes 1 positional argument but 3 were given"),
    ],
)
def test_a_default_that_cannot_be_used_is_laid_to_the_plugin(declared, problem):
    @attrs.frozen
    class Wrong:
        keep: float = declared

    with pytest.raises(UserError) as caught:
        options_of(Owner("wrong", Wrong, kind="method"))
    assert str(caught.value).startswith("method 'wrong' declares a default that cannot be used (")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("heat", 20, 20.0),
        ("heat", "2e1", 20.0),
        ("trays", "3", 3),
        ("trays", 3.0, 3),
        ("fan", True, True),
        ("mode", "bottom", "bottom"),
        ("recipe", "cake.txt", Path("cake.txt")),
        ("recipe", None, None),
        ("timer", None, None),
    ],
)
def test_a_value_is_brought_to_the_type_of_its_option(name, value, expected):
    converted = convert(OPTIONS[name], value)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("heat", float("nan"), "must be a finite number"),
        ("heat", "inf", "must be a finite number"),
        ("heat", "-inf", "must be a finite number"),
        ("heat", True, "must be float"),
        ("heat", "warm", "must be float"),
        ("heat", [1], "must be float"),
        ("heat", 10**400, "must be float"),
        ("heat", None, "must be float"),
        ("heat", 1e39, "must be a number of single precision, at most 3.4e+38"),
        ("trays", 2**63, "must have less than 64 bits"),
        ("trays", -(2**63) - 1, "must have less than 64 bits"),
        ("trays", 1.5, "must be a whole number"),
        ("trays", float("inf"), "must be a whole number"),
        ("trays", float("nan"), "must be a whole number"),
        ("trays", "1.5", "must be int"),
        ("trays", True, "must be int"),
        ("trays", None, "must be int"),
        ("timer", False, "must be int"),
        ("fan", 1, "must be true or false"),
        ("fan", "true", "must be true or false"),
        ("fan", None, "must be true or false"),
        ("dish", 3, "must be str"),
        ("dish", ["cake"], "must be str"),
        ("mode", "left", "must be one of top, bottom"),
        ("mode", "botom", "must be one of top, bottom (did you mean 'bottom'?)"),
        ("mode", None, "must be one of top, bottom"),
        ("recipe", 3, "must be Path"),
    ],
)
def test_a_value_of_another_type_is_refused_by_flag(name, value, problem):
    with pytest.raises(UserError) as caught:
        convert(OPTIONS[name], value)
    assert str(caught.value).startswith(f"{OPTIONS[name].flag} ")
    assert str(caught.value).endswith(problem)


@given(
    name=st.sampled_from(sorted(OPTIONS)),
    value=st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.lists(st.integers(), max_size=2),
        st.dictionaries(st.text(), st.integers(), max_size=2),
    ),
)
def test_any_value_is_converted_to_the_type_or_refused(name, value):
    item = OPTIONS[name]
    try:
        converted = convert(item, value)
    except UserError:
        return
    assert (converted is None and item.optional) or isinstance(converted, item.type)
    assert not item.choices or converted in (*item.choices, None)


def test_fill_takes_the_declared_values_and_leaves_the_others():
    oven = fill(OVEN, {"heat": "200", "lr": 0.1}, not_an_option=9)
    assert oven == Oven(heat=200.0, not_an_option=9)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"heat": 0}, "--heat must be > 0: 0.0"), ({"timer": -3}, "--timer must be > 0: -3")],
)
def test_a_failed_check_names_the_flag(values, message):
    with pytest.raises(UserError) as caught:
        fill(OVEN, values)
    assert str(caught.value) == message


def test_no_check_is_made_of_an_optional_value_that_is_not_given():
    assert fill(OVEN, {"timer": None}).timer is None


def test_a_check_of_the_whole_configuration_may_raise_value_error():
    @attrs.frozen
    class Pair:
        low: int = option(0, "Low.")
        high: int = option(1, "High.")

        def __attrs_post_init__(self):
            if self.low > self.high:
                raise ValueError("'low' must not be above 'high'")

    with pytest.raises(UserError, match=r"^--low must not be above --high$"):
        fill(Owner("pair", Pair), {"low": 2})


def test_two_owners_of_one_option_are_an_error_that_names_both():
    @attrs.frozen
    class Grill:
        heat: float = option(250.0, "Degrees.")

    with pytest.raises(UserError, match="plugin 'grill' declares --heat, which 'oven' has already"):
        table([OVEN, Owner("grill", Grill)])


def test_the_options_of_several_owners_are_gathered_by_name():
    @attrs.frozen
    class Clock:
        alarm: bool = option(True, "Ring.")

    gathered = table([OVEN, Owner("clock", Clock)])
    assert list(gathered) == [*OPTIONS, "alarm"]
    assert gathered["alarm"].owner == "clock"


def test_the_options_of_a_component_carry_its_name_and_fill_its_fields():
    @attrs.frozen
    class Foil:
        width: int = option(30, "Centimetres.", check=gt(0))

    owner = Owner.with_prefix("tin-foil", Foil, "component")
    (item,) = options_of(owner)
    assert (item.name, item.field, item.flag) == ("tin_foil_width", "width", "--tin-foil-width")
    assert fill(owner, {"tin_foil_width": "40", "width": 7}) == Foil(width=40)
    with pytest.raises(UserError, match="--tin-foil-width must be > 0"):
        fill(owner, {"tin_foil_width": 0})


def test_a_field_named_like_a_keyword_ends_in_an_underscore_that_the_option_lacks():
    @attrs.frozen
    class Party:
        with_: tuple[str, ...] = option((), "Guests.")

    owner = Owner("party", Party)
    (item,) = options_of(owner)
    assert (item.name, item.flag, item.multiple) == ("with", "--with", True)
    assert fill(owner, {"with": ["ann", "bob"]}) == fill(owner, {"with": ("ann", "bob")}) == Party(with_=("ann", "bob"))
    assert fill(owner, {"with": "ann"}) == Party(with_=("ann",))
    for wrong in (3, ["ann", 4], None):
        with pytest.raises(UserError, match=r"--with .* must be a list of names"):
            fill(owner, {"with": wrong})
