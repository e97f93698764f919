"""The steps of a line's answer, and of a hot folder's claim."""

from tests.support.steps.step import Step

_CLAIM = "orchestrator.hot_folder.claims:Claim"
_STORE = "orchestrator.contract.lines.store:LineStore"
_DISK = "error: .*(No space left on device|Input/output error|Read-only file system|Stale file handle)"
_KEEP = "workers.lines.kept_images:ImageWriter.write"

HOT_FOLDER = (
    Step("hot_folder.enter", "orchestrator.hot_folder.owners:Owner._enter", "disk", role="command", stated=_DISK),
    Step("hot_folder.make", f"{_CLAIM}.make", "disk", role="command"),
    Step("hot_folder.take", f"{_CLAIM}.take", "disk", role="command"),
    Step("hot_folder.read", "orchestrator.hot_folder.pushing:_read", "source", role="command"),
    Step("hot_folder.result", f"{_CLAIM}._write", "disk", role="command"),
    Step("hot_folder.move", "orchestrator.hot_folder.claims:_move", "disk", role="command"),
    Step("hot_folder.sidecar", f"{_CLAIM}._carry_out", "disk", inner="replace", role="command"),
    Step("hot_folder.close", f"{_CLAIM}.close", "disk", role="command"),
    Step("hot_folder.leave", "orchestrator.hot_folder.owners:Owner.leave", "disk", inner="unlink", role="command",
         stated=_DISK),
)  # fmt: skip

LINE = (
    Step("line.offer", "orchestrator.lines.admissions:Admissions._send", "connection", inner="sendmsg", role="command"),
    Step("line.admitted", "orchestrator.lines.admissions:Admissions._replied", role="command"),
    Step("line.take", f"{_STORE}.take_for_each", "server", role="child"),
    Step("line.hold", "workers.lines.link:ServerLink._pass_on", role="child"),
    Step("line.decode", "modeling.images.decode:decode_image", "memory", role="child"),
    Step("line.predict", "workers.lines.model:LineModel.predict", "memory", role="child"),
    Step("line.answer", f"{_STORE}.answer", "server", role="child"),
    Step("line.keep", _KEEP, "disk", role="child"),
    Step("line.decide", "orchestrator.lines.pushes:Pushes.resolve", role="command"),
    Step("line.settle", "orchestrator.lines.deadlines:Deadlines._decide", "connection", inner="sendmsg",
         role="command"),
    Step("line.sweep", f"{_STORE}.sweep", "server", role="parent"),
    Step("line.store", _KEEP, "disk", role="parent"),
)  # fmt: skip

ALL = (*HOT_FOLDER, *LINE)
