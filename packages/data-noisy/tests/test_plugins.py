import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import attrs
import pytest

from reweight_core import DataPlugin, NoisePlugin, RunConfig, configure
from reweight_core.config.options import Owner, options_of
from reweight_data_noisy import plugin

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
ENTRY_POINTS = PROJECT["entry-points"]


def record(name):
    return getattr(plugin, name.replace("-", "_"))


@pytest.mark.parametrize(("group", "record_class"), [("reweight.data", DataPlugin), ("reweight.noise", NoisePlugin)])
def test_every_entry_point_leads_to_a_record_of_its_name(group, record_class):
    for name, target in ENTRY_POINTS[group].items():
        module, attribute = target.split(":")
        record = getattr(importlib.import_module(module), attribute)
        assert isinstance(record, record_class)
        assert record.name == name


def test_importing_the_records_imports_nothing_heavy():
    code = (
        "import sys, reweight_data_noisy.plugin; print({'torch', 'torchvision', 'sklearn', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("name", "imb"),
    [("digits", 0.1), ("cifar10", 0.01), ("cifar100", 0.01), ("cifar10n", 0.01), ("cifar100n", 0.01), ("folder", 0.01)],
)
def test_long_tailed_alias_differs_in_name_and_default_imb_only(name, imb):
    plain, long_tailed = getattr(plugin, name), getattr(plugin, f"{name}_lt")
    assert dict(long_tailed.defaults) == {**plain.defaults, "imb": imb}
    assert (long_tailed.build, long_tailed.config) == (plain.build, plain.config)


def test_better_defaults_are_of_options_of_core_alone():
    for name in ENTRY_POINTS["reweight.data"]:
        assert set(record(name).defaults) <= set(attrs.fields_dict(RunConfig))


def test_options_say_whether_they_change_a_result():
    changing = {
        name: {item.name for item in options_of(Owner(name, record(name).config)) if item.changes_result}
        for name in ENTRY_POINTS["reweight.data"]
        if not name.endswith("-lt")
    }
    # another folder is other data, and what is streamed is normalised in another way
    own, large = {"data_root", "image_size", "stream"}, {"image_size"}
    assert changing == {
        "digits": set(),
        "mnist": set(),
        "fashion-mnist": set(),
        "mnist-4v9": {"majority", "test", "subset_seed"},
        "cifar10": set(),
        "cifar100": set(),
        "cifar10n": {"labels"},
        "cifar100n": set(),
        "folder": own,
        "csv": own,
        "clothing1m": large,
        "webvision-50": large,
        "inaturalist-2018": large,
    }


def test_configure_applies_the_better_defaults_and_a_given_value_wins():
    assert configure(data="digits-lt").imb == 0.1
    assert configure(data="digits-lt", imb=0.5).imb == 0.5
    assert configure(data="cifar100").meta_size == 1000
    assert configure(data="cifar10", data_root="elsewhere").data_options.data_root == Path("elsewhere")
