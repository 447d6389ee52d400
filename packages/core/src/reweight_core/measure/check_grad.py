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
from reweight_core.engine.lookahead import STRATEGIES, Strategy, finite_difference
from reweight_core.errors import UserError
from reweight_core.machine.meters import fresh_process, high_water_mark, wait_for
from reweight_core.machine.precision import set_products
from reweight_core.plugins import registry
from reweight_core.training.auto import LENGTHS, relative_error, weights_under
from reweight_core.training.loop import Trainer, refuse_gpu_options

REPETITIONS = 5


def check(config: RunConfig) -> list[dict[str, Any]]:
    """Compare the weights of one batch under every look-ahead, in a process of its own.

    Returns:
        One object a look-ahead: ``strategy``, ``length`` (of fd, else None), ``precision``, ``relative_error``,
        ``cosine`` and ``sign_agreement`` of its weights against those of the first, ``double`` in fp32 (the share of
        entries on the same side of the mean), ``seconds_per_step`` (median) and ``peak_bytes`` of a step; ``error`` in
        place of all these where it does not work.

    Raises:
        UserError: if the method does not look ahead, or the network cannot be trained.
    """
    rows: list[dict[str, Any]] = fresh_process("reweight_core.measure.check_grad", json.dumps(as_values(config)))
    return rows


def _measure(values: dict[str, Any]) -> list[dict[str, Any]]:
    plugin = registry.find("method", values["method"])
    if plugin.looks_ahead == "head":
        raise UserError(f"method '{plugin.name}' has a closed form for its look-ahead: there is nothing to compare")
    config = configure(RunConfig, **values | {"lookahead": "double"})
    refuse_gpu_options(config)
    trainer = Trainer(config, load_data(config))
    if trainer.lookahead.name == "none":
        raise UserError(f"method '{config.method}' does not look ahead: there is nothing to compare")
    trainer.model.train()
    trainer.step.lr.fill_(config.lr)
    n = min(config.batch_size, len(trainer.data.train))
    trainer.step.feed(next(trainer.feeder.epoch(0, "train", [n])))
    precision = "fp32" if config.precision == "auto" else config.precision
    exact = ("double", None, STRATEGIES["double"])
    ways: list[tuple[str, float | None, Strategy]] = [exact, ("jvp", None, STRATEGIES["jvp"])]
    ways += [("fd", length, finite_difference(length)) for length in LENGTHS]
    ways += [("head", None, STRATEGIES["head"])]
    cells = [("fp32", *exact)] * (precision != "fp32") + [(precision, *way) for way in ways]
    rows: list[dict[str, Any]] = []
    oracle = None
    for arithmetic, name, length, strategy in cells:
        row: dict[str, Any] = {"strategy": name, "length": length, "precision": arithmetic}
        trainer.step.passes.autocast = torch.bfloat16 if arithmetic == "bf16" else None
        set_products("tf32" if arithmetic == "tf32" else "ieee")
        try:
            weights = weights_under(trainer, n, strategy)
            if weights is None:
                raise UserError(f"method '{config.method}' does not look ahead: there is nothing to compare")
            oracle = weights if oracle is None else oracle
            row |= {
                "relative_error": relative_error(weights, oracle),
                "cosine": torch.cosine_similarity(weights.double().flatten(), oracle.double().flatten(), dim=0).item(),
                "sign_agreement": _sides(weights).eq(_sides(oracle)).double().mean().item(),
            }
            times = []
            with high_water_mark(trainer.device) as mark:
                for _ in range(REPETITIONS):
                    wait_for(trainer.device)
                    started = time.perf_counter()
                    weights_under(trainer, n, strategy)
                    wait_for(trainer.device)
                    times.append(time.perf_counter() - started)
            row |= {"seconds_per_step": statistics.median(times), "peak_bytes": mark[0]}
        except (UserError, RuntimeError) as error:
            if name == "double":
                raise
            row["error"] = str(error).splitlines()[0]
        rows.append(row)
    return rows


def _sides(weights: Tensor) -> Tensor:
    return weights > weights.mean()


if __name__ == "__main__":
    try:
        print(json.dumps(_measure(json.loads(sys.argv[1]))))
    except UserError as problem:
        sys.exit(str(problem))
