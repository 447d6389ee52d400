import numpy as np

from reweight_core.testing import ComponentSuite, MethodSuite


class TestCoTeaching(MethodSuite):
    name = "co-teaching"


class TestHardMining(MethodSuite):
    name = "hard-mining"


class TestCrust(MethodSuite):
    name = "crust"

    def parts(self, observers=(), **options):
        """In an epoch for which it has chosen: before that it is plain training."""
        parts = super().parts(observers, warmup_epochs=0, share=0.7, coreset="facility-location", **options)
        if "checkpoint_every" not in options:
            parts.hooks.order_epoch(parts.stages[0], 0, len(parts.train), np.random.RandomState(0))
        return parts


class TestResample(ComponentSuite):
    name = "resample"
