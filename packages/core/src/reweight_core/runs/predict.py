"""Using a trained network: it with its preprocessing, and predictions for image files or tables of features."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

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
from reweight_core.runs.checkpoint import Manifest, load_latest

BATCH_SIZE = 256


class Classifier(nn.Module):
    """A trained network with its normalisation: uint8 images (N, channels, height, width) to logits (N, C).

    `read` gives it an image file: ``classifier(classifier.read("new.jpg")[None])``.

    A network that was trained on a table of features takes standardised rows (N, features, 1, 1), which `read_table`
    gives: ``rows, names = classifier.read_table("new.csv")``, then ``classifier(rows)``.

    Attributes:
        network: the network alone.
        classes: class names, by index.
        input_shape: channels, height, width of the images that it was trained on; (features, 1, 1) for features.
        features: the columns that it was trained on, or None if its data were images or features without names.
        manifest: what the checkpoint says of itself.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, manifest: Manifest):
        super().__init__()
        self.network, self.manifest = network, manifest
        self.classes, self.input_shape, self.features = manifest.classes, manifest.input_shape, manifest.features
        self.register_buffer("mean", torch.tensor(manifest.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(manifest.std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.network((images.to(self.mean.dtype) - self.mean) / self.std)
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
        pixels, _ = decode(path, (height, width))
        if channels == 1:
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
                f"{path}: cannot be predicted for: the dataset of the run does not say what its features are called"
            )
        table = read_table(Path(path))
        rows = self.features.standardise(read_values(table, self.features.names), table.path)
        names = [row.get("id") or f"{path}:{line}" for row, line in zip(table.rows, table.lines, strict=True)]
        return torch.from_numpy(rows), tuple(names)

    def _refusal_of_image(self, path: str | Path) -> UserError:
        return UserError(f"{path}: the network was trained on {self.input_shape[0]} features, not on images")


def load(run: Path | str, device: str = "auto") -> Classifier:
    """Load the newest checkpoint of a run, in eval mode; the data of the run are not needed.

    Args:
        run: the run's folder.
        device: where to put it (see ``--device``).

    Raises:
        UserError: if the folder holds no whole checkpoint, or its network cannot be built here.
    """
    folder = Path(run)
    checkpoint = load_latest(folder / "checkpoints")
    manifest = checkpoint.manifest
    network = build_model(manifest.model, manifest.input_shape, len(manifest.classes), manifest.head)
    try:
        network.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        raise UserError(f"{folder}: the checkpoint does not fit model '{manifest.model}' ({reason(error)})") from error
    return Classifier(network, manifest).to(resolve_device(device)).eval()


@attrs.frozen(eq=False)
class Predictions:
    """What a network says of some examples.

    Attributes:
        what: what the names are: ``path`` or ``row``.
        names: the image files, or names of the rows of a table.
        classes: class names, by index.
        probabilities: float32 (N, C).
    """

    what: str
    names: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: np.ndarray

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
    """Classify image files, or rows of features.

    Args:
        classifier: what `load` returned.
        paths: images and folders of images; CSV files for a network that takes features.
        progress: called with the number of examples that are done, and of all, after each batch.

    Raises:
        UserError: if a file cannot be read.
    """
    batches: Iterable[Tensor]
    if classifier.takes_features:
        tables = [classifier.read_table(path) for path in paths]
        names = tuple(name for _, names_of_table in tables for name in names_of_table)
        batches = torch.cat([rows for rows, _ in tables]).split(BATCH_SIZE)
    else:
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
    what = "row" if classifier.takes_features else "path"
    return Predictions(what, names, classifier.classes, np.concatenate(probabilities))
