"""Command lines: every command with options of its own and of plugins, and with values of every kind."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import attrs
import click
from hypothesis import strategies as st

from fuzz_parts.examine import Command, Draw, Kind
from fuzz_parts.kept_runs import RUNS, kept_run, write_table
from fuzz_parts.values import bad, values_of, write_places
from reweight_core import RunConfig, core_options, registry

TINY = ("--data", "csv", "--data-root", "table", "--model", "linear", "--epochs", "1")

BASES: dict[str, tuple[str, ...]] = {
    "train": (*TINY, "--out", "new", "--quiet"),
    "inspect": ("--data", "csv", "--data-root", "table"),
    "check-grad": (*TINY, "--method", "l2rw", "--meta-size", "4"),
    "fit": (*TINY[:4], "--epochs", "1", "--out", "new", "--quiet"),
    "sweep": ("--methods", "erm", *TINY, "--out", "new", "--quiet"),
    "reproduce": ("gdw-uniform", "--out", "new", "--quiet"),
    "bench": ("--methods", "erm", "--model", "linear", "--image", "1x4x4"),
    "resume": ("run",),
    "eval": ("run",),
    "predict": ("run", "table/test.csv"),
    "audit": ("run", "--quiet"),
    "score": ("run", "table/test.csv"),
    "compare": ("run", "run"),
    "apply": ("run", "--out", "new"),
    "list": (),
    "plugins": (),
}
"""What each command is given beside what is drawn; a part of it may be left out."""

NOT_OF_FIT = (
    *(
        "--method",
        "--with",
        "--loss",
        "--preset",
        "--val-size",
        "--val-fold",
        "--val-labels",
        "--meta-use",
        "--meta-loss",
    ),
    *("--patience", "--best-by", "--weights", "--plant"),
)
NOT_OF_INSPECT = (
    *("--method", "--with", "--loss", "--observe", "--preset", "--model", "--lr", "--epochs", "--steps", "--optimizer"),
    *("--processes", "--head", "--workers", "--device"),
)
"""Options of training that these commands do not have, or not all."""

OF_TRAIN = ("train", "inspect", "check-grad", "fit", "sweep", "reproduce")
"""Commands with the options of training."""


@attrs.frozen
class Known:
    """An option that can be drawn.

    Attributes:
        flag: the flag.
        kind: type of its value.
        choices: its values, if it has only these.
        needs: what chooses the plugin that declares it.
    """

    flag: str
    kind: type
    choices: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@cache
def options_of_training() -> tuple[Known, ...]:
    """List the options of core and of every installed plugin."""
    from reweight_core.config.options import options_of
    from reweight_core.config.resolve import KINDS_WITH_OPTIONS, owner_of
    from reweight_core.config.run_config import PLUGIN_OPTIONS

    found = []
    for item in core_options(RunConfig).values():
        choices = item.choices
        if item.name in PLUGIN_OPTIONS and item.name != "noise":
            choices = tuple(registry.names(PLUGIN_OPTIONS[item.name]))
        found.append(Known(item.flag, item.type, choices))
    flags = {kind: f"--{name}" for name, kind in PLUGIN_OPTIONS.items()}
    for kind in KINDS_WITH_OPTIONS:
        for name in registry.names(kind):
            found += [
                Known(item.flag, item.type, item.choices, (flags[kind], name))
                for item in options_of(owner_of(kind, name))
            ]
    # a network for photographs takes seconds to build
    return tuple(known for known in found if known.flag not in ("--download", "--pretrained"))


@cache
def own_options(name: str) -> tuple[Known, ...]:
    """List the options that a command declares itself."""
    from reweight_core.cli.main import cli

    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    types = {"INT": int, "FLOAT": float}
    return tuple(
        Known(
            parameter.opts[0],
            bool if parameter.is_flag else types.get(parameter.type.name.split()[0].upper(), str),
            tuple(getattr(parameter.type, "choices", ())),
        )
        for parameter in command.params
        if isinstance(parameter, click.Option)
    )


@cache
def usable(name: str) -> tuple[Known, ...]:
    """List the options of training that a command may have, with those of its own three times."""
    own = own_options(name)
    if name not in OF_TRAIN:
        return own
    without = {"fit": NOT_OF_FIT, "inspect": NOT_OF_INSPECT, "sweep": ("--method",), "reproduce": ("--method",)}
    lacks = without.get(name, ())
    of_training = [
        known
        for known in options_of_training()
        if known.flag not in lacks and (not known.needs or known.needs[0] not in lacks or name == "sweep")
    ]
    if name == "sweep":
        # which plugins its runs have is said by options of its own
        renamed = {"--method": "--methods"}
        of_training = [
            attrs.evolve(known, needs=tuple(renamed.get(n, n) for n in known.needs)) for known in of_training
        ]
    return own * 3 + tuple(of_training)


def make(draw: Draw, folder: Path) -> list[Command]:
    """Write files, and draw a command line."""
    write_places(folder)
    write_table(folder / "table")
    shutil.copytree(kept_run(draw(st.sampled_from(RUNS[:2]))), folder / "run")
    name = draw(st.sampled_from((*BASES, "train", "train", "train", "fit", "sweep", "audit")))
    base = list(BASES[name])
    if draw(st.integers(0, 9)) == 0 and base:
        del base[draw(st.integers(0, len(base) - 1))]
    known = usable(name)
    arguments = [name, *base]
    for _ in range(draw(st.integers(0, 3))):
        if not known:
            break
        option = draw(st.sampled_from(known))
        if option.needs and draw(st.integers(0, 9)):
            arguments += option.needs
        if option.kind is bool:
            negative = [f"--no-{option.flag[2:]}"] if option not in own_options(name) else []
            arguments.append(draw(st.sampled_from([option.flag, *negative])))
            continue
        value = draw(values_of(option.kind, option.choices))
        arguments += draw(st.sampled_from(([option.flag, value], [f"{option.flag}={value}"])))
    if draw(st.integers(0, 19)) == 0:
        arguments.append(draw(bad()))
    return [Command(arguments)]


COMMANDS = Kind("command lines", make)
