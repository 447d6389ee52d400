"""scikit-learn's way to train: an estimator that runs the trainer on arrays."""

from __future__ import annotations

import copy
import csv
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d

from reweight_core.config.compatibility import GIVE_CLEAN, uses_clean_examples
from reweight_core.config.load_data import load_data
from reweight_core.config.resolve import as_values, configure
from reweight_core.config.run_config import RunConfig
from reweight_core.data.dataset import Split
from reweight_core.errors import UserError, in_python
from reweight_core.integrations.arrays import ArrayReader
from reweight_core.machine.device import resolve_device
from reweight_core.machine.precision import products
from reweight_core.plugins import registry
from reweight_core.runs.folder import read_config
from reweight_core.runs.samples import read_samples
from reweight_core.training.loop import FinishedRun, train

try:
    from sklearn.utils.validation import validate_data
except ImportError:
    # before scikit-learn 1.6
    def validate_data(estimator: Any, *arguments: Any, **keywords: Any) -> Any:
        """Check what an estimator is given."""
        return estimator._validate_data(*arguments, **keywords)


BATCH_SIZE = 256
"""Examples in one batch of a prediction."""

_TAKEN = {"data": "X and y", "seed": "random_state", "weights": "sample_weight"}


class FitError(UserError, ValueError):
    """What the user gave cannot be trained on; a `ValueError`, as scikit-learn's own errors are."""


class ReweightClassifier(ClassifierMixin, BaseEstimator):
    """A classifier for noisy or unbalanced labels, as an estimator of scikit-learn.

    Without arguments it trains as ``reweight train --data csv --method erm`` does on a table of the same rows: what is
    None is what the data want (docs/data.md, Defaults).

    Args:
        method: of `reweight list`, or ``auto`` for what suits the data best (``reweight fit``, package reweight-fit).
        model: the network (``--model``).
        loss: the training loss (``--loss``).
        epochs: epochs to train.
        batch_size: training batch size.
        lr: initial learning rate.
        weight_decay: weight decay on all parameters.
        random_state: seed of a run; None or a RandomState for one that is drawn.
        device: ``auto``, ``cpu``, ``cuda``, ...
        options: any others of ``reweight train`` and of the plugins that are used, by name (underscores); with
            ``auto`` those of ``reweight fit``, ``{"budget": "3x"}``. With ``out`` the run's folder is kept there.

    Attributes:
        classes_: the labels, sorted.
        sample_weight_: what each row of X weighed on average, (n,); NaN where it was not trained on. Without the
            weights that `fit` was given.
        options_: every option that the network was trained with, by name.
        summary_: what the run's summary.json would hold: ``health``, times, noise; docs/runs.md.
        report_: with ``method="auto"`` what was tried (``fit.json``), else None.
        network_: the network, on the CPU.
        n_features_in_: columns of X; of images the height.
        feature_names_in_: the columns' names, if X had names.
    """

    def __init__(
        self,
        method: str = "erm",
        *,
        model: str | None = None,
        loss: str | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        random_state: Any = 0,
        device: str = "auto",
        options: Mapping[str, Any] | None = None,
    ):
        self.method = method
        self.model = model
        self.loss = loss
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.random_state = random_state
        self.device = device
        self.options = options

    def fit(
        self, X: Any, y: Any, X_meta: Any = None, y_meta: Any = None, sample_weight: Any = None
    ) -> ReweightClassifier:
        """Train.

        Args:
            X: features (n, features), or images of uint8 (n, height, width[, channels]).
            y: observed labels (n,).
            X_meta: examples whose labels are right (m, ...), of every class, none of them in X; methods that learn
                from clean examples need them.
            y_meta: their labels (m,).
            sample_weight: what each row is to count (n,), relative to the others, whatever the method makes of it.

        Raises:
            FitError: for an option or data that cannot be used (a `ValueError`).
        """
        X, y = self._validated(X, y, reset=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        with _told_to_the_caller(), tempfile.TemporaryDirectory() as folder:
            names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(X.shape[1])])
            self._reader = ArrayReader.of(X, names)
            splits = Split(self._reader.read(X, "X"), labels.astype(np.int64)), self._meta(X_meta, y_meta)
            given = {"out": Path(folder) / "run", **self._given(len(labels))}
            if sample_weight is not None:
                given["weights"] = Path(folder) / "weights.csv"
                _write_weights(given["weights"], _check_sample_weight(sample_weight, X, dtype=np.float64))
            self._keep(*self._trained(given, *splits), len(labels))
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of every class of `classes_`, float64 (n, C)."""
        check_is_fitted(self, "network_")
        X = self._validated(X, reset=False)
        with _told_to_the_caller():
            inputs = self._reader.read(X, "X")
            device = resolve_device(self.device)
        network = self.network_ if device.type == "cpu" else copy.deepcopy(self.network_).to(device)
        dtype = next(network.parameters()).dtype
        mean, std = (
            torch.tensor(values, dtype=dtype, device=device)[:, None, None]
            for values in (self._reader.mean, self._reader.std)
        )
        found = []
        with torch.no_grad(), products("fp32"):
            for batch in torch.from_numpy(inputs).split(BATCH_SIZE):
                count = len(batch)
                if self._reader.kind == "features":
                    # sums of another number of rows are rounded otherwise, and rows cost little
                    batch = F.pad(batch, (0,) * 7 + (BATCH_SIZE - count,))
                logits = network((batch.to(device).to(dtype) - mean) / std)[:count]
                found.append(logits.softmax(1, dtype=torch.float64).cpu().numpy())
        return np.concatenate(found)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row, (n,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def _validated(self, X: Any, *y: Any, reset: bool) -> Any:
        """Return what scikit-learn makes of X (and of y), which names what is wrong with it."""
        is_features = getattr(X, "ndim", 2) <= 2
        dtype = np.float64 if is_features else None
        return validate_data(self, X, *y, reset=reset, dtype=dtype, allow_nd=not is_features)

    def _meta(self, X_meta: Any, y_meta: Any) -> Split | None:
        if (X_meta is None) != (y_meta is None):
            raise UserError("X_meta and y_meta belong together: give both, or none")
        if X_meta is None:
            return None
        try:
            X_meta = self._validated(X_meta, reset=False)
        except ValueError as error:
            raise UserError(
                f"X_meta: {error} (a Pipeline brings it through its steps with transform_input=['X_meta'])"
            ) from error
        images = self._reader.read(X_meta, "X_meta")
        y_meta = column_or_1d(y_meta)
        if len(y_meta) != len(images):
            raise UserError(f"X_meta has {len(images)} rows, and y_meta {len(y_meta)} labels: give one for each")
        _refuse_other_labels(y_meta, self.classes_)
        return Split(images, np.searchsorted(self.classes_, y_meta).astype(np.int64))

    def _given(self, examples: int) -> dict[str, Any]:
        """Return the options that are given, by name."""
        own = {
            name: value
            for name, value in self.get_params(deep=False).items()
            if name not in ("method", "options", "random_state") and value is not None
        }
        for name in self.options or {}:
            if name in _TAKEN or name in self.get_params(deep=False):
                raise UserError(f"options: '{name}' is {_TAKEN.get(name, f'the parameter {name}')} of the estimator")
        is_seed = isinstance(self.random_state, int | np.integer)
        seed = self.random_state if is_seed else check_random_state(self.random_state).randint(2**31)
        about = {"data": "memory", "memory_kind": self._reader.kind, "memory_examples": examples, "seed": int(seed)}
        # a run that has diverged warns, as estimators do that have not converged
        usual = {"test_from": "none", "stop_when": "never", "checkpoint_every": "never"}
        return {**usual, **(self.options or {}), **own, **about}

    def _trained(self, given: dict[str, Any], examples: Split, meta: Split | None) -> tuple[FinishedRun, RunConfig]:
        self.report_ = None
        classes = [str(name) for name in self.classes_]
        if self.method != "auto":
            config: RunConfig = configure(method=self.method, **given)
            dataset = self._reader.dataset(examples, meta if _takes_clean(config) else None, classes)
            return train(config, data=load_data(config, dataset)), config
        dataset = self._reader.dataset(examples, meta, classes)
        if "fit" not in registry.names("command"):
            raise UserError("method='auto' needs the package reweight-fit: install it, or name a method")
        fitted = registry.function_of("fit")(given.pop("out"), dataset=dataset, **given)
        self.report_ = fitted.report.as_json()
        return fitted.run, read_config(fitted.run.folder).config

    def _keep(self, run: FinishedRun, config: RunConfig, examples: int) -> None:
        """Take what is kept of a run out of its folder, which may be gone soon."""
        self.network_ = run.model.cpu().eval()
        self.summary_ = run.summary
        self.options_ = {name: value for name, value in as_values(config).items() if name not in ("out", "weights")}
        columns = read_samples(run.folder).columns
        # behind the rows of X may be clean examples that were trained on, and planted ones with other labels
        own = (columns["id"] < examples) & (columns["visits"] > 0) & ~columns.get("planted", np.zeros(1, dtype=bool))
        self.sample_weight_ = np.full(examples, np.nan)
        self.sample_weight_[columns["id"][own]] = columns["mean_weight"][own]


@contextmanager
def _told_to_the_caller() -> Iterator[None]:
    """Raise what the user can mend as `FitError`, options by their names in Python."""
    try:
        yield
    except UserError as error:
        text = str(error).replace(GIVE_CLEAN, "give fit some as X_meta and y_meta")
        raise FitError(in_python(text)) from error


def _takes_clean(config: RunConfig) -> bool:
    """Return whether a run does anything with clean examples."""
    asked = config.plant or config.meta_use == "both" or config.meta_size is not None or config.val_fold is not None
    components = {name: registry.find("component", name) for name in config.with_}
    return bool(asked) or uses_clean_examples(config, registry.find("method", config.method), components)


def _refuse_other_labels(y_meta: np.ndarray, classes: np.ndarray) -> None:
    """Refuse labels of clean examples that the training set has not."""
    labels = y_meta.tolist()
    if any(label is None or label != label for label in labels):
        raise UserError("y_meta has NaN: give every row of X_meta its label")
    is_text = isinstance(classes[0], str)
    if any(isinstance(label, str) != is_text for label in labels):
        kinds = ("numbers", "text") if is_text else ("text", "numbers")
        raise UserError("y_meta holds {}, y {}: give both the same kind of label".format(*kinds))
    unknown = np.setdiff1d(y_meta, classes)
    if len(unknown):
        raise UserError(f"y_meta has the label '{unknown[0]}', which y has not")


def _write_weights(path: Path, weights: np.ndarray) -> None:
    """Write what each row is to count, of mean 1: a step is as long as without weights."""
    if not (weights >= 0).all():
        raise UserError("sample_weight has negative weights")
    if not weights.any():
        raise UserError("sample_weight: every row has weight 0")
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "weight"), *enumerate((weights / weights.mean()).tolist())])
