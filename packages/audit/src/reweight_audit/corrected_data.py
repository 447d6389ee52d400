"""Writing corrected data: a table, or a folder of images, with the meta and the test set of the run beside it."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import attrs
import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image

from reweight_audit.audited_run import TABLES, AuditedRun
from reweight_audit.corrections import DROPPED
from reweight_core import FeatureRows, ImageFiles, Split, UserError, read_table


def write_corrected(run: AuditedRun, labels: np.ndarray, out: Path) -> str:
    """Write the data of a run with corrected labels to a new folder.

    Data of ``--data csv`` become tables with the same columns, their images beside them; features of other datasets
    become a table, or arrays if they are stored rows, and images class folders: the files themselves, or, of datasets
    that are no files, as PNG. The meta
    and the test set of the run are written too, so that a training with the new data has the same ones; validation
    examples are back in the training set.

    Args:
        run: the audited run.
        labels: of its training examples, `DROPPED` for those that are left out, int64 (N,).
        out: the folder, which must not exist or be empty.

    Returns:
        The options of ``reweight train`` that read it.

    Raises:
        UserError: if the folder is taken or cannot be written.
    """
    refuse_taken(out)
    parts = _parts(run, labels)
    out = out.absolute()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # beside its place first, so that what is found there is whole
        partial = Path(tempfile.mkdtemp(prefix=f"{out.name}.", dir=out.parent))
    except OSError as error:
        raise UserError(f"--out {out}: {error}") from error
    is_table, is_rows = run.config.data == TABLES, isinstance(run.data.train.images, FeatureRows)
    try:
        if is_table:
            _write_tables(run, parts, partial)
        elif is_rows:
            _write_rows(run, parts, partial)
        elif run.data.dataset.features is not None:
            _write_features(run, parts, partial)
        else:
            _write_images(run, parts, partial)
        partial.chmod(0o777 & ~_umask())
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise UserError(f"--out {out}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    is_table = is_table or run.data.dataset.features is not None
    kind = "csv" if is_table else "features" if is_rows else "folder"
    return f"--data {kind} --data-root {shlex.quote(str(out))}"


def refuse_taken(out: Path) -> None:
    """Raise `UserError` if a folder cannot be a new one."""
    try:
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from error
    if taken:
        raise UserError(f"--out {out}: exists and is not empty; give a new folder")


def _umask() -> int:
    """Return the process's mask of permissions, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _parts(run: AuditedRun, labels: np.ndarray) -> dict[str, Split]:
    data = run.data
    labels = labels[: len(data.train)]
    kept = np.flatnonzero(labels != DROPPED)
    parts = {"train": attrs.evolve(data.train.take(kept), labels=labels[kept])}
    if data.val is not None:
        parts["train"] = parts["train"].followed_by(data.val)
    if data.meta is not None:
        parts["meta"] = data.meta
    if data.test is not None:
        parts["test"] = data.test
    return parts


def _write_tables(run: AuditedRun, parts: Mapping[str, Split], out: Path) -> None:
    """Write the rows of each part as they were read, with its labels."""
    root, dataset = Path(run.config.data_options.data_root), run.data.dataset
    found = {"train": dataset.train, "meta": dataset.meta, "test": dataset.test}
    row_of: dict[str, dict[str, str]] = {}
    columns: dict[str, tuple[str, ...]] = {}
    for part, split in found.items():
        if split is not None:
            table = read_table(root / f"{part}.csv")
            columns[part] = table.columns
            row_of |= zip(split.names or (), table.rows, strict=True)
    for part, split in parts.items():
        with open(out / f"{part}.csv", "w", newline="", encoding="utf-8") as file:
            # what was taken out of the training set has its columns
            writer = csv.DictWriter(file, columns.get(part, columns["train"]), extrasaction="ignore")
            writer.writeheader()
            for name, label in zip(split.names or (), split.labels, strict=True):
                row = row_of[name]
                writer.writerow({**row, "label": dataset.classes[label]})
                if "file" in row:
                    target = out / PurePosixPath(row["file"])
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(root / PurePosixPath(row["file"]), target)


def _write_features(run: AuditedRun, parts: Mapping[str, Split], out: Path) -> None:
    """Write features in their own units."""
    features, classes = run.data.dataset.features, run.data.dataset.classes
    assert features is not None, "else they are images"
    for part, split in parts.items():
        assert isinstance(split.images, np.ndarray), "features are in memory"
        values = split.images.reshape(len(split), -1) * np.array(features.std) + np.array(features.mean)
        with open(out / f"{part}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["label", *features.names])
            for row, label in zip(values.tolist(), split.labels, strict=True):
                writer.writerow([classes[label], *row])


def _write_rows(run: AuditedRun, parts: Mapping[str, Split], out: Path) -> None:
    """Write rows as they are stored, some at a time, and the names of their classes beside them."""
    names = np.array(run.data.dataset.classes)
    for part, split in parts.items():
        rows = split.images
        assert isinstance(rows, FeatureRows), "all splits are of one kind"
        np.save(out / f"{part}_labels.npy", names[split.labels])
        array, start = open_memmap(out / f"{part}.npy", "w+", rows.dtype, rows.shape[:2]), 0
        for chunk in rows.chunks():
            array[start : start + len(chunk)] = chunk
            start += len(chunk)
        array.flush()


def _write_images(run: AuditedRun, parts: Mapping[str, Split], out: Path) -> None:
    """Write a folder for each part and class."""
    root, classes = getattr(run.config.data_options, "data_root", None), run.data.dataset.classes
    for name in classes:
        if PurePosixPath(name).name != name or name.startswith("."):
            raise UserError(f"class '{name}' cannot be the name of a folder; write --weights instead")
    for part, split in parts.items():
        for name in classes:
            (out / part / name).mkdir(parents=True)
        for i, label in enumerate(split.labels):
            source = _source(split, i, root)
            target = _free(out / part / classes[label] / (f"{i:06d}.png" if source is None else source.name))
            if source is not None:
                shutil.copyfile(source, target)
            else:
                images = split.images
                pixels = (images[i] if isinstance(images, np.ndarray) else images.read(np.array([i]))[0]).transpose(
                    1, 2, 0
                )
                Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(target)


def _free(path: Path) -> Path:
    """Return a path that is not taken: files of two classes may have one name."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def _source(split: Split, i: int, root: Path | None) -> Path | None:
    """Return the file that an image is from, if there is one."""
    if isinstance(split.images, ImageFiles):
        return split.images.root / split.images.names[i]
    if root is None or split.names is None or not (root / split.names[i]).is_file():
        return None
    return root / split.names[i]
