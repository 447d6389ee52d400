"""Images a second: decoding a folder, reading it from the cache or while training, and batches on the device.

python benchmarks/loading.py --data-root photos
"""

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import click
import torch
from torchvision.io import ImageReadMode, decode_image, read_file

from reweight_core import configure
from reweight_core.config.load_data import load_data
from reweight_core.data.examples import Examples
from reweight_core.data.images import find_images
from reweight_core.machine.device import resolve_device, usable_cpus

BATCH = 100


def seconds(function: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def batches_per_second(draw: Callable[[torch.Tensor], object], size: int, device: torch.device) -> float:
    """Time 200 batches of random ids."""
    ids = [torch.randint(size, (BATCH,), device=device) for _ in range(220)]
    for batch in ids[:20]:
        draw(batch)
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for batch in ids[20:]:
        draw(batch)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 200 / (time.perf_counter() - started)


@click.command()
@click.option("--data-root", type=Path, required=True, help="Folder as for --data folder.")
@click.option("--image-size", default=32, help="Side that images are brought to where they are read while training.")
@click.option("--device", default="auto", help="As for reweight train.")
def main(data_root: Path, image_size: int, device: str) -> None:
    """Print a Markdown table."""
    warnings.simplefilter("ignore")
    target = resolve_device(device)
    files = find_images([data_root])
    config = configure(data="folder", data_root=data_root, test_from="none", device=device)
    # once through all files, so that no figure is that of the disk
    for path in files:
        path.read_bytes()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        first, second = seconds(lambda: load_data(config)), seconds(lambda: load_data(config))
    data = load_data(config)

    def decode(path: Path) -> torch.Tensor:
        return decode_image(read_file(str(path)), ImageReadMode.RGB)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        torchvision = seconds(lambda: list(pool.map(decode, files, chunksize=256)))
    options = attrs.evolve(config.data_options, stream="on", image_size=image_size)
    streamed = load_data(attrs.evolve(config, data_options=options))
    in_files = Examples(streamed.train, streamed.dataset, target, torch.float32)
    workers = usable_cpus()
    stream = seconds(lambda: [None for _ in in_files.in_order(BATCH, workers)])
    augmented = Examples(data.train, data.dataset, target, torch.float32)
    generator = torch.Generator(target)
    ours = batches_per_second(lambda ids: augmented.batch(ids, generator), len(augmented), target)
    plain = batches_per_second(lambda ids: augmented.images.index_select(0, ids), len(augmented), target)
    print("| what | images a second |\n| --- | --- |")
    print(f"| first call: list, decode, write the cache ({len(files)} images) | {len(files) / first:,.0f} |")
    threads = os.cpu_count()
    print(f"| torchvision's decoder in a pool of {threads} threads, decoding alone | {len(files) / torchvision:,.0f} |")
    print(f"| second call: list, read the cache | {len(files) / second:,.0f} |")
    print(f"| read while training, {workers} workers, batches of {BATCH} | {len(in_files) / stream:,.0f} |")
    print(f"| batches of {BATCH}: gather, crop, flip, normalise | {BATCH * ours:,.0f} |")
    print(f"| batches of {BATCH}: `index_select` alone, uint8 | {BATCH * plain:,.0f} |")


if __name__ == "__main__":
    main()
