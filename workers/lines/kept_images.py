"""Images that are kept for review and audit: what went to the review or the fallback bin, and a share of the accepted.

`lines/NAME/images/YYYY-MM-DD/` in the home has the images, under names that say nothing of the item, and for each
process that wrote some an index of JSON lines. `image_bounds.py` deletes the oldest. What is kept is not synced to the
disk: a power cut may cost the last seconds.
"""

import json
import logging
import secrets
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Literal, Self

from modeling.durable import STRICT, link_once, private_mode, temporary_beside, validated, write_durable
from orchestrator.contract.errors import MessageError
from orchestrator.contract.lines.answers import Answer, Verdict, decode_record, request_key
from orchestrator.contract.lines.registry import images_folder
from orchestrator.contract.lines.settings import LineSettings

logger = logging.getLogger(__name__)

Why = Literal["review", "fallback", "audit"]
DRAW_FILE = "audit.key"
INDEX_PREFIX = "index-"
_MOST_WAITING = 512
_MOST_WAITING_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class KeptImage:
    """A line of an index. file: its name in the folder of the day. kept_ms: by the clock of the worker's machine."""

    file: str
    item: str
    pass_: int
    bin: str
    reason: str | None
    label: str | None
    score: float | None
    model: str | None
    why: Why
    size: int
    kept_ms: int

    __pydantic_config__ = STRICT

    def encode(self) -> bytes:
        value = {"pass" if name == "pass_" else name: getattr(self, name) for name in self.__slots__}
        return json.dumps(value).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Self:
        """Raises MessageError where it is none of ours."""
        try:
            value = json.loads(line)
            value["pass_"] = value.pop("pass")
        except (ValueError, TypeError, KeyError, AttributeError) as err:
            raise MessageError(f"this is not a line of an index of kept images: {line[:80]!r}") from err
        return validated(cls, value, "a kept image", error=MessageError)


def why_kept(settings: LineSettings, secret: bytes, key: str, bin_: str, reason: str | None) -> Why | None:
    """Why the image of an answer is kept; None: it is not. key: of item and pass.

    Of the accepted a share is drawn by a keyed hash of item and pass: nobody who names items chooses what is audited,
    and who has the key can check it.
    """
    if not settings.keeps_images:
        return None
    if bin_ == settings.review and (reason == "low_confidence" or settings.review != settings.fallback):
        return "review"
    if bin_ == settings.fallback:
        return "fallback"
    drawn = int.from_bytes(_hash(key, secret)[:8], "big")
    return "audit" if drawn < settings.keep_share * 2**64 else None


def audit_secret(folder: Path) -> bytes:
    """The key of a line's draw, in its folder; the first process that asks makes it."""
    path = folder / DRAW_FILE
    if not path.exists():
        with temporary_beside(path, mode=private_mode(folder)) as temporary:
            write_durable(temporary, secrets.token_hex(16).encode())
            link_once(temporary, path)
    return path.read_bytes()


class ImageWriter:
    """Writes the images of one line; safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        """folder: of the line."""
        self._folder = images_folder(folder)
        self._secret = audit_secret(folder)
        self._made_for = _identity(folder)
        self._index = f"{INDEX_PREFIX}{secrets.token_hex(8)}.jsonl"
        self._lock = threading.Lock()

    @property
    def is_current(self) -> bool:
        """Whether the line is still the one of its making: one that was removed may have been made again."""
        return _identity(self._folder.parent) == self._made_for

    def why(self, settings: LineSettings, key: str, bin_: str, reason: str | None) -> Why | None:
        return why_kept(settings, self._secret, key, bin_, reason)

    def write(self, image: bytes, answer: Answer, why: Why) -> None:
        """Keep an image. The folder of the line must exist: one that was removed gets no files again."""
        now_s = time.time()
        day = self._folder / datetime.fromtimestamp(now_s, UTC).date().isoformat()
        self._folder.mkdir(exist_ok=True)
        day.mkdir(exist_ok=True)
        mode = private_mode(self._folder.parent)
        path = day / f"{_hash(request_key(answer.item, answer.pass_)).hex()}.image"
        with temporary_beside(path, mode=mode) as temporary:
            temporary.write_bytes(image)
            temporary.replace(path)
        kept = KeptImage(
            path.name, answer.item, answer.pass_, answer.bin, answer.reason, answer.label, answer.score, answer.model,
            why, len(image), round(now_s * 1000),
        )  # fmt: skip
        index = day / self._index
        with self._lock:
            if not index.exists():
                index.touch(mode)
            with index.open("ab") as file:
                file.write(kept.encode())


@dataclass(frozen=True, slots=True)
class _Waiting:
    settings: LineSettings
    image: bytes
    key: str
    verdict: Verdict
    rest: str

    def answer(self) -> Answer:
        parts = (json.dumps({"key": self.key})[1:-1], self.verdict.encode(), self.rest)
        return decode_record(f"{{{','.join(part for part in parts if part)}}}")


class ImageKeeper:
    """Keeps images in a thread of its own. Answers never wait for it: what does not fit into its queue is counted."""

    def __init__(self, lines: Path) -> None:
        """lines: the folder of all lines."""
        self._lines = lines
        self._not_kept: Counter[str] = Counter()
        self._writers: dict[str, ImageWriter] = {}
        self._queue: Queue[_Waiting] = Queue(_MOST_WAITING)
        self._bytes = 0
        self._lock = threading.Lock()
        self._failing = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lines-images", daemon=True)
        self._thread.start()

    def keep(self, settings: LineSettings, image: bytes, key: str, verdict: Verdict, rest: str) -> None:
        """Keep the image of an answer that stands, if the line's settings say so. Returns at once.

        rest: the other facts of the answer (`answers.encode_facts`).
        """
        writer = self._writers.get(settings.name)
        if writer is not None and writer.why(settings, key, verdict.bin, verdict.reason) is None:
            return
        with self._lock:
            if self._bytes + len(image) <= _MOST_WAITING_BYTES:
                try:
                    self._queue.put_nowait(_Waiting(settings, image, key, verdict, rest))
                except Full:
                    pass
                else:
                    self._bytes += len(image)
                    return
            self._not_kept[settings.name] += 1

    def take_not_kept(self, line: str) -> int:
        """How many images of a line were lost since the last call."""
        with self._lock:
            return self._not_kept.pop(line, 0)

    def forget(self, line: str) -> None:
        """A line is served no longer."""
        self._writers.pop(line, None)
        self.take_not_kept(line)

    def close(self, wait_s: float) -> None:
        """Write what waits, for so long, and end."""
        self._closed.set()
        self._thread.join(wait_s)

    def _run(self) -> None:
        while not (self._closed.is_set() and self._queue.empty()):
            try:
                waiting = self._queue.get(timeout=0.25)
            except Empty:
                continue
            with self._lock:
                self._bytes -= len(waiting.image)
            self._keep(waiting)

    def _keep(self, waiting: _Waiting) -> None:
        name = waiting.settings.name
        try:
            writer = self._writers.get(name)
            if writer is None or not writer.is_current:
                writer = self._writers[name] = ImageWriter(self._lines / name)
            why = writer.why(waiting.settings, waiting.key, waiting.verdict.bin, waiting.verdict.reason)
            if why is not None:
                writer.write(waiting.image, waiting.answer(), why)
            self._failing = False
        except Exception as err:  # a full disk, a removed line: answers go on
            if not self._failing:
                logger.warning("line %s: images cannot be kept: %s", name, err)
            self._failing = True
            self._writers.pop(name, None)
            with self._lock:
                self._not_kept[name] += 1


def _identity(folder: Path) -> tuple[int, int] | None:
    """Of the key of a line's draw; None where there is none."""
    try:
        facts = (folder / DRAW_FILE).stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns


def _hash(key: str, secret: bytes = b"") -> bytes:
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16, key=secret).digest()
