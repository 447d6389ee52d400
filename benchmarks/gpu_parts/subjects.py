"""What is trained to compare replays with single steps: every method, component and loss, and ways to use them."""

from __future__ import annotations

from typing import Any

from gpu_parts import tree

MAIN = ("method gdw", "method erm", "method l2rw", "method mwnet", "method fsr")
"""What is looked at first."""

SMALL_DICTIONARY = {"dictionary_size": 20, "probe_size": 8, "warmup_epochs": 1}

OPTIONS: dict[str, dict[str, Any]] = {
    "method fsr": SMALL_DICTIONARY,
    "method crust": {"warmup_epochs": 1},
    "method gen-label": {"warmup_epochs": 1},
    "method mentor": {"burn_in": 0.0},
    "method pencil": {"epochs": 3},
    "method self-paced": {"burn_in": 0.0},
    "component relabel": {"relabel_warmup_epochs": 1},
    "loss backward": {"backward_noise": "uniform:0.4"},
    "loss forward": {"forward_noise": "uniform:0.4"},
    "loss ldam": {"head": "cosine"},
}
"""What a subject needs beside its name to be in use after an epoch."""

VARIANTS: dict[str, dict[str, Any]] = {
    "l2rw by fd": {"method": "l2rw", "lookahead": "fd"},
    "gdw by fd": {"method": "gdw", "lookahead": "fd"},
    "gdw by head": {"method": "gdw", "lookahead": "head"},
    "gdw by double": {"method": "gdw", "lookahead": "double"},
    "gdw, chosen each epoch": {"method": "gdw", "lookahead": "auto"},
    "gdw in bf16 and little memory": {"method": "gdw", "precision": "bf16", "memory": "lean"},
    "gdw by adam, clipped": {"method": "gdw", "optimizer": "adam", "lr": 1e-3, "max_grad_norm": 1.0},
    "gdw, the optimizer's virtual step": {"method": "gdw", "virtual_step": "optimizer"},
    "mwnet, every other step": {"method": "mwnet", "meta_every": 2},
    "gdw on images in files": {"method": "gdw", "workers": 1, "files": True},
    "fsr with everything": {
        "method": "fsr",
        "with": ["mixup", "relabel", "label-smoothing", "ema"],
        "relabel_warmup_epochs": 1,
        "schedule": "cyclic",
        "epochs": 3,
        **SMALL_DICTIONARY,
    },
}
GPU_VARIANTS: dict[str, dict[str, Any]] = {
    "gdw in tf32": {"method": "gdw", "precision": "tf32"},
    "erm in tf32": {"method": "erm", "precision": "tf32"},
}


def subjects(on_gpu: bool) -> dict[str, dict[str, Any]]:
    """Return options of ``train`` by the name of what they try; ``files`` stands for images that are read meanwhile."""
    found: dict[str, dict[str, Any]] = {f"method {name}": {"method": name} for name in tree.names("methods")}
    found |= {f"component {name}": {"method": "erm", "with": [name]} for name in tree.names("components")}
    found |= {f"loss {name}": {"method": "erm", "loss": name} for name in tree.names("losses")}
    found = {name: options | OPTIONS.get(name, {}) for name, options in found.items()}
    found |= VARIANTS | (GPU_VARIANTS if on_gpu else {})
    return {name: found[name] for name in (*MAIN, *(name for name in found if name not in MAIN))}
