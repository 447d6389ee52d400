"""A kind of label noise in use, with its plugin's mistakes found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np

from reweight_core.errors import PluginError
from reweight_core.plugins.blame import blamed


@attrs.frozen
class Noise:
    """Corrupts labels, and checks what its plugin made of them.

    Attributes:
        name: the plugin's name.
        corrupt: what the plugin built.
        needs_images: whether it wants the images too.
        needs_mask: whether it wants the mask of the examples too.
    """

    name: str
    corrupt: Callable[..., Any]
    needs_images: bool = False
    needs_mask: bool = False

    def __call__(self, labels: np.ndarray, num_classes: int, rng: np.random.RandomState, *further: np.ndarray) -> Any:
        """Return the noisy labels.

        Args:
            labels: int64 (N,).
            num_classes: number of classes C.
            rng: source of all draws.
            further: the images, or the mask, or both, if the plugin needs them.

        Raises:
            PluginError: if the plugin fails, or returns something else than N labels in 0..C-1.
        """
        count = len(labels)
        with blamed(f"noise '{self.name}'", "corrupt", getattr(self.corrupt, "__module__", "")):
            noisy = self.corrupt(labels, num_classes, rng, *further)
        if not isinstance(noisy, np.ndarray):
            found = "None (a forgotten return?)" if noisy is None else type(noisy).__name__
        elif noisy.dtype != np.int64 or noisy.shape != (count,):
            found = f"{noisy.dtype} of shape {noisy.shape}"
        elif count and not 0 <= noisy.min() <= noisy.max() < num_classes:
            found = f"labels from {noisy.min()} to {noisy.max()}"
        else:
            return noisy
        raise PluginError(
            f"noise '{self.name}': returned {found}; it must return int64 labels of shape ({count},) in "
            f"0..{num_classes - 1}: report it to the plugin's author"
        )
