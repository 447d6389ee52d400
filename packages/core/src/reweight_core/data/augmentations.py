"""The names of the augmentations."""

from typing import Literal

Augmentation = Literal["none", "crop", "flip", "crop-flip", "resized-crop"]
"""Random changes of training and meta images; ``resized-crop`` is for images that are read while training."""
