"""The plugin records of the observers."""

from reweight_core import ObserverPlugin, imported
from reweight_observers.options import TensorBoardConfig, TrackerConfig

csv = ObserverPlugin(
    name="csv",
    summary="figures as a table, metrics.csv in the folder of the run",
    build=imported("reweight_observers.metrics_csv:MetricsCSV"),
)
tensorboard = ObserverPlugin(
    name="tensorboard",
    summary="figures and histograms of the weights for TensorBoard (pip install tensorboard)",
    build=imported("reweight_observers.tensorboard_log:TensorBoardLog"),
    config=TensorBoardConfig,
)
trackio = ObserverPlugin(
    name="trackio",
    summary="figures and histograms of the weights for trackio (pip install trackio)",
    build=imported("reweight_observers.tracker:Trackio"),
    config=TrackerConfig,
)
wandb = ObserverPlugin(
    name="wandb",
    summary="figures and histograms of the weights for Weights & Biases (pip install wandb)",
    build=imported("reweight_observers.tracker:WandB"),
    config=TrackerConfig,
)
