"""Folders of images, and lists of image files."""

from __future__ import annotations

import io
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from fuzz_parts.damage import damaged
from fuzz_parts.examine import Command, Draw, Kind
from fuzz_parts.kept_runs import kept_run

NAMES = (
    *(
        "1.png",
        "2.png",
        "3.jpg",
        "4.PNG",
        "a b.png",
        "\u00fc.png",
        "a\nb.png",
        "=x.png",
        "<script>.png",
        "x" * 240 + ".png",
    ),
    *(
        ".hidden.png",
        "text.txt",
        "5.heic",
        "6.gif",
        "7.webp",
        "8.bmp",
        "\udcff.png",
        "-1.png",
        '".png',
        "9.tiff",
        "[bold].png",
        "10.ppm",
    ),
)
CLASSES = (
    "cat",
    "dog",
    "Cat",
    "c a t",
    "\u00fc",
    "a\nb",
    "<img src=x onerror=alert(1)>",
    "-x",
    ".hidden",
    "x" * 250,
    "\udcff",
    "=cmd",
    "[red]",
    "\x1b[31m",
)
MODES = ("RGB", "RGB", "RGB", "L", "RGBA", "P", "1", "I;16", "I", "F", "CMYK", "LA")


def promise(width: int, height: int) -> bytes:
    """Return a PNG file whose header promises many pixels, and that has none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def image(draw: Draw, suffix: str) -> bytes:
    """Draw an image file, now and then damaged, or none at all."""
    what = draw(
        st.sampled_from(("image",) * 60 + ("damaged", "damaged", "damaged", "empty", "text", "promise", "other"))
    )
    if what in ("empty", "text"):
        return b"" if what == "empty" else b"no image\n"
    if what == "promise":
        return promise(
            *draw(st.sampled_from(((20_000, 20_000), (2**31 - 1, 1), (65_535, 65_535), (0, 0), (12_000, 12_000))))
        )
    size = draw(st.sampled_from(((8, 8),) * 60 + ((1, 1), (9, 8), (1, 300))))
    mode = draw(st.sampled_from(MODES)) if what == "other" else "RGB"
    pixels = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size[1], size[0])
    made = Image.fromarray(pixels).convert("RGB")
    file = io.BytesIO()
    try:
        made.convert(mode).save(
            file, format={".jpg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}.get(suffix.lower(), "PNG")
        )
    except (OSError, ValueError):
        made.save(file, format="PNG")
    return damaged(draw, file.getvalue()) if what == "damaged" else file.getvalue()


def write_class(draw: Draw, folder: Path) -> None:
    """Draw the folder of a class, or what stands in its place."""
    what = draw(st.sampled_from(("images",) * 40 + ("empty", "file", "loop", "up", "broken", "deep")))
    if what == "file":
        folder.write_bytes(b"a file")
        return
    if what in ("loop", "up", "broken"):
        folder.symlink_to({"loop": folder.name, "up": "..", "broken": "missing"}[what])
        return
    folder.mkdir()
    if what == "deep":
        folder = folder / "deeper"
        folder.mkdir()
    if what == "empty":
        return
    for number in range(draw(st.integers(2, 5))):
        name = draw(st.sampled_from(NAMES)) if draw(st.integers(0, 19)) == 0 else f"{number}.png"
        place = folder / name
        if place.exists() or place.is_symlink():
            continue
        kind = draw(st.integers(0, 59))
        if kind == 0:
            place.symlink_to(draw(st.sampled_from((name, "missing.png", "..", "/dev/zero"))))
        elif kind == 1:
            place.mkdir()
        else:
            place.write_bytes(image(draw, place.suffix))


def write_part(draw: Draw, folder: Path, classes: list[str]) -> None:
    """Draw train/ or test/."""
    folder.mkdir()
    for name in classes:
        if not (folder / name).exists() and not (folder / name).is_symlink():
            write_class(draw, folder / name)


def classes(draw: Draw) -> list[str]:
    """Draw names of classes."""
    if draw(st.integers(0, 2)):
        return ["cat", "dog"]
    return draw(st.lists(st.sampled_from(CLASSES), min_size=0, max_size=3, unique=True))


def make(draw: Draw, folder: Path) -> list[Command]:
    """Write folders of images, and draw what reads them."""
    root = folder / "photos"
    root.mkdir()
    names = classes(draw)
    if draw(st.integers(0, 2)) == 0:
        shutil.copytree(kept_run("images"), folder / "run")
        write_part(draw, root / "new", names)
        command = draw(st.sampled_from(("predict", "score")))
        return [
            Command([command, "run", "photos/new", *draw(st.sampled_from(((), ("--json",), ("--csv", "out.csv"))))])
        ]
    write_part(draw, root / "train", names)
    more: tuple[str, ...] = ("--test-from", "split:0.4")
    if draw(st.integers(0, 2)) == 0:
        part = draw(st.sampled_from(("test", "test", "meta")))
        write_part(draw, root / part, names if draw(st.integers(0, 9)) else classes(draw))
        more = () if part == "test" else more
    data = ["--data", "folder"]
    if draw(st.integers(0, 3)) == 0:
        files = [path.relative_to(root) for path in sorted(root.rglob("*")) if path.is_file()]
        lines = ["file,label", *(f"{str(file).replace(chr(10), '')},{file.parent.name.strip()}" for file in files)]
        (root / "train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
        data = ["--data", "csv"]
    size = draw(
        st.sampled_from(
            ((), *[("--image-size", "8")] * 4, ("--image-size", "8", "--stream", "on"), ("--image-size", "100000"))
        )
    )
    train = [
        "train",
        *data,
        "--data-root",
        "photos",
        "--model",
        "linear",
        "--epochs",
        "1",
        "--out",
        "new",
        "--workers",
        "0",
    ]
    audit = ["audit", "new", "--html", "a.html", "--csv", "a.csv"]
    return [
        Command([*train, "--meta-size", "0", *size, *more]),
        Command(audit, follows=True),
        Command(["apply", "new", "--out", "fixed"], follows=True),
    ]


IMAGES = Kind("folders of images", make)
