"""The commands of core."""

COMMANDS = {
    "train": "Train a classifier with a re-weighting method; the run becomes a folder.",
    "resume": "Go on with an interrupted run.",
    "eval": "Test the newest checkpoint of a run.",
    "predict": "Classify new images, or rows of features, with a run.",
    "inspect": "Show what the data of a run would be, without training.",
    "check-grad": "Compare the look-aheads on your model and data.",
    "bench": "Measure what a step of each method costs.",
    "list": "List what is installed: methods, losses, components, datasets, noise, models, observers, tables.",
    "plugins": "Show every installed plugin: where it comes from, and whether it works.",
}
"""Core's own commands with a summary of each; those of other packages are plugins, and give way to these."""
