"""What this package brings: commands."""

from reweight_core import CommandPlugin

audit = CommandPlugin(
    name="audit",
    summary="List the training examples of a run whose labels are probably wrong.",
    command="reweight_audit.command:command",
    function="reweight_audit.auditing:audit",
)
apply = CommandPlugin(
    name="apply",
    summary="Make corrected data of an audit.",
    command="reweight_audit.apply_command:command",
    function="reweight_audit.applying:apply",
)
score = CommandPlugin(
    name="score",
    summary="List labelled examples that were not in training whose labels are probably wrong.",
    command="reweight_audit.score_command:command",
    function="reweight_audit.scoring:score",
)
