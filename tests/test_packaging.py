"""What every package of the repository has in common, read from the files that it is built from."""

import ast
import importlib
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from reweight_core.plugins.registry import GROUPS

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
PROJECTS = {
    folder.name: tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"] for folder in FOLDERS
}
ENTRY_POINTS = [
    metadata.EntryPoint(name, value, group)
    for project in PROJECTS.values()
    for group, entries in project.get("entry-points", {}).items()
    for name, value in entries.items()
]
RECORD_CLASSES = dict(GROUPS.values())
FLOOR = {
    r.name: r
    for r in map(Requirement, re.findall(r"^\w.*", (ROOT / "requirements-floor.txt").read_text(), re.MULTILINE))
}
TEXTS = [
    path for pattern in ("*.md", "docs/**/*.md", "packages/*/*.md", "benchmarks/**/*.md") for path in ROOT.glob(pattern)
]

packages = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def import_name(folder):
    return "reweight_" + folder.name.replace("-", "_")


def test_the_packages_are_found():
    assert {"core", "data-noisy", "method-gdw", "method-l2rw", "method-mwnet"} <= set(PROJECTS)
    assert {folder.name for folder in (ROOT / "packages").iterdir() if folder.is_dir()} == set(PROJECTS)


@packages
def test_a_package_is_named_after_its_folder(folder):
    assert PROJECTS[folder.name]["name"] == f"reweight-{folder.name}"
    sources = {p.name for p in (folder / "src").iterdir() if p.is_dir() and not p.name.endswith(".egg-info")}
    assert sources == {import_name(folder)}
    assert "reweight" not in sources


@packages
def test_a_package_is_typed_tested_and_described(folder):
    assert (folder / "src" / import_name(folder) / "py.typed").is_file()
    assert list((folder / "tests").glob("test_*.py"))
    assert (folder / "README.md").read_text(encoding="utf-8").startswith(f"# reweight-{folder.name}")
    assert PROJECTS[folder.name]["readme"] == "README.md"
    assert PROJECTS[folder.name]["description"]
    assert PROJECTS[folder.name]["license"]
    assert PROJECTS[folder.name]["requires-python"] == ">=3.11"


@packages
def test_a_plugin_package_needs_a_range_of_core_and_no_other_package_of_ours(folder):
    requirements = {r.name: r for r in map(Requirement, PROJECTS[folder.name]["dependencies"])}
    ours = {name: r.specifier for name, r in requirements.items() if name.startswith("reweight")}
    if folder.name == "core":
        assert not ours
        return
    assert set(ours) == {"reweight-core"}
    assert {part.operator for part in ours["reweight-core"]} == {">=", "<"}
    assert Version(PROJECTS["core"]["version"]) in ours["reweight-core"]


@packages
def test_the_oldest_version_of_a_requirement_is_the_one_that_is_tested(folder):
    project = PROJECTS[folder.name]
    for text in (*project["dependencies"], *project.get("optional-dependencies", {}).get("testing", [])):
        requirement = Requirement(text)
        if not requirement.name.startswith("reweight"):
            (lowest,), (tested,) = requirement.specifier, FLOOR[requirement.name].specifier
            assert (lowest.operator, tested.operator) == (">=", "==")
            assert Version(lowest.version) == Version(tested.version)


@packages
def test_a_package_says_which_versions_of_python_it_is_for(folder):
    named = [entry.rpartition(" ")[2] for entry in PROJECTS[folder.name]["classifiers"]]
    assert named == ["3.11", "3.12", "3.13", "3.14"]


def test_there_are_entry_points_and_their_groups_are_known():
    assert len(ENTRY_POINTS) >= 20
    assert {entry.group for entry in ENTRY_POINTS} <= set(RECORD_CLASSES)


def test_no_two_packages_claim_one_name():
    claimed = [(entry.group, entry.name) for entry in ENTRY_POINTS]
    assert len(claimed) == len(set(claimed))


@pytest.mark.parametrize("entry", ENTRY_POINTS, ids=lambda entry: f"{entry.group}-{entry.name}")
def test_an_entry_point_is_the_record_of_its_name_with_a_summary_of_one_line(entry):
    record = entry.load()
    assert type(record) is RECORD_CLASSES[entry.group]
    assert record.name == entry.name
    assert record.summary.strip() == record.summary != ""
    assert len(record.summary.splitlines()) == 1


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_tells_to_install_the_unrelated_package_of_our_name(path):
    commands = re.findall(r"(?:pip|pipx|uv|conda) (?:tool )?(?:install|add)[^\n`]*", path.read_text(encoding="utf-8"))
    for command in commands:
        assert not re.search(r"(?<![\w./-])reweight(?![\w/-])", command), command


def test_there_are_texts():
    assert len(TEXTS) >= len(FOLDERS)


@packages
def test_every_import_is_a_requirement(folder):
    """A package that uses a library only because another brings it breaks when the other stops."""
    distributions = {"PIL": "pillow", "sklearn": "scikit-learn"}
    imported = set()
    for path in (folder / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            imported |= {name.partition(".")[0] for name in names}
    third_party = imported - set(sys.stdlib_module_names) - {import_name(folder)}
    needed = {distributions.get(name, name.replace("_", "-")) for name in third_party}
    project = PROJECTS[folder.name]
    extras = project.get("optional-dependencies", {}).values()
    listed = [*project["dependencies"], *(text for extra in extras for text in extra)]
    assert needed <= {Requirement(text).name for text in listed}


CORE_SOURCE = ROOT / "packages" / "core" / "src" / "reweight_core"


def test_the_map_in_cores_readme_names_every_file_and_its_job():
    found = {}
    room = None
    for line in (CORE_SOURCE.parents[1] / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("### "):
            title = line.removeprefix("### ")
            room = title if title.endswith("/") else ""
        row = re.fullmatch(r"\| `(\w+\.py)` \| (.*) \|", line)
        if row:
            found[f"{room}{row[1]}"] = row[2]
    jobs = {}
    for path in CORE_SOURCE.rglob("*.py"):
        name = str(path.relative_to(CORE_SOURCE))
        if path.name != "__init__.py" or name in ("__init__.py", "models/__init__.py"):
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            jobs[name] = text.partition("\n\n")[0].replace("\n", " ").rstrip(".")
    assert found == jobs


@packages
def test_a_package_imports_from_core_what_its_top_exports(folder):
    if folder.name == "core":
        return
    for path in (folder / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("reweight_core"):
                assert node.module == "reweight_core", f"{path.name} imports from {node.module}"
                exported = set(importlib.import_module("reweight_core").__all__)
                assert {alias.name for alias in node.names} <= exported, path.name


def test_what_cores_top_exports_is_there():
    core = importlib.import_module("reweight_core")
    assert all(getattr(core, name) is not None for name in core.__all__)
    assert core.__all__ == sorted(set(core.__all__), key=core.__all__.index)


@packages
def test_records_and_options_lie_where_one_looks_for_them(folder):
    source = folder / "src" / import_name(folder)
    if folder.name == "core":
        return
    assert (source / "plugin.py").is_file()
    modules = {entry.module for entry in ENTRY_POINTS if entry.module.startswith(f"{source.name}.")}
    assert modules <= {f"{source.name}.plugin", f"{source.name}.published"}
    declaring = [path.name for path in source.rglob("*.py") if " = option(" in path.read_text(encoding="utf-8")]
    assert set(declaring) <= {"options.py"}
    # a file is read in one sitting
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 350 for path in source.rglob("*.py"))
