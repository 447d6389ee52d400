"""The data of a sweep, tried before its first run, so that missing files are known at once."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from reweight_core import registry
from reweight_core.config import DataConfig, RunConfig
from reweight_core.errors import UserError, reason
from reweight_core.misfits import refuse_misfits
from reweight_core.sweep import Run


def problems_of_data(runs: Sequence[Run]) -> dict[str, str]:
    """Prepare each kind of data once, as its first run would; return what is wrong, by name of the cell.

    What is downloaded or decoded on the way is there for the runs.
    """
    from reweight_core.preparation import load

    fields = [field.name for field in attrs.fields(DataConfig) if field.name != "seed"]
    by_data: dict[tuple[object, ...], list[Run]] = {}
    for run in {run.cell.name: run for run in reversed(runs)}.values():
        by_data.setdefault(tuple(getattr(run.config, name) for name in fields), []).append(run)
    problems: dict[str, str] = {}
    for group in by_data.values():
        try:
            has_meta_set = load(group[0].config).meta is not None
        except UserError as error:
            problems |= {run.cell.name: str(error) for run in group}
            continue
        except Exception as error:
            problems |= {run.cell.name: reason(error) for run in group}
            continue
        for run in group:
            try:
                _refuse_missing_meta_set(run.config, has_meta_set)
            except UserError as error:
                problems[run.cell.name] = str(error)
    return problems


def _refuse_missing_meta_set(config: RunConfig, has_meta_set: bool) -> None:
    components = {name: registry.find("component", name) for name in config.with_}
    refuse_misfits(config, registry.find("method", config.method), components, has_meta_set)
