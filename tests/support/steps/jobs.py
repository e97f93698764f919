"""The steps of a classify job: submitting, one shard, the end, merges."""

from tests.support.steps.step import Step

_LEDGER = "orchestrator.contract.ledger.ledger:Ledger"
_TURNS = "orchestrator.contract.ledger.turns:Turns"
_FOLDER = "orchestrator.contract.jobs.job_folder:JobFolder"
_LISTING = "orchestrator.contract.jobs.listing:ListingWriter"
_PARTS = "orchestrator.contract.jobs.parts"
_BASE = "orchestrator.contract.jobs.base:BaseFiles"
_PUT = "workers.finalize.put:put"
_RING = "celery.app.base:Celery.send_task"
# A submission that cannot go on says that nothing was submitted, or the job ends with the reason.
_NOT_SUBMITTED = r"nothing was submitted: |job \S+ ends: |the server went away while|the server does not answer"
_LISTER_DIED = r"the process that submitted it ended before it had listed all images"

SUBMIT = (
    Step("submit.check", "orchestrator.jobs.submit:JobClient.check_output_is_free", "server", stated=_NOT_SUBMITTED),
    Step("submit.folder", f"{_FOLDER}.create", "disk", inner="mkdir", file="c*-*-*", stated=_NOT_SUBMITTED),
    Step("submit.request", f"{_FOLDER}.create", "disk", inner="replace", file="job.json", stated=_NOT_SUBMITTED),
    Step("submit.create", f"{_LEDGER}.create", "server", stated=f"{_NOT_SUBMITTED}|{_LISTER_DIED}"),
    Step("submit.activate", f"{_FOLDER}.activate", "disk", stated=f"{_NOT_SUBMITTED}|{_LISTER_DIED}"),
    Step("submit.read", f"{_LISTING}.add", "source", nth=13, stated=f"{_NOT_SUBMITTED}|{_LISTER_DIED}"),
    Step("submit.listing", f"{_LISTING}.publish", "disk", inner="fsync", file="listing",
         stated=f"{_NOT_SUBMITTED}|{_LISTER_DIED}"),
    Step("submit.index", f"{_LISTING}.publish", "disk", inner="fsync", file="listing.index",
         stated=f"{_NOT_SUBMITTED}|{_LISTER_DIED}"),
    Step("submit.extend", f"{_LEDGER}.extend", "server", arguments={"listed": False}, role="command",
         stated=_LISTER_DIED),
    Step("submit.ring", _RING, "server", role="command", stated=_LISTER_DIED),
    Step("submit.listed", f"{_LISTING}.close", "disk", inner="replace", file="listing.json",
         stated=f"{_NOT_SUBMITTED}|{_LISTER_DIED}"),
    Step("submit.enter", f"{_LEDGER}.extend", "server", arguments={"listed": True}, role="command"),
)  # fmt: skip

SHARD = (
    Step("shard.doorbell", "workers.tasks:_handle", role="child"),
    Step("shard.turn", f"{_TURNS}.take", "server", role="child"),
    Step("shard.claim", f"{_LEDGER}.claim", "server", role="child"),
    Step("shard.look", f"{_PARTS}:read_trailer", "source", role="child"),
    Step("shard.read", "workers.classify.read:ImageReader._read", "source", nth=3, role="child"),
    Step("shard.decode", "modeling.inference.decoders:Decoders._decode", "memory", nth=3, role="child"),
    Step("shard.predict", "workers.classify.gated:GatedPredictor.predict", "memory", role="child"),
    Step("shard.renew", f"{_LEDGER}.renew", "server", role="child"),
    Step("shard.open", f"{_PARTS}:write_part", "disk", inner="open", file=".*.part.*.tmp", role="child"),
    Step("shard.rows", f"{_PARTS}:write_part", "disk", inner="fsync", file=".*.part.*.tmp", role="child"),
    Step("shard.trailer", f"{_PARTS}:write_part", "disk", inner="fsync", file=".*.part.*.tmp", nth=2, role="child"),
    Step("shard.link", f"{_PARTS}:write_part", "disk", inner="link", role="child"),
    Step("shard.folder", f"{_PARTS}:write_part", "disk", inner="fsync", file="parts", role="child"),
    Step("shard.commit", f"{_LEDGER}.commit", "server", role="child"),
    Step("shard.ring-end", _RING, "server", arguments={"name": "pigeonhole.finalize"}, role="child"),
    Step("shard.charge", f"{_TURNS}.end", "server", role="child"),
    Step("shard.ring-next", _RING, "server", arguments={"name": "pigeonhole.classify"}, role="child"),
)  # fmt: skip

_CANNOT_WRITE = r"cannot write "  # a disk that is read-only stays so
END = (
    Step("end.lease", f"{_LEDGER}.take_finalize_lease", "server", role="child"),
    Step("end.clean", "orchestrator.contract.jobs.end:remove_unpublished", "source", inner="listdir", role="child"),
    Step("end.join", "workers.finalize.join:join_parts", "disk", role="child", stated=_CANNOT_WRITE),
    Step("end.sync-manifest", "workers.finalize.join:close_both", "disk", inner="fsync", role="child",
         stated=_CANNOT_WRITE),
    Step("end.sync-sidecar", "workers.finalize.join:close_both", "disk", inner="fsync", nth=2, role="child",
         stated=_CANNOT_WRITE),
    Step("end.compare", "workers.finalize.publish:_check_complete", role="child"),
    Step("end.write-summary", _PUT, "disk", inner="fsync", file=".*.summary.tmp", role="child", stated=_CANNOT_WRITE),
    Step("end.confirm", f"{_LEDGER}.renew_finalize_lease", "server", role="child"),
    Step("end.sidecar", _PUT, "disk", inner="rename", file="*.sources", role="child", stated=_CANNOT_WRITE),
    Step("end.summary", _PUT, "disk", inner="rename", file="*.summary.json", role="child", stated=_CANNOT_WRITE),
    Step("end.manifest", _PUT, "disk", inner="link", role="child", stated=_CANNOT_WRITE),
    Step("end.facts", "workers.finalize.publish:publish_manifest", "disk", inner="replace", file="summary.json",
         role="child", stated=_CANNOT_WRITE),
    Step("end.outcome", f"{_FOLDER}.write_outcome", "disk", inner="link", role="child"),
    Step("end.webhook", f"{_FOLDER}.note_undelivered", "disk", role="child"),
    Step("end.finish", f"{_LEDGER}.finish", "server", role="child"),
    Step("end.retire", f"{_FOLDER}.retire", "disk", role="child"),
)  # fmt: skip

MERGE = (
    Step("merge.base", f"{_BASE}.keep_in", "disk", inner="link", stated=_NOT_SUBMITTED),
    Step("merge.plan", "orchestrator.contract.jobs.merge_plan:PlanWriter.close", "disk", inner="fsync",
         stated=f"{_NOT_SUBMITTED}|{_LISTER_DIED}"),
    Step("merge.facts", "orchestrator.contract.jobs.merge_plan:write_plan_facts", "disk", inner="replace",
         stated=f"{_NOT_SUBMITTED}|{_LISTER_DIED}"),
    Step("merge.compare", "workers.finalize.publish:_check_base_is_there", "disk", role="child", stated=_CANNOT_WRITE),
    Step("merge.keep-sidecar", "workers.finalize.keep_base:keep_base", "disk", inner="link", role="child"),
    Step("merge.keep-summary", "workers.finalize.keep_base:keep_base", "disk", inner="link", nth=2, role="child"),
    Step("merge.keep-manifest", "workers.finalize.keep_base:keep_base", "disk", inner="link", nth=3, role="child"),
    Step("merge.keep-synced", "workers.finalize.keep_base:keep_base", "disk", inner="fsync", role="child",
         stated=_CANNOT_WRITE),
    Step("merge.sidecar", _PUT, "disk", inner="rename", file="*.sources", role="child", stated=_CANNOT_WRITE),
    Step("merge.summary", _PUT, "disk", inner="rename", file="*.summary.json", role="child", stated=_CANNOT_WRITE),
    Step("merge.manifest", _PUT, "disk", inner="rename", file="*.csv", role="child", stated=_CANNOT_WRITE),
)  # fmt: skip

ALL = (*SUBMIT, *SHARD, *END, *MERGE)
