"""What this package brings: commands."""

from reweight_core import CommandPlugin

audit = CommandPlugin(
    name="audit",
    summary="List the training examples of a run whose labels are probably wrong.",
    command="reweight_audit.command:command",
    function="reweight_audit.auditing:audit",
)
