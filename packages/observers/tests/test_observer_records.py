"""The records of the observers keep the contract of a plugin."""

from reweight_core.testing import RecordSuite


class TestCSV(RecordSuite):
    kind, name = "observer", "csv"


class TestTensorBoard(RecordSuite):
    kind, name = "observer", "tensorboard"


class TestTrackio(RecordSuite):
    kind, name = "observer", "trackio"


class TestWandB(RecordSuite):
    kind, name = "observer", "wandb"
