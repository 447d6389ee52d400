"""What a sweep consists of: cells, each a method in one setting, and their runs, one for each seed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from reweight_core.config.compatibility import refuse_misfits
from reweight_core.config.options import Option, Owner, table
from reweight_core.config.resolve import configure, known_options, read_file
from reweight_core.config.run_config import OWNER, RunConfig
from reweight_core.errors import UserError, nearest
from reweight_core.plugins import registry

SAME_SETTING = ("data_root", "download", "device", "workers", "graph", "checkpoint_every", "seed")
"""Options that say where and how a run is made, and do not change what it is."""

OF_EACH_RUN = ("seed", "out")
"""Options of which every run has its own."""

LISTS = ("lr_drops",)
"""Options whose values have commas."""


@attrs.frozen(eq=False)
class Cell:
    """One row of the result table: a method in one setting.

    Attributes:
        name: its folder below that of the sweep.
        labels: what tells it from the other cells, by column of the table.
        values: the options of its runs but seed and folder, by name; None for one that is left out.
    """

    name: str
    labels: Mapping[str, str]
    values: Mapping[str, Any]


@attrs.frozen(eq=False)
class Run:
    """One training of a sweep; ``config.out`` is its folder."""

    cell: Cell
    config: RunConfig

    @property
    def folder(self) -> Path:
        """Where the run is written."""
        assert self.config.out is not None
        return self.config.out

    @property
    def name(self) -> str:
        """Its folder, relative to that of the sweep."""
        return f"{self.cell.name}/{self.folder.name}"

    @property
    def arguments(self) -> list[str]:
        """The arguments of the program that make this run by itself."""
        values = dict(self.cell.values) | {"seed": self.config.seed, "out": self.config.out}
        return ["train", *as_arguments(values)]


def parse_axes(methods: str, data: str | None, varied: Sequence[str]) -> dict[str, list[str]]:
    """Read what varies: the values of ``--methods``, ``--data`` and each ``--vary NAME=V1,V2`` by option name.

    Raises:
        UserError: if something is empty, not of this form, or given twice.
    """
    axes = {"method": _split("--methods", methods)}
    if data is not None:
        axes["data"] = _split("--data", data)
    for text in varied:
        name, equals, values = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not name or not equals:
            raise UserError(f"--vary {text}: must be NAME=VALUE,VALUE, e.g. noise=none,uniform:0.4")
        if name in axes:
            raise UserError(f"--vary {text}: the values of '{name}' are given twice")
        if name in OF_EACH_RUN:
            raise UserError(f"--vary {text}: every run has its own {name}; see --seeds and --out")
        if name in LISTS:
            raise UserError(f"--vary {text}: its values have commas themselves; make a sweep for each")
        axes[name] = _split(f"--vary {name}", values)
    return axes


def _split(flag: str, text: str) -> list[str]:
    values = [part.strip() for part in text.split(",")]
    if not all(values):
        raise UserError(f"{flag} {text}: holds an empty name; separate values by single commas")
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"{flag} {text}: '{value}' comes twice")
    return values


def options_of_all(
    axes: Mapping[str, Sequence[str]], given: Mapping[str, Any], file: Path | None = None
) -> dict[str, Option]:
    """List the options that at least one cell has (arguments as `cells_of`; of `given`, what chooses plugins matters).

    Where cells disagree, an option has no default, or takes any text.
    """
    choosing = {name: axes[name] for name in ("method", "data", "with", "preset") if name in axes}
    return union([known for _, _, known in _points(choosing, given, file)])


def union(tables: Sequence[Mapping[str, Option]]) -> dict[str, Option]:
    """Merge tables of options; an option on which they disagree has no default, or takes any text."""
    merged: dict[str, Option] = {}
    for known in tables:
        for name, item in known.items():
            first = merged.setdefault(name, item)
            if first.default != item.default:
                first = attrs.evolve(first, default=() if first.multiple else None)
            if (first.type, first.choices) != (item.type, item.choices):
                first = attrs.evolve(first, type=str, choices=())
            merged[name] = first
    return merged


def cells_of(axes: Mapping[str, Sequence[str]], given: Mapping[str, Any], file: Path | None = None) -> list[Cell]:
    """Make the cells of a sweep: every combination of the axes, with the options that it has.

    Args:
        axes: values as text by option name; ``none`` leaves an optional one out, ``a+b`` gives a repeatable one twice.
        given: options of all cells that have them.
        file: a TOML file with options, which rank below all others.

    Raises:
        UserError: if no cell has an option that varies, one is given as well, or two cells would share a folder.
    """
    for name in axes.keys() & given.keys():
        raise UserError(f"--vary {name}: --{name.replace('_', '-')} is given too; use one of them")
    cells: dict[str, Cell] = {}
    known_anywhere: set[str] = set()
    for chosen, values, known in _points(axes, given, file):
        known_anywhere |= set(known)
        values = {name: value for name, value in values.items() if name in known}
        labels = {name: text for name, text in chosen.items() if name in known}
        cell = Cell(_folder_name(labels), labels, values)
        if cells.setdefault(cell.name, cell).values != values:
            raise UserError(f"two settings would share the folder {cell.name}: sweep them apart")
    for name in axes:
        if name not in known_anywhere:
            raise UserError(f"--vary {name}: no run here has such an option{nearest(name, known_anywhere)}")
    return list(cells.values())


def _points(
    axes: Mapping[str, Sequence[str]], given: Mapping[str, Any], file: Path | None
) -> Iterator[tuple[dict[str, str], dict[str, Any], dict[str, Option]]]:
    """For each combination of the axes: the texts chosen, all values given to it, and the options that it has."""
    core = table([Owner(OWNER, RunConfig)])
    for texts in itertools.product(*axes.values()):
        chosen = dict(zip(axes, texts, strict=True))
        values: dict[str, Any] = dict(given)
        values |= {name: _value(core[name], text) if name in core else text for name, text in chosen.items()}
        if file is not None:
            of_file = read_file(file, RunConfig, values)
            for name in (*OF_EACH_RUN, "method"):
                if name in of_file:
                    raise UserError(f"--config {file}: '{name}' is for a single run; give --seed, --out or --methods")
            values = of_file | values
        known = known_options(RunConfig, values)
        for name in chosen.keys() & known.keys() - core.keys():
            values[name] = _value(known[name], chosen[name])
        yield chosen, values, known


def _value(item: Option, text: str) -> Any:
    if item.multiple:
        return tuple(text.split("+"))
    if item.type is bool and text in ("true", "false"):
        return text == "true"
    return None if text == "none" and item.optional and "none" not in item.choices else text


def _folder_name(labels: Mapping[str, str]) -> str:
    parts = [text if name in ("method", "data") else f"{name}={text}" for name, text in labels.items()]
    # colons and slashes are no part of a name on every file system
    return re.sub(r"[^\w.=+-]+", "-", "-".join(parts))


def runs_of(cells: Sequence[Cell], seeds: range, out: Path) -> list[Run]:
    """Make and check the runs of all cells.

    Raises:
        UserError: for an option of any cell that is wrong or does not go with the others.
    """
    runs = []
    for cell in cells:
        try:
            config = _configure(cell, seeds[-1])
        except UserError as error:
            raise UserError(f"{cell.name}: {error}") from error
        folder = out / cell.name
        runs += [Run(cell, attrs.evolve(config, seed=seed, out=folder / f"seed-{seed}")) for seed in seeds]
    return runs


def _configure(cell: Cell, seed: int) -> RunConfig:
    config = configure(RunConfig, **{n: v for n, v in cell.values.items() if v is not None}, seed=seed)
    core = {name: getattr(config, item.field) for name, item in table([Owner(OWNER, RunConfig)]).items()}
    for name, value in cell.values.items():
        if value is None and core.get(name) is not None:
            raise UserError(f"{name}=none: here the default is {core[name]}; give a value")
    method = registry.find("method", config.method)
    components = {name: registry.find("component", name) for name in config.with_}
    # whether there is a meta set is known when the data are
    refuse_misfits(config, method, components, has_meta_set=True)
    return config


def as_arguments(values: Mapping[str, Any]) -> list[str]:
    """Write option values as arguments of the command line; None leaves an option out."""
    arguments: list[str] = []
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list | tuple):
            arguments += [text for part in (value or ["none"]) for text in (flag, part)]
        elif value is not None:
            arguments += [flag, str(value)]
    return arguments
