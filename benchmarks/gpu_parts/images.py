"""The images to train on: class folders below train/ and test/, in a folder, a tar or a zip file."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import click


def image_folder(given: Path, work: Path) -> Path:
    """Return the folder that holds ``train`` and ``test``, unpacked once below `work` if it is a file.

    Raises:
        click.ClickException: if it cannot be unpacked, would write outside its folder, or holds no such folders.
    """
    if given.is_dir():
        return _root(given, given)
    unpacked = work / "images"
    if not unpacked.exists():
        partial = work / "images.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            _unpack(given, partial)
        except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise click.ClickException(f"--data {given}: cannot be unpacked ({error})") from error
        partial.rename(unpacked)
    return _root(unpacked, given)


def _unpack(file: Path, folder: Path) -> None:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            # leaves out what leads elsewhere
            archive.extractall(folder)
        return
    with tarfile.open(file) as archive:
        # refuses links and paths that lead elsewhere
        archive.extractall(folder, filter="data")


def _root(folder: Path, given: Path) -> Path:
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if all((place / part).is_dir() for part in ("train", "test")):
            return place
    raise click.ClickException(f"--data {given}: holds no folders train and test")


def make_tiny(file: Path) -> Path:
    """Write a tar file of random images of two classes."""
    import numpy as np
    from PIL import Image

    rng, folder = np.random.RandomState(0), file.parent / "tiny-images"
    for part, count in (("train", 20), ("test", 4)):
        for name in ("bright", "dark"):
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.randint(0, 160, (8, 8, 3)) + (90 if name == "bright" else 0)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / part / name / f"{i}.png")
    with tarfile.open(file, "w") as archive:
        archive.add(folder, "tiny")
    return file
