"""The steps of sorting images into folders, and of undoing that."""

from tests.support.steps.step import Step

_JOURNAL = "orchestrator.sorting.journal:Journal"
_RECORD = "orchestrator.sorting.record:HomeRecord"
_MAKER = "orchestrator.sorting.make:Maker"
_STOPPED = r"run the command again|nothing can be sorted|the home .* cannot"

SORT = (
    Step("sort.record", f"{_RECORD}.begin", "disk", stated=_STOPPED),
    Step("sort.begin", f"{_JOURNAL}._begin", "disk", stated=_STOPPED),
    Step("sort.append", f"{_JOURNAL}.append", "disk", stated=_STOPPED),
    Step("sort.make", f"{_MAKER}.make", "disk", stated=_STOPPED),
    Step("sort.confirm", f"{_MAKER}._finish_copies", "disk", stated=_STOPPED),
    Step("sort.finish", f"{_JOURNAL}.finish", "disk", stated=_STOPPED),
)

UNSORT = (
    Step("unsort.begin", f"{_JOURNAL}.unfinish", "disk", stated=_STOPPED),
    Step("unsort.undo", "orchestrator.sorting.unsort:_Undoing._undo", "disk", stated=_STOPPED),
    Step("unsort.folders", "orchestrator.sorting.unsort:_Undoing._undo_folders", "disk", stated=_STOPPED),
    Step("unsort.record", f"{_RECORD}.begin", "disk", stated=_STOPPED),
    Step("unsort.remove", f"{_JOURNAL}.remove", "disk", stated=_STOPPED),
    Step("unsort.times", f"{_RECORD}.undo", "disk", stated=_STOPPED),
)

ALL = (*SORT, *UNSORT)
