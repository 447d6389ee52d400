"""Cross-entropy: the built-in loss that every other is compared with."""

from reweight_core.plugins.records import Context, LossPlugin, NoOptions


class CrossEntropy:
    """A loss without hooks: core's default is cross-entropy."""

    def __init__(self, config: NoOptions, context: Context):
        pass


plugin = LossPlugin(
    name="cross-entropy",
    summary="cross-entropy with the label, or with the target that a component makes of it (baseline)",
    build=CrossEntropy,
    one_label=False,
    several_processes=True,
)
