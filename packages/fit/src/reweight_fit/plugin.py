"""What this package brings: a command."""

from reweight_core import CommandPlugin

fit = CommandPlugin(
    name="fit",
    summary="Find the method that suits the data, and train with it.",
    command="reweight_fit.command:command",
    function="reweight_fit.fitting:fit",
)
