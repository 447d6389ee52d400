import numpy as np
import pytest

from reweight_core.testing import NoiseSuite


class TestInstance(NoiseSuite):
    name, argument, wrong_arguments = "instance", "0.3", ("", "many", "nan", "0", "1", "-0.1", "1.5")


class TestModel(NoiseSuite):
    name, argument, wrong_arguments = "model", "0.3", ("", "many", "nan", "-0.1", "1.5")


class TestCrowd(NoiseSuite):
    name = "crowd"

    @pytest.fixture(autouse=True)
    def _written(self, tmp_path):
        np.savetxt(tmp_path / "crowd.csv", 0.7 * np.eye(10)[self.labels()] + 0.03, delimiter=",")
        self.argument = str(tmp_path / "crowd.csv")
