"""What is tried on what: device, versions and plugins, as JSON."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata

import torch

from gpu_parts import tree
from reweight_core import cpu_name, registry, usable_cpus


def driver() -> str | None:
    """Return the version of the NVIDIA driver, or None."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.split() or [None])[0]


def requirements() -> dict[str, str | None]:
    """Return the versions of what the packages of the tree require; None for what is not installed."""
    texts = {text for project in tree.projects().values() for text in project["dependencies"]}
    names = sorted({re.split(r"[^\w.-]", text)[0] for text in texts})
    installed = {found.name.lower().replace("_", "-"): found.version for found in metadata.distributions()}
    return {name: installed.get(name) for name in names}


def main(device: str) -> None:
    """Print it; fails if the device does not compute, or if something is missing."""
    versions = requirements()
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}")
    there = torch.device(device)
    product = (torch.eye(64, device=there) @ torch.ones(64, 64, device=there)).sum().item()
    assert product == 64 * 64, product
    found = {
        "device": device,
        "processor": f"{cpu_name()}, {usable_cpus()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "driver": driver(),
        "versions": versions,
        "plugins": sum(status.status == "ok" for status in registry.status()),
        "broken": [f"{one.kind} '{one.name}': {one.error}" for one in registry.status() if one.status != "ok"],
    }
    if there.type == "cuda":
        about = torch.cuda.get_device_properties(there)
        found |= {"gpu": about.name, "gigabytes": about.total_memory / 1e9, "cudnn": torch.backends.cudnn.version()}
        found["capability"] = f"{about.major}.{about.minor}"
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
