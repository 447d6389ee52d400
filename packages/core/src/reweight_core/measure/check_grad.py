"""How far each look-ahead is from double backward, on the user's own network and data, and what it costs."""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import torch
from torch import Tensor

from reweight_core.config.load_data import load_data
from reweight_core.config.resolve import as_values, configure
from reweight_core.config.run_config import RunConfig
from reweight_core.engine.lookahead import Choice
from reweight_core.errors import UserError
from reweight_core.machine.meters import fresh_process, high_water_mark, wait_for
from reweight_core.machine.precision import set_products
from reweight_core.plugins import registry
from reweight_core.training.auto import LENGTHS, Tried, relative_error, tried
from reweight_core.training.build import Parts, begin, build_parts, refuse_gpu_options

REPETITIONS = 5


def check(config: RunConfig) -> list[dict[str, Any]]:
    """Compare D' of one batch under every look-ahead, in a process of its own.

    Returns:
        One object a look-ahead: ``strategy``, ``length`` (of fd, else None), ``precision``; ``relative_error`` and
        ``cosine`` of the manipulated logit gradient D' against that of the first, ``double`` in fp32;
        ``sign_agreement``, the share of weights on the same side of their mean as there; ``seconds_per_step`` (median)
        and ``peak_bytes`` of a step; ``error`` in place of all these where it does not work.

    Raises:
        UserError: if the method does not look ahead, or the network cannot be trained.
    """
    looks_ahead = registry.find("method", config.method).looks_ahead
    if looks_ahead == "head":
        raise UserError(f"method '{config.method}' has a closed form for its look-ahead: there is nothing to compare")
    if looks_ahead == "no":
        raise UserError(f"method '{config.method}' does not look ahead: there is nothing to compare")
    refuse_gpu_options(config)
    rows: list[dict[str, Any]] = fresh_process("reweight_core.measure.check_grad", json.dumps(as_values(config)))
    return rows


def _measure(values: dict[str, Any]) -> list[dict[str, Any]]:
    config = configure(RunConfig, **values | {"lookahead": "double"})
    parts = build_parts(config, load_data(config))
    n = begin(parts)
    precision = "fp32" if config.precision == "auto" else config.precision
    ways = [Choice("double"), Choice("jvp"), *(Choice("fd", length) for length in LENGTHS), Choice("head")]
    arithmetics = [("fp32", ways[0])] * (precision != "fp32") + [(precision, way) for way in ways]
    rows: list[dict[str, Any]] = []
    oracle: Tried | None = None
    for arithmetic, way in arithmetics:
        row: dict[str, Any] = {"strategy": way.name, "length": way.length, "precision": arithmetic}
        for passes in parts.passes:
            passes.autocast = torch.bfloat16 if arithmetic == "bf16" else None
        set_products(arithmetic)
        try:
            found = tried(parts.step, n, way, parts.stages[0])
            if not found.looked_ahead:
                raise UserError(f"method '{config.method}' did not look ahead: there is nothing to compare")
            oracle = oracle or found
            row |= _differences(found, oracle) | _costs(parts, n, way)
        except (UserError, RuntimeError) as error:
            if way.name == "double":
                raise
            row["error"] = str(error).splitlines()[0]
        rows.append(row)
    return rows


def _differences(found: Tried, oracle: Tried) -> dict[str, float]:
    flat, expected = found.D_prime.double().flatten(), oracle.D_prime.double().flatten()
    return {
        "relative_error": relative_error(found.D_prime, oracle.D_prime),
        "cosine": torch.cosine_similarity(flat, expected, dim=0).item(),
        "sign_agreement": _sides(found.weights).eq(_sides(oracle.weights)).double().mean().item(),
    }


def _costs(parts: Parts, n: int, way: Choice) -> dict[str, Any]:
    times = []
    with high_water_mark(parts.device) as mark:
        for _ in range(REPETITIONS):
            wait_for(parts.device)
            started = time.perf_counter()
            tried(parts.step, n, way, parts.stages[0])
            wait_for(parts.device)
            times.append(time.perf_counter() - started)
    return {"seconds_per_step": statistics.median(times), "peak_bytes": mark[0]}


def _sides(weights: Tensor) -> Tensor:
    return weights > weights.mean()


if __name__ == "__main__":
    try:
        print(json.dumps(_measure(json.loads(sys.argv[1]))))
    except UserError as problem:
        sys.exit(str(problem))
