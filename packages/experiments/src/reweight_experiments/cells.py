"""What a sweep consists of: cells, each a method in one setting, and the runs planned for them, one a seed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import attrs

from reweight_core import (
    Option,
    RunConfig,
    UserError,
    configure,
    core_options,
    known_options,
    nearest,
    over,
    read_file,
    refuse_misfits,
    registry,
)

OF_EACH_RUN = ("seed", "out")
"""Options of which every run has its own."""

CHOOSING = ("method", "loss", "with", "observe", "data", "preset")
"""Options that decide which others there are."""

Texts = str | Sequence[Any]
"""Values of an option: a text with commas, or a sequence."""


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
class PlannedRun:
    """One training of a sweep.

    Attributes:
        cell: the row that it counts for.
        config: its options; ``config.out`` is its folder.
    """

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


def axes_of(
    methods: Texts | None, data: Texts | None, vary: Mapping[str, Texts], file: Path | None = None
) -> dict[str, list[str]]:
    """Gather what varies: the values of each option, as texts.

    Args:
        methods: names of methods; None for that of the file.
        data: names of datasets; None for that of the file, or the default if it is installed.
        vary: values of other options.
        file: a TOML file with options, which rank below all others.

    Raises:
        UserError: if something is empty, given twice, or cannot vary.
    """
    chosen = {
        name: texts_of(f"--{flag}", values)
        for name, flag, values in (("method", "methods", methods), ("data", "data", data))
        if values is not None
    }
    of_file = {} if file is None else read_file(file, RunConfig, {name: texts[0] for name, texts in chosen.items()})
    axes: dict[str, list[str]] = {}
    for name in ("method", "data"):
        if name in chosen or name in of_file:
            axes[name] = chosen.get(name) or [of_file[name]]
    default = core_options(RunConfig)["data"].default
    if "data" not in axes and default in registry.names("data"):
        axes["data"] = [default]
    for name, values in vary.items():
        if name in ("method", "data"):
            raise UserError(f"--vary {name}: give --{'methods' if name == 'method' else 'data'} A,B")
        if name in OF_EACH_RUN:
            raise UserError(f"--vary {name}: every run has its own {name}; see --seeds and --out")
        axes[name] = texts_of(f"--vary {name}", values)
    return axes


def texts_of(flag: str, values: Texts) -> list[str]:
    """Return the values of an option as texts.

    Raises:
        UserError: if it is neither a text nor a sequence, or a value is empty, has a comma or comes twice.
    """
    if not isinstance(values, Iterable):
        raise UserError(f"{flag} {values}: must be a list of values, or a text with commas")
    texts = [part.strip() for part in values.split(",")] if isinstance(values, str) else list(map(_text, values))
    shown = ",".join(texts)
    if not texts or not all(texts):
        raise UserError(f"{flag} {shown}: holds an empty name; separate values by single commas")
    for text in texts:
        if "," in text:
            raise UserError(f"{flag} {text}: a value with a comma cannot vary; make a sweep for each")
        if texts.count(text) > 1:
            raise UserError(f"{flag} {shown}: '{text}' comes twice")
    return texts


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "+".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def options_of_all(
    axes: Mapping[str, Sequence[str]], given: Mapping[str, Any], file: Path | None = None
) -> dict[str, Option]:
    """List the options that at least one cell has (arguments as `cells_of`; of `given`, what chooses plugins matters).

    Where cells disagree, an option has no default, or takes any text.
    """
    choosing = {name: axes[name] for name in CHOOSING if name in axes}
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
            merged[name] = attrs.evolve(first, changes_result=first.changes_result or item.changes_result)
    return merged


def cells_of(axes: Mapping[str, Sequence[str]], given: Mapping[str, Any], file: Path | None = None) -> list[Cell]:
    """Make the cells of a sweep: every combination of the axes, with the options that it has.

    Args:
        axes: values as text by option name; ``none`` leaves an optional one out, ``a+b`` gives a repeatable one twice.
        given: options of all cells that have them.
        file: a TOML file with options, which rank below all others.

    Raises:
        UserError: if no cell has an option that is given or varies, one is both, one with commas varies, or two cells
            would share a folder.
    """
    for name in axes.keys() & given.keys():
        raise UserError(f"--vary {name}: {_flag(name)} is given too; use one of them")
    cells: dict[str, Cell] = {}
    known_anywhere: set[str] = set()
    for chosen, values, known in _points(axes, given, file):
        known_anywhere |= set(known)
        values = {name: value for name, value in values.items() if name in known}
        labels = {name: text for name, text in chosen.items() if name in known}
        for name in labels:
            if known[name].comma_list:
                raise UserError(f"--vary {name}: its values have commas themselves; make a sweep for each")
        cell = Cell(_folder_name(labels), labels, values)
        if cells.setdefault(cell.name, cell).values != values:
            raise UserError(f"two settings would share the folder {cell.name}: sweep them apart")
    for name in (*axes, *given):
        if name not in known_anywhere:
            flag = f"--vary {name}" if name in axes else _flag(name)
            raise UserError(f"{flag}: no run here has such an option{nearest(name, known_anywhere)}")
    return list(cells.values())


def _points(
    axes: Mapping[str, Sequence[str]], given: Mapping[str, Any], file: Path | None
) -> Iterator[tuple[dict[str, str], dict[str, Any], dict[str, Option]]]:
    """For each combination of the axes: the texts chosen, all values given to it, and the options that it has."""
    core = core_options(RunConfig)
    for texts in itertools.product(*axes.values()):
        chosen = dict(zip(axes, texts, strict=True))
        values: dict[str, Any] = dict(given)
        values |= {name: _value(core[name], text) if name in core else text for name, text in chosen.items()}
        if file is not None:
            of_file = read_file(file, RunConfig, values)
            for name in OF_EACH_RUN:
                if name in of_file:
                    raise UserError(f"--config {file}: '{name}' is for a single run; give {_flag(name)}")
            values = over(values, of_file)
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


def plan_runs(cells: Sequence[Cell], first_seed: int, seeds: int, out: Path) -> list[PlannedRun]:
    """Plan and check the runs of all cells.

    Args:
        cells: the cells.
        first_seed: seed of the first run of each cell.
        seeds: number of runs of each cell.
        out: the folder that gets a folder for each run.

    Raises:
        UserError: for an option of any cell that is wrong or does not go with the others.
    """
    check_whole_number("--seed", first_seed, 0)
    check_whole_number("--seeds", seeds, 1)
    runs = []
    for cell in cells:
        try:
            config = _configure(cell, first_seed + seeds - 1)
        except UserError as error:
            raise UserError(f"{cell.name}: {error}") from error
        for seed in range(first_seed, first_seed + seeds):
            folder = out / cell.name / f"seed-{seed}"
            runs.append(PlannedRun(cell, attrs.evolve(config, seed=seed, out=folder)))
    return runs


def check_whole_number(flag: str, value: Any, least: int) -> None:
    """Raise `UserError` for what is no whole number, or is less than the least."""
    if not isinstance(value, Integral) or value < least:
        raise UserError(f"{flag} {value!r}: must be a whole number, {least} or more")


def _configure(cell: Cell, seed: int) -> RunConfig:
    known = known_options(RunConfig, cell.values)
    for name, value in cell.values.items():
        if value is None and known[name].default is not None:
            raise UserError(f"{name}=none: here the default is {known[name].default}; give a value")
    config = configure(RunConfig, **{n: v for n, v in cell.values.items() if v is not None}, seed=seed)
    # whether there is a meta set is known when the data are
    refuse_misfit(config, has_meta_set=True)
    return config


def refuse_misfit(config: RunConfig, has_meta_set: bool) -> None:
    """Raise `UserError` if the options, the method and the components of a run cannot go together."""
    components = {name: registry.find("component", name) for name in config.with_}
    method, loss = registry.find("method", config.method), registry.find("loss", config.loss)
    refuse_misfits(config, method, loss, components, has_meta_set)


def as_arguments(values: Mapping[str, Any]) -> list[str]:
    """Write option values as arguments of the command line; None leaves an option out."""
    arguments: list[str] = []
    for name, value in values.items():
        flag = _flag(name)
        if isinstance(value, bool):
            arguments.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, list | tuple):
            arguments += [text for part in (value or ["none"]) for text in (flag, part)]
        elif value is not None:
            arguments += [flag, str(value)]
    return arguments


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
