"""What this package brings: three commands."""

from reweight_core import CommandPlugin

sweep = CommandPlugin(
    name="sweep",
    summary="Compare methods: train each in each setting with several seeds, and make one table of it.",
    command="reweight_experiments.sweep_command:command",
    function="reweight_experiments.sweep:run_sweep",
)
reproduce = CommandPlugin(
    name="reproduce",
    summary="Run the settings of a published table, and compare the results with its figures.",
    command="reweight_experiments.reproduce_command:command",
    function="reweight_experiments.reproduction:reproduce",
)
compare = CommandPlugin(
    name="compare",
    summary="Put runs and sweeps side by side: their options, their results, their curves.",
    command="reweight_experiments.compare_command:command",
    function="reweight_experiments.side_by_side:compare",
)
