"""Whether every item of a belt is accounted for: one decision for each push, one record for each, and the same bin."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.contract.lines.answers import Answer


@dataclass(frozen=True, slots=True)
class Accounts:
    """num_counted: answers by the line's own counts. wrong: what is wrong with items, in words."""

    num_pushed: int
    num_decisions: int
    num_records: int
    num_counted: int
    wrong: tuple[str, ...]

    @property
    def balanced(self) -> bool:
        return not self.wrong and self.num_pushed == self.num_decisions == self.num_records == self.num_counted


def account(
    pushed: Sequence[str], decisions: Sequence[Answer], records: Mapping[str, Answer | None], num_counted: int
) -> Accounts:
    """Compare what was pushed with what the client decided and what the line recorded, item by item.

    records: by item; None where the line has none.
    """
    decided = Counter(answer.item for answer in decisions)
    bins = {answer.item: answer.bin for answer in decisions}
    wrong = [f"{item} has {decided[item]} decisions" for item in pushed if decided[item] != 1]
    wrong += [f"{item} was decided and never pushed" for item in decided.keys() - set(pushed)]
    for item in pushed:
        record = records.get(item)
        if record is None:
            wrong.append(f"{item} has no record")
        elif item in bins and record.bin != bins[item]:
            wrong.append(f"{item} went to bin {bins[item]}, and its record says {record.bin}")
    num_records = sum(record is not None for record in records.values())
    return Accounts(len(pushed), len(decisions), num_records, num_counted, tuple(wrong))


def bins_and_reasons(decisions: Sequence[Answer]) -> list[tuple[str, str, int]]:
    """Bin, reason (`accept` where there is none) and number of items, by bin, most frequent reason first."""
    counts = Counter((answer.bin, answer.reason or "accept") for answer in decisions)
    return sorted(
        ((bin_, reason, num) for (bin_, reason), num in counts.items()), key=lambda row: (row[0], -row[2], row[1])
    )
