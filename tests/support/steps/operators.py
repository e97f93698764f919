"""The steps of commands for jobs that are there: resuming, pruning."""

from tests.support.steps.step import Step

_LEDGER = "orchestrator.contract.ledger.ledger:Ledger"
_FOLDER = "orchestrator.contract.jobs.job_folder:JobFolder"

RESUME = (
    Step("resume.check", "orchestrator.jobs.submit:JobClient.check_output_is_free", "server"),
    Step("resume.list", "orchestrator.jobs.relisting:_take_parts", "disk"),
    Step("resume.run", f"{_FOLDER}.begin_run", "disk", inner="link"),
    Step("resume.activate", f"{_FOLDER}.activate", "disk"),
    Step("resume.restore", f"{_LEDGER}.restore", "server", role="command"),
    Step("resume.ring", "celery.app.base:Celery.send_task", "server", role="command"),
)  # fmt: skip

PRUNE = (
    Step("prune.find", "orchestrator.jobs.prune:_in_use"),
    Step("prune.rename", "orchestrator.jobs.prune:remove_folder", "disk", inner="rename"),
    Step("prune.look", "orchestrator.jobs.prune:_goes_on"),
    Step("prune.beside", "orchestrator.jobs.prune:_remove_leftovers_beside_output", "disk"),
    Step("prune.delete", "orchestrator.jobs.prune:_finish", "disk", inner="rmdir"),
)  # fmt: skip

ALL = (*RESUME, *PRUNE)
