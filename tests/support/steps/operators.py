"""The steps of commands for jobs that are there: resuming, pruning."""

from tests.support.steps.step import Step

_LEDGER = "orchestrator.contract.ledger.ledger:Ledger"
_FOLDER = "orchestrator.contract.jobs.job_folder:JobFolder"

# The command ends with the disk's error, or the server's; a job that is active goes on all the same.
_DISK = "No space left on device|Input/output error|Read-only file system|Stale file handle"
RESUME = (
    Step("resume.check", "orchestrator.jobs.submit:JobClient.check_output_is_free", "server",
         stated="the server does not answer"),
    Step("resume.list", "orchestrator.jobs.relisting:_take_parts", "disk", stated=_DISK),
    Step("resume.run", f"{_FOLDER}.begin_run", "disk", inner="link", stated=_DISK),
    Step("resume.activate", f"{_FOLDER}.activate", "disk", stated=_DISK),
    Step("resume.restore", f"{_LEDGER}.restore", "server", role="command", stated="and goes on when it does"),
    Step("resume.ring", "celery.app.base:Celery.send_task", "server", role="command"),
)  # fmt: skip

PRUNE = (
    Step("prune.find", "orchestrator.jobs.prune:_in_use"),
    Step("prune.rename", "orchestrator.jobs.prune:remove_folder", "disk", inner="rename", stated=_DISK),
    Step("prune.look", "orchestrator.jobs.prune:_goes_on"),
    Step("prune.beside", "orchestrator.jobs.prune:_remove_leftovers_beside_output", "disk", stated=_DISK),
    Step("prune.delete", "orchestrator.jobs.prune:_finish", "disk", inner="rmdir", stated=_DISK),
)  # fmt: skip

ALL = (*RESUME, *PRUNE)
