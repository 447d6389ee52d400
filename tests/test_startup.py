"""What a user waits for at every call of the program: nothing that does not train may import torch."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "torchvision",
    "sklearn",
    "scipy",
    "pandas",
    "PIL",
    "matplotlib",
    "tensorboard",
    "transformers",
    "lightning",
)

RUN = f"""
import sys
from reweight_core.cli.main import main

status = 0
try:
    main(sys.argv[2:])
except SystemExit as finished:
    status = finished.code or 0
assert status == int(sys.argv[1]), status
print("heavy:", *[name for name in {HEAVY} if name in sys.modules])
"""

IMPORT = f"""
import sys
from importlib import import_module, metadata
from reweight_core.plugins.registry import GROUPS

modules = {{entry.module for group, _ in GROUPS.values() for entry in metadata.entry_points(group=group)}}
for module in modules:
    import_module(module)
assert len(modules) >= 5, modules
print("heavy:", *[name for name in {HEAVY} if name in sys.modules])
"""


def last_line(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].strip()


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "--version",
        "list",
        "list --json",
        "plugins",
        "train --method gdw --data cifar10 --help",
        "eval --help",
        "sweep --help",
        "sweep --methods gdw,fsr --data cifar10,digits --help",
        "reproduce --help",
        "reproduce --list",
        "reproduce gdw-uniform --dry-run",
        "compare --help",
        "train --observe csv --observe tensorboard --observe trackio --observe wandb --help",
    ],
)
def test_a_command_that_computes_nothing_imports_nothing_heavy(arguments):
    assert last_line(RUN, "0", *arguments.split()) == "heavy:"


@pytest.mark.parametrize(
    "arguments",
    [
        "train --method gwd",
        "train --epochs 0",
        "train --noise uniform",
        "eval missing",
        "resume missing",
        "predict missing image.png",
        "bench --image 3",
        "compare missing",
        "compare missing --plot curves.gif",
    ],
)
def test_what_is_plainly_wrong_is_refused_before_anything_heavy_is_imported(arguments):
    assert last_line(RUN, "2", *arguments.split()) == "heavy:"


def test_the_modules_of_entry_points_import_nothing_heavy():
    assert last_line(IMPORT) == "heavy:"


def test_the_program_can_be_run_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "reweight_core", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout.startswith("reweight, version ")
