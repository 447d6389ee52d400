import sys
import warnings

import attrs
import pytest

from reweight_core.errors import UserError
from reweight_core.plugins import registry
from reweight_core.plugins.records import MethodPlugin

GOOD = """
from reweight_core import MethodPlugin

plugin = MethodPlugin(name="{name}", summary="does nothing", build=lambda config, context: object())
"""


class Site:
    """A folder on sys.path with fake distributions; modules imported from it are forgotten afterwards."""

    def __init__(self, path):
        self._path = path
        self.modules = []

    def add(self, distribution, name, code, version="1.0", entry_name=None, group="reweight.methods"):
        """Install a distribution of one module with one entry point."""
        module = distribution.replace("-", "_")
        self.modules.append(module)
        (self._path / f"{module}.py").write_text(code.format(name=name))
        info = self._path / f"{module}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata)
        (info / "entry_points.txt").write_text(f"[{group}]\n{entry_name or name} = {module}:plugin\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.delenv(registry.ALLOW_LIST, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    site = Site(tmp_path)
    yield site
    for module in site.modules:
        sys.modules.pop(module, None)


def status_of(name):
    return [row for row in registry.status() if row.name == name]


def test_an_installed_plugin_is_found_and_described(site):
    site.add("fake-good", "good", GOOD)
    record = registry.find("method", "good")
    assert isinstance(record, MethodPlugin)
    assert record.summary == "does nothing"
    assert "good" in registry.names("method")
    assert registry.version_of("method", "good") == "fake-good 1.0"
    (row,) = status_of("good")
    assert attrs.astuple(row) == ("method", "good", "fake-good", "1.0", "ok", "")


def test_names_and_versions_come_from_metadata_alone(site):
    site.add("fake-unloaded", "unloaded", "raise AssertionError('imported')")
    assert "unloaded" in registry.names("method")
    assert registry.version_of("method", "unloaded") == "fake-unloaded 1.0"
    assert "fake_unloaded" not in sys.modules


BROKEN = {
    "import error": ("import not_there", "bad", "ModuleNotFoundError: No module named 'not_there'"),
    "no such attribute": ("", "bad", "AttributeError"),
    "wrong type": (
        "plugin = 3",
        "bad",
        "TypeError: entry point fake_bad:plugin is of type int, not MethodPlugin",
    ),
    "other name": (GOOD, "other", "ValueError: entry point 'bad' holds a record named 'other'"),
    "ends the program": ("raise SystemExit(0)", "bad", "ImportError: importing fake_bad ends the program"),
}


@pytest.mark.parametrize(("code", "name", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_an_error_with_its_cause_when_it_is_asked_for(site, code, name, reason):
    site.add("fake-bad", name, code, entry_name="bad")
    with pytest.raises(UserError, match=r"method 'bad' of fake-bad 1\.0 cannot be loaded: ") as caught:
        registry.find("method", "bad")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert type(caught.value.__cause__).__name__ == reason.partition(":")[0]


@pytest.mark.parametrize(("code", "name", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_one_warning_while_the_others_load(site, code, name, reason):
    site.add("fake-bad", name, code, entry_name="bad")
    site.add("fake-good", "good", GOOD)
    with pytest.warns(UserWarning, match=r"fake-bad 1\.0 cannot be loaded") as caught:
        loaded = registry.load_all("method")
    assert len(caught) == 1
    assert {"good", "erm"} <= set(loaded)
    assert "bad" not in loaded
    (row,) = status_of("bad")
    assert row.status == "broken"
    assert reason in row.error


@pytest.mark.parametrize(("kind", "record"), [("component", "ComponentPlugin"), ("observer", "ObserverPlugin")])
def test_a_plugin_that_could_never_be_chosen_is_reported(site, kind, record):
    site.add("fake-nothing", "none", GOOD.replace("MethodPlugin", record), group=registry.GROUPS[kind][0])
    (row,) = [row for row in status_of("none") if row.kind == kind]
    assert row.status == "broken"
    assert f"none means no {kind}: rename it" in row.error


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        ("lambda config, context: None", r"build returned None \(a forgotten return\?\)"),
        ("lambda config, context: dict", "build returned the class dict, not an object of it"),
        ("lambda config: object()", "build: TypeError: .* takes 1 positional argument but 2 were given"),
        ("lambda config, context: 1 // 0", r"build: ZeroDivisionError: .* \(fake_odd\.py, line 4\)"),
        ("imported('json:nothing')", "build: AttributeError: module 'json' has no attribute 'nothing'"),
        ("imported('fake_odd')", r"cannot be loaded: .*imported\('fake_odd'\): must be package.module:name"),
    ],
)
def test_a_plugin_that_builds_nothing_usable_is_named(site, build, problem):
    code = GOOD.replace("import MethodPlugin", "import MethodPlugin, imported")
    site.add("fake-odd", "odd", code.replace("lambda config, context: object()", build))
    with pytest.raises(UserError, match=rf"^method 'odd'.*{problem}"):
        registry.build("method", "odd", None, None)


def test_a_plugin_of_the_wrong_group_is_refused(site):
    site.add("fake-misplaced", "misplaced", GOOD, group="reweight.data")
    with pytest.raises(UserError, match="is of type MethodPlugin, not DataPlugin"):
        registry.find("data", "misplaced")


def test_a_name_of_two_distributions_is_an_error_only_when_it_is_used(site):
    site.add("fake-first", "twice", GOOD, version="1.2")
    site.add("fake-second", "twice", GOOD, version="3.4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert registry.find("method", "erm").name == "erm"
    for use in (registry.find, registry.version_of):
        with pytest.raises(UserError) as caught:
            use("method", "twice")
        assert "fake-first 1.2" in str(caught.value)
        assert "fake-second 3.4" in str(caught.value)
    assert not {"fake_first", "fake_second"} & set(sys.modules)


def test_status_shows_both_claimants_of_a_name_as_duplicates(site):
    site.add("fake-first", "twice", GOOD, version="1.2")
    site.add("fake-second", "twice", GOOD, version="3.4")
    rows = sorted(status_of("twice"), key=lambda row: row.distribution)
    assert [row.distribution for row in rows] == ["fake-first", "fake-second"]
    assert [row.version for row in rows] == ["1.2", "3.4"]
    for row in rows:
        assert row.status == "duplicate"
        assert "fake-first 1.2" in row.error
        assert "fake-second 3.4" in row.error


def test_the_same_name_in_two_kinds_is_no_clash(site):
    site.add("fake-method", "same", GOOD)
    site.add("fake-noise", "same", GOOD.replace("Method", "Noise"), group="reweight.noise")
    assert {row.status for row in status_of("same")} == {"ok"}


@pytest.mark.parametrize("allowed", ["good", "fake-good", "elsewhere, good"])
def test_the_allow_list_names_plugins_or_distributions(site, monkeypatch, allowed):
    site.add("fake-good", "good", GOOD)
    site.add("fake-bad", "bad", "import not_there")
    monkeypatch.setenv(registry.ALLOW_LIST, allowed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = registry.load_all("method")
    assert set(loaded) == {"good", "erm"}
    assert "fake_bad" not in sys.modules
    assert [row.status for row in status_of("bad")] == ["off"]
    assert [row.status for row in status_of("good")] == ["ok"]


def test_an_empty_allow_list_leaves_cores_own_plugins(site, monkeypatch):
    site.add("fake-good", "good", GOOD)
    monkeypatch.setenv(registry.ALLOW_LIST, "")
    assert registry.names("method") == ["erm"]
    assert registry.names("data") == ["memory"]
    assert "resnet32" in registry.names("model")


def test_a_plugin_that_is_switched_off_is_not_called_unknown(site, monkeypatch):
    site.add("fake-good", "good", GOOD)
    monkeypatch.setenv(registry.ALLOW_LIST, "bad")
    with pytest.raises(UserError, match=f"method 'good' is installed, but {registry.ALLOW_LIST} does not"):
        registry.find("method", "good")


def test_the_allow_list_settles_a_duplicate(site, monkeypatch):
    site.add("fake-first", "twice", GOOD)
    site.add("fake-second", "twice", GOOD)
    monkeypatch.setenv(registry.ALLOW_LIST, "fake-second")
    assert registry.version_of("method", "twice") == "fake-second 1.0"
    statuses = {row.distribution: row.status for row in status_of("twice")}
    assert statuses == {"fake-first": "off", "fake-second": "ok"}


def test_an_unknown_name_gets_the_nearest_and_all_known_names(site):
    site.add("fake-good", "goodness", GOOD)
    with pytest.raises(UserError) as caught:
        registry.find("method", "godness")
    assert "no method is called 'godness' (did you mean 'goodness'?)" in str(caught.value)
    assert all(name in str(caught.value) for name in registry.names("method"))


def test_status_covers_every_installed_plugin_of_every_kind(site):
    rows = registry.status()
    assert {(row.kind, row.name) for row in rows} == {
        (kind, name) for kind in registry.GROUPS for name in registry.names(kind)
    }
    assert {row.distribution for row in rows if row.name == "erm"} == {"reweight-core"}
