"""The parts of the whole, from what matters most to least."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs

from gpu_parts import tree
from gpu_parts.parts import Part
from gpu_parts.subjects import MAIN, subjects

PROGRAM = ("-m", "reweight_core")
LEARNED = ("erm", "l2rw", "mwnet", "gdw", "fsr")


@attrs.frozen
class Setting:
    """What the parts depend on.

    Attributes:
        device: ``cuda``, ``cuda:1``, ... or ``cpu``.
        tiny: whether each is as small as it can be, to try the script.
        work: folder of the runs.
        images: root of the images to train on, or None.
        jobs: number of runs at a time.
    """

    device: str
    tiny: bool
    work: Path
    images: Path | None
    jobs: int


def plan(setting: Setting) -> list[Part]:
    """Return all parts."""
    if setting.tiny:
        # no figure of theirs counts, and the machine may be busy
        return [attrs.evolve(part, beside=True, seconds=None) for part in _tiny(setting)]
    return list(_full(setting))


def _full(setting: Setting) -> Iterator[Part]:
    yield Part("machine", "machine", ("-m", "gpu_parts.machine", setting.device), least=20)
    names = list(subjects(on_gpu=setting.device != "cpu"))
    for name in names[: len(MAIN)]:
        yield _capture(setting, f"capture: {name}", name)
    for precision in ("tf32", "fp32", "bf16"):
        ways = ("jvp", "fd", "head", *(("double",) if precision == "fp32" else ()))
        yield _bench(setting, "resnet32", precision, LEARNED, ways, 50)
    for name in names[len(MAIN) :]:
        yield _capture(setting, f"capture: {name}", name)
    if setting.images is not None:
        yield _sweep(setting, "gdw, uniform", "gdw", "--noise", "uniform:0.4")
    for method in ("gdw", "l2rw", "mwnet"):
        for precision in ("tf32", "bf16"):
            yield _check_grad(setting, method, precision)
    for precision in ("tf32", "bf16", "fp32"):
        yield _bench(setting, "wrn-28-10", precision, LEARNED[:-1], ("jvp", "fd"), 10)
    others = [name for name in tree.names("methods") if name not in LEARNED]
    yield _bench(setting, "resnet32", "tf32", others, ("jvp",), 20, "others")
    if setting.images is None:
        return
    yield _sweep(setting, "baselines, uniform", "erm,l2rw,mwnet", "--noise", "uniform:0.4")
    yield _fsr(setting, "uniform", "cifar-noise", "--noise", "uniform:0.4")
    yield _sweep(setting, "flip", "gdw,erm,l2rw,mwnet", "--noise", "flip:0.4")
    yield _sweep(setting, "imb", "gdw,erm,l2rw,mwnet", "--imb", "0.01")
    yield _fsr(setting, "imb", "cifar-lt", "--imb", "0.01")
    for seed in (1, 2, 3, 4):
        yield _sweep(setting, f"uniform {seed}", "gdw,erm,l2rw,mwnet", "--noise", "uniform:0.4", "--seed", str(seed))
    for seed in (1, 2):
        yield _sweep(setting, f"flip {seed}", "gdw,erm,l2rw,mwnet", "--noise", "flip:0.4", "--seed", str(seed))
        yield _sweep(setting, f"imb {seed}", "gdw,erm,l2rw,mwnet", "--imb", "0.01", "--seed", str(seed))


def _tiny(setting: Setting) -> Iterator[Part]:
    yield Part("machine", "machine", ("-m", "gpu_parts.machine", setting.device))
    # those of all methods, components and losses take a minute; the packages' tests compare theirs
    yield _capture(setting, "capture", *MAIN, "gdw on images in files", "fsr with everything")
    yield _bench(setting, "resnet8", "fp32", ("gdw",), ("jvp",), 2, sizes=("3x8x8", "8", "8"))
    yield _check_grad(setting, "gdw", "bf16")
    tiny = ("--meta-size", "4", "--epochs", "2", "--batch-size", "8", "--meta-batch-size", "4", "--image-size", "8")
    yield _sweep(setting, "gdw, uniform", "gdw", "--noise", "uniform:0.4", "--model", "mlp", *tiny)


def _capture(setting: Setting, title: str, *names: str) -> Part:
    tiny = ("--tiny",) if setting.tiny else ()
    arguments = ("-m", "gpu_parts.capture", "--device", setting.device, *tiny, "--", *names)
    return Part(title, "capture", arguments, beside=True)


def _bench(
    setting: Setting,
    model: str,
    precision: str,
    methods: list[str] | tuple[str, ...],
    ways: tuple[str, ...],
    repetitions: int,
    title: str = "",
    sizes: tuple[str, str, str] = ("3x32x32", "100", "100"),
) -> Part:
    image, n, m = sizes
    options = {"methods": ",".join(methods), "strategies": ",".join(ways), "model": model, "precision": precision}
    options |= {"image": image, "batch-size": n, "meta-batch-size": m, "graph": "both", "device": setting.device}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    arguments += ["--set=probe_size=100"] * ("fsr" in methods)
    name = " ".join(filter(None, ("bench:", model, precision, title)))
    command = (*PROGRAM, "bench", *arguments, f"--repetitions={repetitions}", "--json")
    return Part(name, "bench", command, seconds=300, least=60)


def _check_grad(setting: Setting, method: str, precision: str) -> Part:
    small = ("mlp", "20", "10") if setting.tiny else ("resnet32", "1000", "100")
    model, meta_size, n = small
    arguments = ["--method", method, "--precision", precision, "--model", model, "--noise", "uniform:0.4"]
    arguments += ["--meta-size", meta_size, "--batch-size", n, "--meta-batch-size", n, "--device", setting.device]
    if setting.images is None or setting.tiny:
        # 1,437 small images
        arguments += ["--data", "digits", "--meta-size", "100"]
    else:
        arguments += _images(setting)
    return Part(
        f"check-grad: {method} {precision}", "check-grad", (*PROGRAM, "check-grad", *arguments, "--json"), beside=True
    )


def _images(setting: Setting) -> list[str]:
    return ["--data", "folder", "--data-root", str(setting.images), "--image-size", "32", "--augment", "crop-flip"]


def _sweep(setting: Setting, title: str, methods: str, *options: str) -> Part:
    """Return runs at the full schedule: 80 epochs, 1,000 clean images; an option that is given again counts."""
    folder = setting.work / "runs" / "".join(c if c.isalnum() else "-" for c in title)
    arguments = ["--methods", methods, "--model", "resnet32", "--meta-size", "1000", *_images(setting), *options]
    arguments += ["--checkpoint-every", "2epochs", "--device", setting.device, "--jobs", str(setting.jobs)]
    command = (*PROGRAM, "sweep", *arguments, "--out", str(folder), "--quiet")
    return Part(f"runs: {title}", "runs", command, seconds=None, least=60, runs=folder)


def _fsr(setting: Setting, title: str, preset: str, *options: str) -> Part:
    given = ("--preset", preset, "--model", "resnet32", "--meta-size", "0", *options)
    return _sweep(setting, f"fsr, {title}", "fsr", *given)
