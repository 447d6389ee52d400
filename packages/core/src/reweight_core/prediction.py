"""Using a trained network: it with its preprocessing, and predictions for image files."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from reweight_core.checkpoint import load_latest
from reweight_core.devices import resolve_device
from reweight_core.errors import UserError, reason
from reweight_core.files import flush
from reweight_core.images import decode
from reweight_core.models.build import build_model

BATCH_SIZE = 256


class Classifier(nn.Module):
    """A trained network with its normalisation: uint8 images (N, channels, height, width) to logits (N, C).

    Attributes:
        network: the network alone.
        classes: class names, by index.
        input_shape: channels, height, width of the images that it was trained on.
        manifest: what the checkpoint says of itself.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, manifest: Mapping[str, Any]):
        super().__init__()
        self.network, self.manifest = network, manifest
        self.classes, self.input_shape = tuple(manifest["classes"]), tuple(manifest["input_shape"])
        self.register_buffer("mean", torch.tensor(manifest["mean"])[:, None, None])
        self.register_buffer("std", torch.tensor(manifest["std"])[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.network((images.to(self.mean.dtype) - self.mean) / self.std)
        return logits

    def read(self, path: str | Path) -> Tensor:
        """Read an image file as the run's training images were: uint8 (channels, height, width).

        Images of another size are resized to cover the training images' and cut around the centre.

        Raises:
            UserError: if it cannot be read.
        """
        channels, height, width = self.input_shape
        if (height, width) == (1, 1):
            raise UserError(f"{path}: the network was trained on {channels} features, not on images")
        pixels, _ = decode(path, (height, width))
        if channels == 1:
            # the weights of ITU-R 601, as Pillow turns colour into grey
            pixels = np.rint(pixels @ [0.299, 0.587, 0.114])[:, :, None].astype(np.uint8)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


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
    network = build_model(manifest["model"], tuple(manifest["input_shape"]), len(manifest["classes"]))
    try:
        network.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        raise UserError(
            f"{folder}: the checkpoint does not fit model '{manifest['model']}' ({reason(error)})"
        ) from error
    return Classifier(network, manifest).to(resolve_device(device)).eval()


@attrs.frozen(eq=False)
class Predictions:
    """What a network says of some images.

    Attributes:
        paths: the files.
        classes: class names, by index.
        probabilities: float32 (N, C).
    """

    paths: tuple[Path, ...]
    classes: tuple[str, ...]
    probabilities: np.ndarray

    def write_csv(self, path: Path) -> None:
        """Write a line for each image: path, predicted class, its probability, and the probability of every class.

        Raises:
            UserError: if the file cannot be written; an older one then stays as it was.
        """
        partial = path.with_name(path.name + ".partial")
        try:
            with open(partial, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["path", "predicted", "probability", *(f"p({name})" for name in self.classes)])
                for image, row in zip(self.paths, self.probabilities, strict=True):
                    best = int(row.argmax())
                    writer.writerow([image, self.classes[best], f"{row[best]:.6f}", *(f"{p:.6f}" for p in row)])
            flush(partial)
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise UserError(f"--csv {path}: {error}") from error


@torch.no_grad()
def predict(
    classifier: Classifier, paths: Sequence[Path], progress: Callable[[int], object] = lambda done: None
) -> Predictions:
    """Classify image files.

    Args:
        classifier: what `load` returned.
        paths: the files.
        progress: called with the number of images that are done, after each batch.

    Raises:
        UserError: if an image cannot be read.
    """
    device = classifier.mean.device
    rows = []
    for start in range(0, len(paths), BATCH_SIZE):
        images = torch.stack([classifier.read(path) for path in paths[start : start + BATCH_SIZE]])
        rows.append(classifier(images.to(device)).softmax(1).cpu().numpy())
        progress(min(start + BATCH_SIZE, len(paths)))
    return Predictions(tuple(paths), classifier.classes, np.concatenate(rows))
