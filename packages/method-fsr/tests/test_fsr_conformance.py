from typing import ClassVar

from reweight_core.testing import ComponentSuite, MethodSuite

SMALL = {"dictionary_size": 8, "probe_size": 6}


class TestFSR(MethodSuite):
    name = "fsr"
    options: ClassVar = {**SMALL, "warmup_epochs": 0}


class TestFSRWarmingUp(MethodSuite):
    name = "fsr"
    options: ClassVar = {
        **SMALL,
        "warmup_epochs": 1,
        "negative_weights": "shift",
        "probe": "separate",
        "pusher": "forgetting-events",
    }


class TestFSRWithAGivenRewardSet(MethodSuite):
    name = "fsr"
    options: ClassVar = {**SMALL, "warmup_epochs": 0, "reward": "given"}


class TestFSRWithAllComponents(MethodSuite):
    name = "fsr"
    options: ClassVar = {
        **SMALL,
        "warmup_epochs": 0,
        "with": ("mixup", "label-smoothing", "relabel", "ema"),
        "relabel_warmup_epochs": 0,
    }


class TestMixUp(ComponentSuite):
    name = "mixup"


class TestRelabel(ComponentSuite):
    name = "relabel"
    options: ClassVar = {"relabel_warmup_epochs": 0}


class TestLabelSmoothing(ComponentSuite):
    name = "label-smoothing"


class TestEMA(ComponentSuite):
    name = "ema"
