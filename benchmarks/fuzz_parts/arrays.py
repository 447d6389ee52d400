"""Features in .npy, .npz, .safetensors and Parquet files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from safetensors.numpy import save

from fuzz_parts.damage import damaged
from fuzz_parts.examine import OPENED, Command, Draw, Kind

TYPES = (*("f4",) * 24, "f8", "f8", "f2", "i4", "u1", ">f4", "?", "c8", "U3", "S3", "O", "M8[s]", "V4", "f4,f4")
LABEL_TYPES = (*("i8",) * 16, "U3", "U3", "U3", "O", "f4", "?", "u1", ">i4", "i1", "S3", "u8")
SHAPES = ((30, 3),) * 30 + ((12, 3), (0, 3), (30, 0), (30,), (), (30, 3, 1), (30, 4), (1, 3), (30, 2, 2))


class Opened:
    """What a pickle must never make: told by the file that it leaves."""

    def __reduce__(self) -> Any:
        return open, (OPENED, "w")


def array(draw: Draw, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Draw numbers of a type; now and then with one that cannot be used."""
    count = int(np.prod(shape))
    values = (np.arange(count) * 37 % 11 / 7).reshape(shape)
    if kind == "O":
        return np.array([Opened()] * max(1, count), dtype=object)[:count].reshape(shape)
    if kind in ("M8[s]", "V4", "f4,f4"):
        return np.zeros(shape, kind)
    found = values.astype(kind)
    if found.dtype.kind == "f" and count and draw(st.integers(0, 11)) == 0:
        found.flat[draw(st.integers(0, count - 1))] = draw(st.sampled_from((np.nan, np.inf, -np.inf, 6e4)))
    return np.asfortranarray(found) if draw(st.integers(0, 19)) == 0 else found


def labels(draw: Draw, count: int) -> np.ndarray:
    """Draw labels of two classes; now and then with one that cannot be used."""
    kind = draw(st.sampled_from(LABEL_TYPES))
    found = np.arange(count) % 2
    if kind == "O":
        return np.array([Opened()] * count, dtype=object)
    found = found.astype(kind)
    if count and draw(st.integers(0, 11)) == 0 and found.dtype.kind in "iuf":
        info = np.iinfo(found.dtype) if found.dtype.kind in "iu" else np.finfo(found.dtype)
        found[draw(st.integers(0, count - 1))] = draw(st.sampled_from((info.max, info.min, 100)))
    return found[:, None] if draw(st.integers(0, 19)) == 0 else found


def _npy(value: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def _parquet(x: np.ndarray, y: np.ndarray | None) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {f"c{i}": x[:, i].tolist() for i in range(x.shape[1])} if x.ndim == 2 else {"c": x.tolist()}
    file = io.BytesIO()
    pq.write_table(pa.table(columns | ({} if y is None else {"label": y.tolist()})), file)
    return file.getvalue()


def write(draw: Draw, folder: Path, part: str, suffix: str) -> None:
    """Draw one part of a dataset, its labels inside the file or beside it."""
    shape = draw(st.sampled_from(SHAPES))
    x = array(draw, shape, draw(st.sampled_from(TYPES)))
    y = labels(draw, draw(st.sampled_from((len(x) if x.ndim else 3,) * 12 + (0, 29))))
    beside = suffix == ".npy" or draw(st.integers(0, 4)) == 0
    file = io.BytesIO()
    try:
        if suffix == ".npy":
            content = _npy(x)
        elif suffix == ".npz":
            write_npz = draw(st.sampled_from((np.savez, np.savez_compressed)))
            # the stubs know of a keyword that is no array
            write_npz(file, **({"x": x} if beside else {"x": x, "label": y}))  # type: ignore[arg-type]
            content = file.getvalue()
        elif suffix == ".safetensors":
            content = save({"x": np.ascontiguousarray(x)} | ({} if beside else {"label": np.ascontiguousarray(y)}))
        else:
            content = _parquet(x, None if beside else y)
    except Exception:
        # numpy, safetensors and pyarrow each refuse some types in their own way; .npy takes them all
        content = _npy(x)
    if draw(st.integers(0, 4)) == 0:
        content = damaged(draw, content)
    (folder / f"{part}{suffix}").write_bytes(content)
    if beside and draw(st.integers(0, 19)):
        if draw(st.integers(0, 4)) == 0:
            text = "".join(f"{label}\n" for label in y.ravel())
            (folder / f"{part}_labels.txt").write_bytes(
                damaged(draw, text.encode()) if draw(st.booleans()) else text.encode()
            )
        else:
            content = _npy(y)
            (folder / f"{part}_labels.npy").write_bytes(
                damaged(draw, content) if draw(st.integers(0, 9)) == 0 else content
            )


def make(draw: Draw, folder: Path) -> list[Command]:
    """Write files of features, and draw what reads them."""
    (folder / "data").mkdir()
    suffix = draw(st.sampled_from((".npy", ".npz", ".safetensors", ".parquet")))
    write(draw, folder / "data", "train", suffix)
    more: tuple[str, ...] = ("--test-from", "split:0.3")
    if draw(st.integers(0, 2)) == 0:
        part = draw(st.sampled_from(("test", "test", "meta")))
        write(draw, folder / "data", part, draw(st.sampled_from((suffix,) * 5 + (".npy",))))
        more = () if part == "test" else more
    arguments = ["--data", "features", "--data-root", "data"]
    arguments += draw(st.sampled_from(((),) * 8 + (("--feature-column", "x"), ("--label-column", "label"))))
    train = ["train", *arguments, "--model", "linear", "--epochs", "1", "--out", "new", "--batch-size", "8", *more]
    return [Command(train), Command(["predict", "new", f"data/train{suffix}"], follows=True)]


ARRAYS = Kind("features (.npy, .npz, .safetensors, .parquet)", make)
