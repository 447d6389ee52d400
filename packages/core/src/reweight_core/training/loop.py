"""The training loop: everything is checked first, then stages of epochs of steps, and a folder that keeps it all."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import attrs
import numpy as np
import torch
from torch import nn

from reweight_core.config.compatibility import refuse_misfits
from reweight_core.config.load_data import load_data
from reweight_core.config.resolve import test_share
from reweight_core.config.run_config import RunConfig
from reweight_core.data.dataset import Split
from reweight_core.data.examples import Examples
from reweight_core.data.feeder import Feeder, batch_sizes
from reweight_core.data.prepare import PreparedData, digest_of
from reweight_core.data.seeds import derived_seed
from reweight_core.engine.cuda_graphs import CudaGraphs, RecordedSteps
from reweight_core.engine.head import find_head
from reweight_core.engine.lookahead import FD_LENGTH, STRATEGIES
from reweight_core.engine.optimizers import OptimizerSettings
from reweight_core.engine.training_step import TrainingStep
from reweight_core.errors import UserError, reason
from reweight_core.files import locked, write_json
from reweight_core.machine.device import keep_freed_memory, resolve_device, usable_cpus
from reweight_core.machine.meters import peak_memory
from reweight_core.machine.precision import products
from reweight_core.models.build import build_model
from reweight_core.models.initial import initialise, pretrained_weights, read_weights
from reweight_core.plugins import registry
from reweight_core.plugins.hooks import MethodHooks
from reweight_core.plugins.hookspecs import Stage
from reweight_core.plugins.records import Context, MethodPlugin
from reweight_core.runs import checkpoint
from reweight_core.runs import folder as run_folder
from reweight_core.runs.evaluate import FROM_FILES, accuracy
from reweight_core.training.auto import Choice, choose, choose_precision
from reweight_core.training.metrics import noise_auroc, purity, weight_figures
from reweight_core.training.preflight import rehearse
from reweight_core.training.schedules import Schedule, schedule


@attrs.frozen(eq=False)
class Run:
    """A finished run.

    Attributes:
        folder: where it lies.
        summary: what summary.json holds.
        model: the trained network, in eval mode.
    """

    folder: Path
    summary: dict[str, Any]
    model: nn.Module


def train(config: RunConfig, observers: Sequence[object] = ()) -> Run:
    """Run one training from beginning to end.

    Args:
        config: what `reweight_core.configure` returned.
        observers: objects with `observe_step` or `observe_epoch` hooks.

    Raises:
        UserError: for anything the user can mend; before training starts wherever it can be known then.
    """
    # what can be known before the data are read is checked before
    refuse_gpu_options(config)
    run_folder.refuse_taken(config.out)
    with products("tf32" if config.precision == "tf32" else "ieee"):
        with told_to_the_user():
            trainer = Trainer(config, load_data(config), observers)
            folder = run_folder.create(config)
        with told_to_the_user(folder), locked(folder, str(folder)):
            return trainer.run(folder)


def refuse_gpu_options(config: RunConfig) -> None:
    """Refuse what only a GPU can do where there is none."""
    if resolve_device(config.device).type == "cuda":
        return
    if config.graph == "on":
        raise UserError("--graph on: steps are recorded on a CUDA GPU only; use --graph auto or off")
    if config.precision == "tf32":
        raise UserError("--precision tf32: only CUDA GPUs have it; use --precision auto or fp32")


@contextmanager
def told_to_the_user(folder: Path | None = None) -> Iterator[None]:
    """Turn errors of the machine inside the block (full memory, a full disk) into `UserError`.

    Args:
        folder: the run's folder, if it was made before.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        raise _memory_error(error) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        if folder is None:
            raise
        raise UserError(f"{folder}: {error}; what was written before is kept") from error
    except KeyboardInterrupt as interrupt:
        if folder is not None and (folder / "checkpoints").exists():
            interrupt.add_note(f"reweight resume {folder} goes on from the last checkpoint")
        elif folder is not None:
            interrupt.add_note(f"there is no checkpoint in {folder} yet (--checkpoint-every)")
        raise


def _memory_error(error: Exception) -> Exception:
    """Return a `UserError` in place of an error that means that memory is full, else the error itself."""
    if str(error).startswith("DataLoader worker"):
        return UserError(
            "a process that reads images was killed (is memory or /dev/shm full?): lower --workers or --batch-size"
        )
    # torch has no class of its own for a failed allocation on the CPU
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
        return UserError(f"memory is full: lower --batch-size, --meta-batch-size or the image size ({reason(error)})")
    return error


class Trainer:
    """Everything a run needs, built and checked; `run` trains.

    Args:
        config: the options.
        data: the prepared data.
        observers: objects with `observe_step` or `observe_epoch` hooks.

    Attributes:
        steps: what takes the steps: `step`, or recordings of it.
        done: steps taken.
        epochs_done: epochs finished.
        seconds: time that an earlier part of the run took.
        history: metrics of the finished epochs.

    Raises:
        UserError: if the parts do not fit together.
    """

    def __init__(self, config: RunConfig, data: PreparedData, observers: Sequence[object] = ()):
        self.config, self.data = config, data
        self.device = resolve_device(config.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        plugin = registry.find("method", config.method)
        components = {name: registry.find("component", name) for name in config.with_}
        refuse_misfits(config, plugin, components, has_meta_set=data.meta is not None)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(config.seed)
            self.model = build_model(config.model, data.dataset.input_shape, len(data.dataset.classes))
            self._refuse_images_only()
            self._initialise()
            self.model.to(self.device).to(memory_format=self._memory_format)
            self.train = self._examples(data.train, config.augment)
            self._sizes = batch_sizes(len(self.train), config.batch_size)
            epochs = math.ceil(config.steps / len(self._sizes)) if config.steps else config.epochs
            context = Context(
                num_classes=len(data.dataset.classes),
                train_size=len(data.train),
                seed=derived_seed(config.seed, config.method),
                weight_decay=config.weight_decay,
                device=self.device,
                dtype=next(self.model.parameters()).dtype,
                model=self.model,
                train=self.train,
                epochs=epochs,
                steps=config.steps or epochs * len(self._sizes),
            )
            self.method = plugin.build(config.method_options, context)
            self.components = {
                name: component.build(options, attrs.evolve(context, seed=derived_seed(config.seed, name)))
                for (name, component), options in zip(components.items(), config.component_options, strict=True)
            }
        self.hooks = MethodHooks(self.method, config.method, observers, self.components)
        self._workers = usable_cpus() if config.workers is None else config.workers
        held_out = self._examples(data.meta, config.augment) if data.meta else None
        self.meta = self.hooks.provide_meta_set(held_out)
        self._test = self._examples(data.test, "none") if data.test else None
        self._val = self._examples(data.val, "none") if data.val else None
        for held_out_set in (self._val, self._test):
            if held_out_set is not None and held_out_set.files is not None:
                # one that cannot be read would otherwise be found after the first epoch
                for _ in held_out_set.in_order(FROM_FILES, self._workers):
                    pass
        self._held_out_test = digest_of(data.test) if data.test and test_share(config) else None
        self.feeder = Feeder(self.train, self.meta, config.meta_batch_size, config.seed, self._workers)
        images = self.train.batch(torch.arange(2, device=self.device), None).inputs
        head = find_head(self.model, images)
        self.lookahead = self._rehearse(images, head, plugin)
        self.step = TrainingStep(
            self.model,
            self.hooks,
            self.lookahead.strategy,
            self.train,
            self.meta,
            settings=OptimizerSettings(
                name=config.optimizer,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                virtual_step=config.virtual_step,
                max_grad_norm=config.max_grad_norm,
            ),
            seed=config.seed,
            autocast=torch.bfloat16 if config.precision == "bf16" else None,
            head=head,
            lean=config.memory == "lean",
        )
        self.steps: TrainingStep | RecordedSteps = self.step
        if self.device.type == "cuda" and config.graph != "off":
            graphs = CudaGraphs(self.device, self.step.generators.values())
            self.steps = RecordedSteps(self.step, graphs, required=config.graph == "on")
        self.stages = self.hooks.plan_stages(Stage("train", epochs, config.lr))
        self._schedules = [
            schedule(config.schedule, stage.epochs, config.lr_drops, config.lr_drop_factor) for stage in self.stages
        ]
        for stage in self.stages:
            for name, component in components.items():
                if component.per_example and stage.source == "meta":
                    raise UserError(
                        f"--with {name}: it keeps what it learns by training example, but method '{config.method}' "
                        "trains on the meta set"
                    )
        self._total = sum(stage.epochs for stage in self.stages) * len(self._sizes)
        if config.steps:
            self._total = min(self._total, config.steps)
        self.done = 0
        self.epochs_done = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []

    def run(self, folder: Path) -> Run:
        """Train in all stages and write the run to `folder`, which must exist and be empty."""
        self.model.train()
        self.step.feed(next(self.feeder.epoch(0, "train", self._sizes[:1])))
        self.step.lr.fill_(self.stages[0].lr)
        precision = self.config.precision
        if precision == "auto":
            precision = choose_precision(self, self._sizes[0]) if self.device.type == "cuda" else "fp32"
        self._choose_lookahead()
        chosen = {"lookahead": attrs.asdict(self.lookahead), "precision": precision}
        run_folder.write_config(folder, self.config, self.data, self.device, chosen)
        return self.go_on(folder)

    def go_on(self, folder: Path) -> Run:
        """Train what is left of the run in `folder`, after the epochs in `history`."""
        self._started = time.perf_counter() - self.seconds
        self.model.train()
        plan = [
            (stage, factor, epoch)
            for stage, factor in zip(self.stages, self._schedules, strict=True)
            for epoch in range(stage.epochs)
        ]
        for stage, factor, epoch in plan[self.epochs_done :]:
            if self.done == self._total:
                break
            metrics = self._train_epoch(stage, factor, epoch)
            metrics |= self.hooks.finish_epoch(self.epochs_done)
            metrics |= purity(self.hooks.trusted_examples(), self.data)
            self._choose_lookahead()
            metrics |= self._evaluate()
            self.history.append(run_folder.append_metrics(folder, metrics))
            self.hooks.observe_epoch(metrics=metrics)
            self.step.health.check()
            if self.done == self._total or self.epochs_done % self.config.checkpoint_every == 0:
                self._save_checkpoint(folder, stage)
        run_folder.write_samples(folder, self.data, self.step.samples)
        summary = self._summary()
        write_json(folder / "summary.json", summary)
        return Run(folder, summary, self.hooks.evaluation_model(self.model).eval())

    def _examples(self, split: Split, augment: str | None) -> Examples:
        return Examples(split, self.data.dataset, self.device, torch.get_default_dtype(), augment, self._memory_format)

    def _refuse_images_only(self) -> None:
        """Refuse a network for images on data that are none."""
        is_image = self.data.train.images.dtype == np.uint8
        if not is_image and any(isinstance(module, nn.Conv2d) for module in self.model.modules()):
            raise UserError(f"--model {self.config.model}: is for images, but the data are features; give --model mlp")

    def _initialise(self) -> None:
        """Give the network the initial weights that are asked for."""
        config = self.config
        if config.init_from is not None and config.pretrained:
            raise UserError("--init-from and --pretrained exclude each other; give --no-pretrained with --init-from")
        if config.init_from is not None:
            weights, source = read_weights(config.init_from), f"--init-from {config.init_from}"
        elif config.pretrained:
            weights, source = pretrained_weights(config.model), "--pretrained"
        else:
            return
        head = find_head(self.model, torch.zeros(2, *self.data.dataset.input_shape))
        if not initialise(self.model, weights, head, source):
            warnings.warn(f"{source}: the last layer is for other classes and begins untrained", stacklevel=2)

    @property
    def _memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.config.channels_last else torch.contiguous_format

    def _rehearse(self, images: torch.Tensor, head: str | None, plugin: MethodPlugin) -> Choice:
        """Rehearse training; return the look-ahead to begin with."""
        classes = len(self.data.dataset.classes)
        if plugin.looks_ahead == "head":
            rehearse(self.model, images, classes, STRATEGIES["head"], head)
            return Choice("head")
        if plugin.looks_ahead == "no":
            rehearse(self.model, images, classes, None, head)
            return Choice("none")
        if self.config.lookahead != "auto":
            rehearse(self.model, images, classes, STRATEGIES[self.config.lookahead], head)
            return Choice(self.config.lookahead, FD_LENGTH if self.config.lookahead == "fd" else None)
        try:
            rehearse(self.model, images, classes, STRATEGIES["jvp"], head)
            return Choice("jvp")
        except UserError as problem:
            rehearse(self.model, images, classes, STRATEGIES["double"], head)
            warnings.warn(f"{problem}; looking ahead by double backward instead", stacklevel=2)
            return Choice("double")

    def _choose_lookahead(self) -> None:
        """For ``auto``: choose by the batch fed last."""
        if self.config.lookahead == "auto" and self.lookahead.name in ("jvp", "fd"):
            self.lookahead = choose(self, self._sizes[0])
            self.step.strategy = self.lookahead.strategy

    def _train_epoch(self, stage: Stage, factor: Schedule, epoch: int) -> dict[str, Any]:
        started = time.perf_counter()
        before = self.done
        self.step.sums.reset()
        if isinstance(self.steps, RecordedSteps):
            self.steps.forget()
        sizes = self._sizes[: self._total - self.done]
        rate = 0.0
        for index, fed in enumerate(self.feeder.epoch(self.epochs_done, stage.source, sizes)):
            rate = stage.lr * factor(epoch + index / len(self._sizes))
            self.step.lr.fill_(rate)
            self.step.feed(fed)
            self.steps.run(len(fed.ids), stage.source, looks_ahead=self.done % self.config.meta_every == 0)
            self.done += 1
            self.hooks.observe_step(done=self.done, total=self._total)
        sums = self.step.sums
        self.epochs_done += 1
        # reading the sums waits for the device, so the time that follows is that of the finished steps
        train_loss = (sums.train_loss / sums.examples).item()
        meta_loss = (sums.meta_loss / sums.meta_steps).item() if sums.meta_steps.item() else None
        seconds = time.perf_counter() - started
        return {
            "stage": stage.name,
            "epoch": self.epochs_done,
            "step": self.done,
            "lr": rate,
            "lookahead": self.lookahead.name,
            "lookahead_length": self.lookahead.length,
            "lookahead_error": self.lookahead.error,
            "train_loss": train_loss,
            "meta_loss": meta_loss,
            **weight_figures(self.step.samples, self.data),
            "seconds": seconds,
            "seconds_per_step": seconds / (self.done - before),
        }

    def _evaluate(self) -> dict[str, Any]:
        model = self.hooks.evaluation_model(self.model)
        return {
            "val_accuracy": accuracy(model, self._val, self._workers) if self._val else None,
            "test_accuracy": accuracy(model, self._test, self._workers) if self._test else None,
        }

    def state_of_parts(self) -> dict[str, torch.Tensor]:
        """Return the state of the method and of the components, each tensor's name after its plugin's."""
        return self.hooks.state_dict()

    def load_state_of_parts(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what `state_of_parts` returned."""
        self.hooks.load_state_dict(state)

    def _save_checkpoint(self, folder: Path, stage: Stage) -> None:
        dataset = self.data.dataset
        state = self.step.state_dict() | self.state_of_parts()
        kept = self.hooks.evaluation_model(self.model)
        if kept is not self.model:
            state |= {f"network.{name}": tensor for name, tensor in self.model.state_dict().items()}
        manifest = {
            "stage": stage.name,
            "epoch": self.epochs_done,
            "lookahead": attrs.asdict(self.lookahead),
            "model": self.config.model,
            "input_shape": dataset.input_shape,
            "classes": dataset.classes,
            "mean": dataset.mean,
            "std": dataset.std,
            "features": attrs.asdict(dataset.features) if dataset.features else None,
            "data_fingerprint": self.data.fingerprint,
            "held_out_test": self._held_out_test,
            "seconds": time.perf_counter() - self._started,
            "history": self.history,
        }
        checkpoint.save(folder / "checkpoints", self.done, kept.state_dict(), state, manifest)

    def _summary(self) -> dict[str, Any]:
        history, last, samples = self.history, self.history[-1], self.step.samples
        return {
            "method": self.config.method,
            "data": self.config.data,
            "test_accuracy": last["test_accuracy"],
            "test_accuracy_mean5": fmean(metrics["test_accuracy"] for metrics in history[-5:]) if self._test else None,
            "val_accuracy": last["val_accuracy"],
            "noise_auroc": noise_auroc(samples.mean_weight(), samples, self.data),
            "epochs": self.epochs_done,
            "steps": self.done,
            "seconds": time.perf_counter() - self._started,
            "seconds_per_step": sum(m["seconds"] for m in history) / self.done,
            "peak_memory_bytes": peak_memory(self.device),
        }
