"""Options of the datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from reweight_core import option


@attrs.frozen
class LabelOptions:
    """What the labels are called."""

    label_column: str | None = option(
        None, "Column or array of the labels that training sees; default: label, labels or y, whichever there is."
    )
    true_label_column: str | None = option(
        None, "Column or array of the true labels, to judge by; default: true_label or true_labels, if there is one."
    )


@attrs.frozen
class FeaturesOptions(LabelOptions):
    """Where arrays or tables of features are."""

    data_root: Path | None = option(
        None,
        "Folder with train.npy, .npz, .safetensors or .parquet, and optionally test and meta (clean examples); labels "
        "inside, or beside as train_labels.npy or .txt.",
    )
    feature_column: tuple[str, ...] = option(
        (),
        "Column or array of the features; may be given several times for columns of Parquet. Default: all columns "
        "but labels and id, or the only array of two dimensions.",
    )


@attrs.frozen
class HfOptions(LabelOptions):
    """Which Hugging Face dataset, and what of it."""

    hf_name: str | None = option(None, "Folder of a dataset (save_to_disk), or its name on the Hugging Face Hub.")
    hf_config: str | None = option(None, "Configuration of a dataset that has several.")
    hf_train: str = option("train", "Split that is trained on.")
    hf_test: str | None = option(None, "Split that is tested on; default: test, if there is one.")
    hf_meta: str | None = option(None, "Split of clean examples; default: meta, if there is one.")
    input_column: str | None = option(None, "Column of the images or texts; default: the only one there is.")
    image_size: int | None = option(
        None,
        "Resize the shorter side of every image to N pixels and keep the central N x N; "
        "default: images stay as they are and must all have one size.",
        check=attrs.validators.gt(0),
    )
    stream: Literal["auto", "on", "off"] = option(
        "auto",
        "Decode images while training instead of keeping all in memory: on, off, or auto: on if they would take more "
        "than half of it. Needs --image-size.",
    )
    text_model: str | None = option(
        None,
        "Folder or name of a transformers model whose hidden states, averaged over each text, are the features; "
        "default: TF-IDF.",
    )
    text_features: int = option(
        300, "Columns that TF-IDF is reduced to, by truncated SVD.", check=attrs.validators.ge(2)
    )

    def __attrs_post_init__(self) -> None:
        # a folder's name must mean the same in any folder, and not be taken for a name on the Hub there
        for name in ("hf_name", "text_model"):
            given = getattr(self, name)
            if given is not None and Path(given).is_dir():
                object.__setattr__(self, name, str(Path(given).absolute()))
