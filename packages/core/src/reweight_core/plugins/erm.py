"""Empirical risk minimisation: plain training, the built-in method that every other is compared with."""

from reweight_core.plugins.records import Context, MethodPlugin, NoOptions


class ERM:
    """A method without hooks: core's defaults are plain training."""

    def __init__(self, config: NoOptions, context: Context):
        pass


plugin = MethodPlugin(
    name="erm",
    summary="plain training: every example counts the same (baseline)",
    build=ERM,
    several_processes=True,
)
