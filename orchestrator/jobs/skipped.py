"""The files of a source that are left out, counted by reason. Reasons are few, whatever names the files have."""

import re
from collections import Counter
from collections.abc import Mapping

from modeling.names import is_archive

OTHER = "other extension"
_MOST_EXTENSIONS = 30  # that are counted by name
_MOST_TOLD = 10  # reasons in a message
_EXTENSION = re.compile(r"\.(?!\d+$)[\w+~-]{1,15}")  # numbers are parts of names, such as 1.2.840.113619 and dump.0001


def count_file(skipped: Counter[str], name: str, suffix: str) -> None:
    """Count a file that is no image. suffix: of its name, in lower case."""
    if is_archive(name):
        skipped["archive"] += 1
    elif not suffix:
        skipped["no extension"] += 1
    elif suffix in skipped or (_EXTENSION.fullmatch(suffix) and _num_extensions(skipped) < _MOST_EXTENSIONS):
        skipped[suffix] += 1
    else:
        skipped[OTHER] += 1


def _num_extensions(skipped: Counter[str]) -> int:
    return sum(reason.startswith(".") for reason in skipped)


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """The files of a source that are not images, by reason, as the end of a sentence."""
    if not skipped:
        return ""
    advice = "; unpack the archives if they hold images" if "archive" in skipped else ""
    return f"; left out: {skipped_text(skipped)}{advice}"


def skipped_text(skipped: Mapping[str, int]) -> str:
    """The counts of the most frequent reasons, in the order of their names, and that of all others."""
    most = sorted(skipped, key=lambda reason: (-skipped[reason], reason))[:_MOST_TOLD]
    told = [f"{skipped[reason]} {reason}" for reason in sorted(most)]
    num_others = sum(skipped.values()) - sum(skipped[reason] for reason in most)
    return ", ".join(told + [f"{num_others} for other reasons"] * bool(num_others))
