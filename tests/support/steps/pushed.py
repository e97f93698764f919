"""The steps of a line's answer, and of a hot folder's claim."""

from tests.support.steps.step import Step

_CLAIM = "orchestrator.hot_folder.claims:Claim"

HOT_FOLDER = (
    Step("hot_folder.enter", "orchestrator.hot_folder.owners:Owner._enter", "disk", role="command", stated="."),
    Step("hot_folder.make", f"{_CLAIM}.make", "disk", role="command"),
    Step("hot_folder.take", f"{_CLAIM}.take", "disk", role="command"),
    Step("hot_folder.read", "orchestrator.hot_folder.pushing:_read", role="command"),
    Step("hot_folder.result", f"{_CLAIM}._write", "disk", role="command"),
    Step("hot_folder.move", "orchestrator.hot_folder.claims:_move", "disk", role="command"),
    Step("hot_folder.sidecar", f"{_CLAIM}._carry_out", "disk", inner="replace", role="command"),
    Step("hot_folder.close", f"{_CLAIM}.close", "disk", role="command"),
    Step("hot_folder.leave", "orchestrator.hot_folder.owners:Owner.leave", role="command"),
)

ALL = HOT_FOLDER
