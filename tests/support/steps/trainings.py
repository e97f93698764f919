"""The steps of trainings and evaluations, and of removing a model."""

from tests.support.steps.step import Step

_LEDGER = "orchestrator.contract.ledger.ledger:Ledger"
_ATTEMPTS = "orchestrator.contract.jobs.attempts"
_PROCESS_JOB = "workers.training.run:ProcessJob"
_FOLDER = "orchestrator.contract.jobs.job_folder:JobFolder"
_STORE = "modeling.registry.store:ModelStore"

_FAILS_RESUMABLY = r"training failed: "  # a resume goes on from the last checkpoint
TRAIN = (
    Step("train.claim", f"{_LEDGER}.claim", "server", role="child"),
    Step("train.look", "workers.training.specs:process_spec", role="child"),
    Step("train.close", f"{_ATTEMPTS}:end_attempt", "disk", inner="link", role="child"),
    Step("train.begin", f"{_ATTEMPTS}:begin_attempt", "disk", inner="link", role="child"),
    Step("train.request", f"{_PROCESS_JOB}._write_request", "disk", inner="replace", role="child"),
    Step("train.start", "workers.training.process:WatchedProcess._start", "process", role="child"),
    Step("train.event", "workers.training.process:append_event", role="child"),
    Step("train.machine", "modeling.training.fit.machine:use_first_threads", "disk", inner="link", role="training"),
    Step("train.images", "modeling.training.started:save_started", "disk", inner="replace", nth=2, role="training"),
    Step("train.checkpoint", "modeling.training.fit.checkpoint:write_checkpoint", "disk", inner="replace",
         role="training"),
    Step("train.later-checkpoint", "modeling.training.fit.checkpoint:write_checkpoint", "disk", inner="replace",
         file="*.*.[1-9]*.checkpoint", role="training"),
    Step("train.history", "modeling.training.fit.history:History._write", "disk", role="training"),
    Step("train.write-file", "modeling.training.model_folder:write_model", "disk", inner="fsync", nth=2,
         role="training", stated=_FAILS_RESUMABLY),
    Step("train.write", "modeling.training.model_folder:write_model", "disk", role="training",
         stated=_FAILS_RESUMABLY),
    Step("train.write-rename", "modeling.training.model_folder:write_model", "disk", inner="rename", role="training",
         stated=_FAILS_RESUMABLY),
    Step("train.confirm", f"{_PROCESS_JOB}._holds", "server", nth=2, role="child"),
    Step("train.move", f"{_PROCESS_JOB}._keep_result", "disk", inner="rename", role="child"),
    Step("train.end", f"{_PROCESS_JOB}._end", "disk", inner="link", role="child"),
    Step("train.commit", f"{_LEDGER}.commit", "server", role="child"),
    Step("train.publish", f"{_STORE}.publish", "disk", role="child", stated="cannot write model"),
    Step("train.publish-rename", f"{_STORE}.publish", "disk", inner="rename", role="child",
         stated="cannot write model"),
    Step("train.outcome", f"{_FOLDER}.write_outcome", "disk", inner="link", role="child"),
)  # fmt: skip

_CANNOT_WRITE = "cannot write "  # a disk that is read-only stays so
EVALUATE = (
    Step("evaluate.clean", "orchestrator.contract.jobs.end:remove_unpublished", "source", inner="listdir",
         role="child"),
    Step("evaluate.copy", "modeling.durable:copy_durably", "disk", role="child", stated=_CANNOT_WRITE),
    Step("evaluate.confirm", f"{_LEDGER}.renew_finalize_lease", "server", role="child"),
    Step("evaluate.rename", "workers.finalize.evaluation:_put_folder", "disk", inner="rename", role="child",
         stated=_CANNOT_WRITE),
)  # fmt: skip

_DISK = "No space left on device|Input/output error|Read-only file system|Stale file handle"
REMOVE = (
    Step("remove.check", f"{_STORE}.check_not_aliased"),
    Step("remove.rename", "modeling.registry.version_folder:remove_version", "disk", inner="rename", stated=_DISK),
    Step("remove.delete", "modeling.registry.version_folder:remove_version", "disk", inner="unlink", stated=_DISK),
)  # fmt: skip

ALL = (*TRAIN, *EVALUATE, *REMOVE)
