"""For authors of plugins: conformance suites to subclass, and the recorder they use. Needs pytest.

from reweight_core.testing import MethodSuite

class TestMine(MethodSuite):
    name = "mine"
"""

from reweight_core.testing.component_suite import ComponentSuite
from reweight_core.testing.data_suite import DataSuite
from reweight_core.testing.loss_suite import LossSuite
from reweight_core.testing.method_suite import MethodSuite
from reweight_core.testing.model_suite import ModelSuite
from reweight_core.testing.noise_suite import NoiseSuite
from reweight_core.testing.record_suite import RecordSuite
from reweight_core.testing.recorder import HostReadError, Recorder
from reweight_core.testing.tiny import tiny_dataset, tiny_parts, train_in

__all__ = [
    "ComponentSuite",
    "DataSuite",
    "HostReadError",
    "LossSuite",
    "MethodSuite",
    "ModelSuite",
    "NoiseSuite",
    "RecordSuite",
    "Recorder",
    "tiny_dataset",
    "tiny_parts",
    "train_in",
]
