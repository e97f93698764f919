"""Looking an answer up, for days: on the server and in the files of the home."""

from orchestrator.contract.lines.answers import Answer, decode_record, request_key
from orchestrator.contract.lines.archive import AnswerArchive
from orchestrator.contract.lines.mover import find_record
from orchestrator.contract.lines.registry import LineRegistry, answers_folder
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import SERVER_ERRORS


def find_answer(registry: LineRegistry, line: str, item: str, pass_: int = 1) -> Answer | None:
    """The answer of an item and pass; None where there is none, yet or any more.

    What is late is answered first: who reads an answer may be the only one alive. Without a server the files are read.

    Raises NotFoundError where there is no such line; a server's error where it is away and the files have no answer.
    """
    store = registry.store(registry.get(line))
    return look_up(store, AnswerArchive(answers_folder(registry.folder(line))), request_key(item, pass_))


def look_up(store: LineStore, archive: AnswerArchive, key: str) -> Answer | None:
    """The same with a line's store and files at hand."""
    try:
        store.sweep(0)
        record = find_record(store, archive, key)
    except SERVER_ERRORS:
        record = archive.find(key)
        if record is None:
            raise
    return decode_record(record) if record is not None else None
