"""The packages of this tree as if they were installed, for child processes: import paths, entry points, versions."""

from __future__ import annotations

import hashlib
import os
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def projects() -> dict[str, dict[str, Any]]:
    """Return what each package's pyproject.toml says of it, by the package's folder."""
    return {
        str(file.parent): tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        for file in sorted(ROOT.glob("packages/*/pyproject.toml"))
    }


def names(kind: str) -> list[str]:
    """List the entry points of the group ``reweight.KIND``, from all packages."""
    return sorted(
        name for project in projects().values() for name in project.get("entry-points", {}).get(f"reweight.{kind}", {})
    )


def surroundings(folder: Path) -> dict[str, str]:
    """Write the metadata that an installation would have below `folder`; return an environment that finds all of it.

    It comes before whatever is installed, so that the tree at hand is what is tried.
    """
    paths = [str(folder)]
    for place, project in projects().items():
        name, version = project["name"], project["version"]
        metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir(parents=True, exist_ok=True)
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (metadata / "METADATA").write_text(about, encoding="utf-8")
        groups = [
            "\n".join([f"[{group}]", *(f"{entry} = {value}" for entry, value in entries.items())])
            for group, entries in project.get("entry-points", {}).items()
        ]
        (metadata / "entry_points.txt").write_text("\n\n".join(groups) + "\n", encoding="utf-8")
        paths.append(str(Path(place) / "src"))
    paths.append(str(ROOT / "benchmarks"))
    before = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join([*paths, before] if before else paths)}


def digest() -> str:
    """Return what tells this state of the code from another."""
    found = hashlib.sha256()
    files = [*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("packages/*/pyproject.toml")]
    files += [ROOT / "benchmarks" / "gpu.py", *ROOT.glob("benchmarks/gpu_parts/*.py")]
    for file in sorted(files):
        found.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return found.hexdigest()[:16]
