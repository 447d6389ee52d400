import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import attrs
import pytest

import reweight_data_noisy as package
from reweight_core import DataPlugin, NoisePlugin, RunConfig, configure

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
ENTRY_POINTS = PROJECT["entry-points"]


@pytest.mark.parametrize(("group", "record_class"), [("reweight.data", DataPlugin), ("reweight.noise", NoisePlugin)])
def test_every_entry_point_leads_to_a_record_of_its_name(group, record_class):
    for name, target in ENTRY_POINTS[group].items():
        module, attribute = target.split(":")
        record = getattr(importlib.import_module(module), attribute)
        assert isinstance(record, record_class)
        assert record.name == name


def test_importing_the_records_imports_nothing_heavy():
    code = (
        "import sys, reweight_data_noisy; print(sorted({'torch', 'torchvision', 'sklearn', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_module_replaces_a_record_when_it_is_imported():
    modules = {path.stem for path in Path(package.__file__).parent.glob("*.py")}
    records = {name for name, value in vars(package).items() if isinstance(value, DataPlugin | NoisePlugin)}
    assert len(records) == sum(map(len, ENTRY_POINTS.values()))
    assert not modules & records


@pytest.mark.parametrize(
    ("name", "imb"),
    [("digits", 0.1), ("cifar10", 0.01), ("cifar100", 0.01), ("cifar10n", 0.01), ("cifar100n", 0.01), ("folder", 0.01)],
)
def test_long_tailed_alias_differs_in_name_and_default_imb_only(name, imb):
    plain, long_tailed = getattr(package, name), getattr(package, f"{name}_lt")
    assert dict(long_tailed.defaults) == {**plain.defaults, "imb": imb}
    assert (long_tailed.build, long_tailed.config) == (plain.build, plain.config)


def test_better_defaults_name_options_of_core_or_of_the_weighting_methods():
    known = set(attrs.fields_dict(RunConfig)) | {"weight_lr", "eta_w", "dictionary_size", "probe_size"}
    for name in ENTRY_POINTS["reweight.data"]:
        assert set(getattr(package, name.replace("-", "_")).defaults) <= known


def test_configure_applies_the_better_defaults_and_a_given_value_wins():
    assert configure(data="digits-lt").imb == 0.1
    assert configure(data="digits-lt", imb=0.5).imb == 0.5
    assert configure(data="cifar100").meta_size == 1000
    assert configure(data="cifar10", data_root="elsewhere").data_options.data_root == Path("elsewhere")
