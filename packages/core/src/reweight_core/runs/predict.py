"""Using a trained network: it with its preprocessing, and predictions for new examples."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torchvision.datasets.folder import IMG_EXTENSIONS

from reweight_core.data.features import read_table, read_values
from reweight_core.data.images import decode, find_images
from reweight_core.errors import UserError, reason
from reweight_core.files import written_whole
from reweight_core.machine.device import resolve_device
from reweight_core.machine.precision import products
from reweight_core.models.build import build_model
from reweight_core.plugins import registry
from reweight_core.plugins.blame import blamed
from reweight_core.runs.checkpoint import Final, Kept, Manifest, load_latest
from reweight_core.runs.new_examples import read_new

BATCH_SIZE = 256


class Classifier(nn.Module):
    """A trained network with its normalisation: uint8 images (N, channels, height, width) to logits (N, C).

    `read` gives it an image file: ``classifier(classifier.read("new.jpg")[None])``.

    A network that was trained on a table of features takes standardised rows (N, features, 1, 1), which `read_table`
    gives: ``rows, names = classifier.read_table("new.csv")``, then ``classifier(rows)``.

    Where the plugin of its dataset reads new examples, ``examples, names = classifier.read_new(path)`` lets it.

    Args:
        network: the network alone.
        manifest: what the checkpoint says of itself.
        run: folder of the run.

    Attributes:
        network: the network alone.
        classes: class names, by index.
        input_shape: channels, height, width of the images that it was trained on; (features, 1, 1) for features.
        features: the columns that it was trained on, or None if its data were images or features without names.
        manifest: what the checkpoint says of itself.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, manifest: Manifest, run: Path):
        super().__init__()
        self.network, self.manifest, self._run = network, manifest, run
        self.classes, self.input_shape, self.features = manifest.classes, manifest.input_shape, manifest.features
        self.register_buffer("mean", torch.tensor(manifest.mean, dtype=torch.float64)[:, None, None])
        self.register_buffer("std", torch.tensor(manifest.std, dtype=torch.float64)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        exact = torch.float64 if images.dtype == torch.float64 else torch.float32
        inputs = (images.to(exact) - self.mean.to(exact)) / self.std.to(exact)
        logits: Tensor = self.network(inputs.float())
        return logits

    @property
    def takes_features(self) -> bool:
        """Whether it was trained on features, not on images."""
        return self.input_shape[1:] == (1, 1)

    def read(self, path: str | Path) -> Tensor:
        """Read an image file as the run's training images were: uint8 (channels, height, width).

        Images of another size are resized to cover the training images' and cut around the centre.

        Raises:
            UserError: if it cannot be read, or if the network takes features.
        """
        if self.takes_features:
            raise self._refusal_of_image(path)
        channels, height, width = self.input_shape
        pixels, is_grey = decode(path, (height, width))
        if channels == 1:
            if not is_grey:
                # one text for all images, so that it is told once
                warnings.warn("the network was trained on grey images: it sees those in colour as grey", stacklevel=2)
            # the weights of ITU-R 601, as Pillow turns colour into grey
            pixels = np.rint(pixels @ [0.299, 0.587, 0.114])[:, :, None].astype(np.uint8)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def read_table(self, path: str | Path) -> tuple[Tensor, tuple[str, ...]]:
        """Read a CSV file of features as the run's training set was; other columns are ignored.

        Returns:
            The standardised rows, float32 (N, features, 1, 1), and a name for each: its ``id``, else FILE:LINE.

        Raises:
            UserError: if it cannot be read or lacks a feature, or if it is not known which features the network takes.
        """
        if not self.takes_features:
            raise UserError(f"{path}: the network was trained on images, not on features")
        if Path(path).suffix.lower() in IMG_EXTENSIONS:
            raise self._refusal_of_image(path)
        if self.features is None:
            raise UserError(
                f"{path}: cannot be predicted for: the dataset of the run has features without names, and its plugin "
                "does not read new examples (DataPlugin.read_new)"
            )
        table = read_table(Path(path))
        rows = self.features.standardise(read_values(table, self.features.names), table.path)
        names = [row.get("id") or f"{path}:{line}" for row, line in zip(table.rows, table.lines, strict=True)]
        return torch.from_numpy(rows), tuple(names)

    def read_new(self, path: str | Path) -> tuple[Tensor, tuple[str, ...]]:
        """Let the plugin of the run's dataset read examples.

        Returns:
            The examples, uint8, float32 or float64 (N, channels, height, width), and a name for each.

        Raises:
            UserError: if it does not read new examples, is not installed, or cannot read these.
        """
        examples, names = read_new(self._run, self.manifest, Path(path))
        return torch.from_numpy(examples), names

    def _refusal_of_image(self, path: str | Path) -> UserError:
        return UserError(f"{path}: the network was trained on {self.input_shape[0]} features, not on images")


def load(run: Path | str, device: str = "auto", network: Kept = "final") -> Classifier:
    """Load a network of the newest checkpoint of a run, in eval mode; the data of the run are not needed.

    Args:
        run: the run's folder.
        device: where to put it (see ``--device``).
        network: ``final`` for what the run ends with: the network after the last epoch, with ``--patience`` the best
            one, or what a plugin made of it; ``best`` for the network as it was best on the validation set.

    Raises:
        UserError: if the folder holds no whole checkpoint, if its network cannot be built here, or if there was no
            validation set.
    """
    folder = Path(run)
    checkpoint = load_latest(folder / "checkpoints")
    manifest = checkpoint.manifest
    built = build_model(manifest.model, manifest.input_shape, len(manifest.classes), manifest.head)
    weights = checkpoint.best if manifest.is_best(network) else checkpoint.model
    if weights is None:
        why = "the run had no validation set" if manifest.history else "no epoch is finished yet"
        raise UserError(f"{folder}: --network best: there is none, because {why}")
    try:
        if network == "final" and manifest.final is not None and checkpoint.final is not None:
            weights, built = checkpoint.final, build_final(manifest.final, built)
        built.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{folder}: the checkpoint does not fit model '{manifest.model}' ({reason(error)})") from error
    return Classifier(built, manifest, folder).to(resolve_device(device)).eval()


def build_final(final: Final, network: nn.Module) -> nn.Module:
    """Build a network of the structure that a plugin gave a run's last one, without its weights.

    Args:
        final: the plugin.
        network: a network of the run's own structure.

    Raises:
        UserError: if the plugin is not installed, or cannot.
    """
    record = registry.find(final.kind, final.name)
    make = getattr(record, "final_network", None)
    if make is None:
        return network
    with blamed(f"{final.kind} '{final.name}'", "final_network", getattr(make, "__module__", "")):
        built: nn.Module = make(network)
    return built


@attrs.frozen(eq=False)
class Predictions:
    """What a network says of some examples.

    Attributes:
        what: what the names are: ``path``, ``row`` or ``example``.
        names: the image files, names of the rows of a table, or those that the dataset's plugin gave.
        classes: class names, by index.
        probabilities: float32 (N, C).
    """

    what: str
    names: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: np.ndarray

    def as_json(self) -> list[dict[str, Any]]:
        """Return an object for each example: its name, the predicted class, and the probability of every class."""
        return [
            {
                self.what: name,
                "predicted": self.classes[row.argmax()],
                "probability": float(row.max()),
                "probabilities": dict(zip(self.classes, row.tolist(), strict=True)),
            }
            for name, row in zip(self.names, self.probabilities, strict=True)
        ]

    def write_csv(self, path: Path) -> None:
        """Write a line for each example: name, predicted class, its probability, and the probability of every class.

        Raises:
            UserError: if the file cannot be written; an older one then stays as it was.
        """
        try:
            with written_whole(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow([self.what, "predicted", "probability", *(f"p({name})" for name in self.classes)])
                for name, row in zip(self.names, self.probabilities, strict=True):
                    best = int(row.argmax())
                    writer.writerow([name, self.classes[best], f"{row[best]:.6f}", *(f"{p:.6f}" for p in row)])
        except OSError as error:
            raise UserError(f"--csv {path}: {error}") from error


@torch.no_grad()
def predict(
    classifier: Classifier, paths: Sequence[Path], progress: Callable[[int, int], object] = lambda done, total: None
) -> Predictions:
    """Classify new examples.

    Args:
        classifier: what `load` returned.
        paths: images and folders of images; CSV files for a network that takes features; whatever the plugin of the
            dataset reads, where it does.
        progress: called with the number of examples that are done, and of all, after each batch.

    Raises:
        UserError: if a file cannot be read.
    """
    batches: Iterable[Tensor]
    if classifier.manifest.reader is not None:
        what, read = "example", [classifier.read_new(path) for path in paths]
        names = tuple(name for _, names_of_path in read for name in names_of_path)
        batches = (batch for examples, _ in read for batch in examples.split(BATCH_SIZE))
    elif classifier.takes_features:
        what = "row"
        tables = [classifier.read_table(path) for path in paths]
        names = tuple(name for _, names_of_table in tables for name in names_of_table)
        batches = torch.cat([rows for rows, _ in tables]).split(BATCH_SIZE)
    else:
        what = "path"
        images = find_images(paths)
        names = tuple(map(str, images))
        batches = (
            torch.stack([classifier.read(path) for path in images[start : start + BATCH_SIZE]])
            for start in range(0, len(images), BATCH_SIZE)
        )
    done, probabilities = 0, []
    with products("fp32"):
        for batch in batches:
            probabilities.append(classifier(batch.to(classifier.mean.device)).softmax(1).cpu().numpy())
            done += len(batch)
            progress(done, len(names))
    return Predictions(what, names, classifier.classes, np.concatenate(probabilities))
