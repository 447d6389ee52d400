"""Arrays in .npy, .npz and .safetensors files: found by their headers, mapped where they lie, never unpickled."""

from __future__ import annotations

import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import attrs
import numpy as np
from safetensors import SafetensorError, safe_open

from reweight_core import MappedArray, UserError, total_memory

SUFFIXES = (".npy", ".npz", ".safetensors")

_TYPES = {
    **{f"{kind}{bits}": np.dtype(f"<{kind.lower()}{bits // 8}") for kind in "IU" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    "BOOL": np.dtype(bool),
}
"""Number types of safetensors."""

_LOCAL_HEADER, _NAME_LENGTH, _EXTRA_LENGTH = 30, 26, 28
"""Of a file in a zip archive: bytes before its name, and where its header has the lengths of name and extra field."""

_DAMAGES = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, OverflowError, SyntaxError, TokenError, SafetensorError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, NotImplementedError, RuntimeError),
)
"""What reading a damaged file raises.

`NotImplementedError` is zipfile's for a compression that it has not, `RuntimeError` its for an encrypted member.
"""


@attrs.frozen
class Entry:
    """An array in a file.

    Attributes:
        path: the file.
        name: of the array in it; empty where the file holds no other.
        dtype: type of its numbers or texts.
        shape: its shape.
        offset: bytes before its first number; None where it is compressed.
        problem: why it cannot be read; empty if it can.
    """

    path: Path
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int | None
    problem: str = ""

    @property
    def source(self) -> str:
        """Say where it is, for messages."""
        return f"{self.path}, {self.name}" if self.name else str(self.path)

    def rows(self) -> MappedArray | np.ndarray:
        """Return the numbers (rows, columns), mapped; in memory where they are compressed.

        Raises:
            UserError: if they are no features, or are compressed and too many for the memory.
        """
        self._refuse_unreadable()
        if len(self.shape) != 2:
            raise UserError(f"{self.source}: features must have two dimensions (rows, columns), not shape {self.shape}")
        if self.dtype.kind not in "fiu" or self.dtype.itemsize > 8:
            raise UserError(f"{self.source}: features must be numbers of at most 64 bits, not {self.dtype}")
        if 0 in self.shape:
            raise UserError(f"{self.source}: is empty, of shape {self.shape}")
        if self.offset is None:
            size = self.shape[0] * self.shape[1] * self.dtype.itemsize
            if size > total_memory() / 2:
                raise UserError(
                    f"{self.source}: is compressed, cannot be mapped and would take {size / 2**30:.0f} GiB of memory: "
                    "write it with np.save or np.savez, which do not compress"
                )
            return self.read()
        if not self.dtype.isnative:
            raise UserError(f"{self.source}: is in another machine's order of bytes ({self.dtype.str}): convert it")
        return MappedArray(self.path, self.dtype, (self.shape[0], self.shape[1]), self.offset)

    def read(self) -> np.ndarray:
        """Read the whole array into memory.

        Raises:
            UserError: if it cannot be read.
        """
        self._refuse_unreadable()
        if self.offset is None:
            try:
                with np.load(self.path, allow_pickle=False) as file:
                    whole: np.ndarray = file[self.name]
            except _DAMAGES as error:
                raise UserError(f"{self.source}: cannot be read ({error})") from error
            return whole.astype(self.dtype.newbyteorder("="), copy=False)
        count = int(np.prod(self.shape))
        return np.fromfile(self.path, self.dtype, count, offset=self.offset).reshape(self.shape)

    def _refuse_unreadable(self) -> None:
        if self.problem:
            raise UserError(f"{self.source}: {self.problem}")


def entries(path: Path) -> Mapping[str, Entry]:
    """Return the arrays of a file by name.

    Raises:
        UserError: if it cannot be read, or is cut off.
    """
    try:
        found = {".npy": _of_npy, ".npz": _of_npz, ".safetensors": _of_safetensors}[path.suffix](path)
        for entry in found.values():
            end = 0 if entry.offset is None else entry.offset + int(np.prod(entry.shape)) * entry.dtype.itemsize
            if not entry.problem and path.stat().st_size < end:
                raise UserError(f"{entry.source}: the file ends before its last number; was it written whole?")
    except _DAMAGES as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    return found


def _of_npy(path: Path) -> dict[str, Entry]:
    with open(path, "rb") as file:
        dtype, shape, problem = _header(file)
        return {"": Entry(path, "", dtype, shape, file.tell(), problem)}


def _of_npz(path: Path) -> dict[str, Entry]:
    found = {}
    with zipfile.ZipFile(path) as archive, open(path, "rb") as raw:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            offset = None
            if member.compress_type == zipfile.ZIP_STORED:
                raw.seek(member.header_offset)
                local = raw.read(_LOCAL_HEADER)
                lengths = (int.from_bytes(local[at : at + 2], "little") for at in (_NAME_LENGTH, _EXTRA_LENGTH))
                offset = member.header_offset + _LOCAL_HEADER + sum(lengths)
            with archive.open(member) as file:
                dtype, shape, problem = _header(file)
                start = None if offset is None else offset + file.tell()
                found[name] = Entry(path, name, dtype, shape, start, problem)
    return found


def _header(file: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], str]:
    """Read the header of an array as numpy writes it: type, shape, and why the array cannot be read, if so."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        return np.dtype(object), (), "is an array of records; save one array of numbers"
    shape, is_fortran, dtype = read(file)
    problem = ""
    if dtype.hasobject:
        problem = "holds Python objects, whose pickle could run code: save numbers or texts"
    elif is_fortran and len(shape) > 1:
        problem = "is stored by columns: save np.ascontiguousarray(x)"
    return dtype, shape, problem


def _of_safetensors(path: Path) -> dict[str, Entry]:
    # the library checks the file
    with safe_open(path, framework="numpy"):
        pass
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        dtype = _TYPES.get(entry["dtype"])
        problem = "" if dtype else f"numbers of type {entry['dtype']} are not read; save F16 or F32"
        start = 8 + length + entry["data_offsets"][0]
        found[name] = Entry(path, name, dtype or np.dtype(np.uint8), tuple(entry["shape"]), start, problem)
    return found
