"""Empirical risk minimisation: plain training, the built-in method that every other is compared with."""

from reweight_core.plugins.records import Context, MethodPlugin, NoOptions


class ERM:
    """A method without hooks: core's defaults are plain training."""


def _build(config: NoOptions, context: Context) -> ERM:
    return ERM()


plugin = MethodPlugin(name="erm", summary="plain training: every example counts the same (baseline)", build=_build)
