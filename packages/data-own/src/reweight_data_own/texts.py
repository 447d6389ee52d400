"""Texts as rows of features: TF-IDF, or the hidden states of a given model; computed once and kept."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from reweight_core import FeatureRows, UserError, cache_folder, reason, total_memory, written_whole
from reweight_data_own.arrays import entries

FORMAT = 2

TEXTS = 32
"""Texts that a model gets at a time."""

LONGEST = 512
"""Tokens of a text at most, where neither tokenizer nor model say how many they take."""

_OF_A_MODEL = (".json", ".model", ".safetensors", ".txt")
"""Ends of the names of the files that a model and its tokenizer are read from."""

Transform = Callable[[Sequence[str]], Iterator[np.ndarray]]
"""Gives the features of texts, some rows (n, features) at a time."""


def transform_of(train: Sequence[str], model: str | None, columns: int) -> Transform:
    """Return what turns texts into features.

    Args:
        train: texts of the training set, to which TF-IDF is fitted.
        model: folder or name of a transformers model, or None for TF-IDF.
        columns: of TF-IDF, at most.

    Raises:
        UserError: if a library is missing, the model cannot be loaded, or the texts have no words.
    """
    return _tf_idf(train, columns) if model is None else _hidden_states(model)


def representation_of(train: Sequence[str], model: str | None, columns: int) -> str:
    """Say in words what turns texts into features, and digests of what that depends on (arguments as `transform_of`).

    Raises:
        UserError: if the model is neither in a folder nor among those that were loaded from the Hub.
    """
    if model is not None:
        return f"the hidden states of {_named(model)}"
    texts = hashlib.sha256()
    for text in train:
        texts.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return (
        f"TF-IDF of {len(train)} training texts ({texts.hexdigest()[:16]}), {columns} columns at most, by scikit-learn "
        f"{_version('scikit-learn')}"
    )


def features_of(parts: Mapping[str, Sequence[str]], model: str | None, columns: int) -> dict[str, FeatureRows]:
    """Return the features of the texts of each part, from the cache if they were computed before.

    Raises:
        UserError: as `transform_of`, or if TF-IDF would have more numbers than half of the memory holds.
    """
    path = cache_folder() / f"texts-{_digest(parts, model, columns)[:32]}.npy"
    needed = 4 * columns * sum(map(len, parts.values()))
    if model is None and needed > total_memory() / 2:
        raise UserError(f"--text-features {columns}: would take {needed / 2**30:.0f} GiB; give a smaller number")
    everything = [text for texts in parts.values() for text in texts]
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path, shared=True) as partial:
                _write(partial, transform_of(parts["train"], model, columns)(everything), len(everything))
        except OSError as error:
            warnings.warn(f"the features of the texts cannot be kept in {path.parent} ({error})", stacklevel=2)
    if path.is_file():
        rows = FeatureRows((entries(path)[""].rows(),))
    else:
        rows = FeatureRows((np.concatenate([*transform_of(parts["train"], model, columns)(everything)]),))
    found, start = {}, 0
    for part, texts in parts.items():
        found[part] = rows[start : start + len(texts)]
        start += len(texts)
    return found


def _write(path: Path, chunks: Iterator[np.ndarray], rows: int) -> None:
    first = next(chunks)
    array = open_memmap(path, "w+", np.float32, (rows, first.shape[1]))
    array[: len(first)], start = first, len(first)
    for chunk in chunks:
        array[start : start + len(chunk)] = chunk
        start += len(chunk)
    array.flush()


def _digest(parts: Mapping[str, Sequence[str]], model: str | None, columns: int) -> str:
    """Return a digest of what the features depend on."""
    made_by, version = (
        representation_of(parts["train"], model, columns),
        "" if model is None else _version("transformers"),
    )
    digest = hashlib.sha256(json.dumps([FORMAT, made_by, version]).encode())
    for part, texts in parts.items():
        digest.update(f"{part}\0{len(texts)}\0".encode())
        for text in texts:
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "none"


def _named(model: str) -> str:
    """Name a model by the contents of its files, wherever its folder is, or by its commit on the Hub."""
    if not Path(model).is_dir():
        return f"{model} ({_commit_of(model)})"
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(model).iterdir() if path.suffix in _OF_A_MODEL):
        with open(path, "rb") as file:
            digest.update(f"{path.name}\0".encode() + hashlib.file_digest(file, "sha256").digest())
    return f"a text model ({digest.hexdigest()[:16]})"


def _commit_of(model: str) -> str:
    try:
        from transformers.utils import cached_file
    except ImportError as error:
        raise _lacks_transformers(model, error) from error
    try:
        # a file of a commit lies in the folder of its name
        return Path(cached_file(model, "config.json")).parent.name
    except Exception as error:  # its loaders raise nearly anything
        raise UserError(f"--text-model {model}: cannot be loaded ({reason(error)})") from error


def _tf_idf(train: Sequence[str], columns: int) -> Transform:
    """Fit TF-IDF to texts; of more columns than wanted, truncated SVD keeps the directions of the largest variance."""
    try:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise UserError(f"TF-IDF needs scikit-learn: pip install 'reweight-data-own[datasets]' ({error})") from error
    vectorizer = TfidfVectorizer(sublinear_tf=True, dtype=np.float32)
    try:
        weights = vectorizer.fit_transform(train)
    except ValueError as error:
        raise UserError(f"TF-IDF of the training texts: {error}") from error
    reducer = TruncatedSVD(columns, random_state=0).fit(weights) if weights.shape[1] > columns else None

    def transform(texts: Sequence[str]) -> Iterator[np.ndarray]:
        for start in range(0, len(texts), 4096):
            some = vectorizer.transform(texts[start : start + 4096])
            rows = some.toarray() if reducer is None else reducer.transform(some)
            yield rows.astype(np.float32)

    return transform


def _lacks_transformers(model: str, error: ImportError) -> UserError:
    return UserError(
        f"--text-model {model}: needs transformers: pip install 'reweight-data-own[transformers]' ({error})"
    )


def _hidden_states(name: str) -> Transform:
    """Load a model and its tokenizer; a text's features are the mean of the last hidden states of its tokens."""
    try:
        import torch
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise _lacks_transformers(name, error) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        # weights in other formats are pickles, which could run code
        model: Any = AutoModel.from_pretrained(name, use_safetensors=True)
    except Exception as error:  # its loaders raise nearly anything
        raise UserError(f"--text-model {name}: cannot be loaded ({reason(error)})") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise UserError(f"--text-model {name}: its tokenizer has no token to pad with")
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).eval()
    longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", LONGEST))

    def transform(texts: Sequence[str]) -> Iterator[np.ndarray]:
        for start in range(0, len(texts), TEXTS):
            batch = tokenizer(
                list(texts[start : start + TEXTS]),
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            ).to(device)
            with torch.no_grad():
                states = model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"][:, :, None].float()
            yield ((states * mask).sum(1) / mask.sum(1).clamp(min=1)).cpu().numpy()

    return transform
