"""Many image files as one array: decoded once, in parallel, and then read from a cache; or read while training."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from reweight_core import ImageFiles, UserError, cache_folder, decode, total_memory, written_whole
from reweight_data_noisy.options import ImageOptions

CHUNK = 256
"""Images that a worker reads at a stretch at most: handing over a task costs about as much as a small image."""

CHUNK_BYTES = 2**24
"""Decoded bytes that a worker reads at a stretch at most, but for a single image."""

MANY = 2000
"""Images from which processes are worth their start. Threads wait for Python's lock while they decode small images."""

FORMAT = 2


def open_images(root: Path, names: Sequence[str], options: ImageOptions) -> np.ndarray | ImageFiles:
    """Return the images as an array (`read_images`), or as files to be read while training.

    Raises:
        UserError: as `read_images`, if an image alone is too large for the memory, or if images are to be read while
            training and no size is given.
    """
    if options.image_size is not None and 3 * options.image_size**2 * np.float32().nbytes > total_memory() / 2:
        raise UserError(f"--image-size {options.image_size}: one image would take more than half of the memory")
    if options.stream == "off" or (options.stream == "auto" and not _is_too_much(root, names, options.image_size)):
        return read_images(root, names, options.image_size, options.cache)
    if options.image_size is None:
        raise UserError("--stream: images that are read while training are brought to one size; give --image-size N")
    return ImageFiles(root, np.array(names, dtype=object), options.image_size)


def _is_too_much(root: Path, names: Sequence[str], image_size: int | None) -> bool:
    """Whether the decoded images would take more than half of the memory; says so."""
    of_one = decode(root / names[0], None)[0].nbytes if image_size is None else 3 * image_size**2
    needed, memory = len(names) * of_one, total_memory()
    if needed <= memory / 2:
        return False
    warnings.warn(
        f"{root}: the decoded images would take {needed / 2**30:.0f} of {memory / 2**30:.0f} GiB of memory and are "
        "read while training instead (--stream on)",
        stacklevel=3,
    )
    return True


def read_images(root: Path, names: Sequence[str], image_size: int | None, cached: bool) -> np.ndarray:
    """Return images of one size, uint8 (N, 3, H, W), or (N, 1, H, W) if all are grey.

    Args:
        root: the folder that the names are relative to.
        names: paths of the files, at least one.
        image_size: side to bring the images to, or None to leave them as they are.
        cached: whether to keep the array, and to read it back as long as no file was added, removed or changed.

    Raises:
        UserError: if an image cannot be read, or if sizes differ.
    """
    if not cached:
        return _decode_all(root, names, image_size)
    state = _state(root, names, image_size)
    path = cache_folder() / f"{_digest([str(root.absolute()), image_size])[:32]}.safetensors"
    images = _load(path, state)
    if images is None:
        images = _decode_all(root, names, image_size)
        _save(path, images, state)
    return images


def _decode_all(root: Path, names: Sequence[str], image_size: int | None) -> np.ndarray:
    size = None if image_size is None else (image_size, image_size)
    height, width, _ = decode(f"{root}/{names[0]}", size)[0].shape
    images = np.empty((len(names), 3, height, width), dtype=np.uint8)
    all_grey = True
    chunk = max(1, min(CHUNK, CHUNK_BYTES // images[0].nbytes))
    starts = range(0, len(names), chunk)
    read = partial(_decode_some, str(root), names[0], (height, width), size)
    try:
        with _workers(len(names)) as pool:
            parts = pool.map(read, (names[i : i + chunk] for i in starts))
            for start, (pixels, grey) in zip(starts, parts, strict=True):
                images[start : start + len(pixels)] = pixels
                all_grey = all_grey and grey
    except BrokenProcessPool as error:
        raise UserError(f"{root}: a process that decodes images was killed; is memory full?") from error
    return np.ascontiguousarray(images[:, :1]) if all_grey else images


def _decode_some(
    root: str, first: str, expected: tuple[int, int], size: tuple[int, int] | None, names: Sequence[str]
) -> tuple[np.ndarray, bool]:
    images = np.empty((len(names), 3, *expected), dtype=np.uint8)
    all_grey = True
    for image, name in zip(images, names, strict=True):
        pixels, grey = decode(f"{root}/{name}", size)
        if pixels.shape[:2] != expected:
            raise UserError(
                f"{root}/{name}: is {pixels.shape[1]} x {pixels.shape[0]} pixels, but {root}/{first} "
                f"is {expected[1]} x {expected[0]}; give --image-size N to bring all images to N x N"
            )
        image[:] = pixels.transpose(2, 0, 1)
        all_grey = all_grey and grey
    return images, all_grey


def _workers(images: int) -> Executor:
    if images >= MANY and sys.platform == "linux":
        # forked like a DataLoader's workers: a spawned process would run the user's script again
        return ProcessPoolExecutor(len(os.sched_getaffinity(0)), multiprocessing.get_context("fork"))
    return ThreadPoolExecutor(os.cpu_count())


def _state(root: Path, names: Sequence[str], image_size: int | None) -> str:
    """Return a digest of what the array depends on: which files they are, their sizes and times of change."""
    try:
        stats = [os.stat(f"{root}/{name}") for name in names]
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
    files = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in zip(names, stats, strict=True)]
    return _digest([FORMAT, image_size, files])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _load(path: Path, state: str) -> np.ndarray | None:
    """Return the cached array if it is of this state."""
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("state") != state:
                return None
            images: np.ndarray = file.get_tensor("images")
            return images
    except (OSError, SafetensorError):
        return None


def _save(path: Path, images: np.ndarray, state: str) -> None:
    """Keep the array: all of it or nothing, and a warning if it cannot be kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path, shared=True) as partial:
            save_file({"images": images}, partial, {"state": state})
    except (OSError, SafetensorError) as error:
        warnings.warn(f"the decoded images cannot be kept in {path.parent} ({error})", stacklevel=2)
