"""A cache of scan results, keyed by the sha256 of the images' bytes; safe to delete at any time."""

import json
import sqlite3
import threading
from pathlib import Path
from typing import NamedTuple, Self

import PIL

from modeling.data.facts import THUMBNAIL_BYTES, ImageFacts
from modeling.images.formats import MAX_PIXELS
from modeling.images.heif import heif_version
from modeling.images.loader import MAX_FILE_BYTES

FILE_NAME = "image_facts.sqlite"
_WAIT_S = 10.0  # for the lock of another process
_BATCH = 256  # images written in one transaction
_MADE_BY = (  # 3: the version of check_image
    f"3 Pillow-{PIL.__version__}{f' HEIF-{heif_version()}' if heif_version() else ''} {MAX_PIXELS} {MAX_FILE_BYTES}"
)
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS images (
        digest TEXT PRIMARY KEY, made_by TEXT NOT NULL, said TEXT NOT NULL, thumbnail BLOB NOT NULL
    )
"""


class CachedFacts(NamedTuple):
    """The facts about an image, or the code and the message of its error."""

    facts: ImageFacts | None
    error: tuple[str, str] | None


class FactsCache:
    """Verdicts in an SQLite file that threads of several processes may use; without a folder it stores nothing.

    If the file cannot be used, `trouble` says why, and scans continue without it.
    """

    def __init__(self, folder: Path | None) -> None:
        self.trouble: str | None = None
        self._lock = threading.Lock()
        self._new: dict[str, CachedFacts] = {}
        self._path = folder / FILE_NAME if folder is not None else None
        self._database: sqlite3.Connection | None = None
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.touch()  # as the umask has it: SQLite would keep a shared home's group from writing
                self._database = sqlite3.connect(self._path, timeout=_WAIT_S, check_same_thread=False)
                self._database.execute(_SCHEMA)
            except (OSError, sqlite3.Error) as err:
                self._give_up(err)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._write()
            if self._database is not None:
                self._database.close()
                self._database = None

    def get(self, digest: str) -> CachedFacts | None:
        """The verdict on an image of these bytes, or None."""
        with self._lock:
            if self._database is None:
                return None
            try:
                query = "SELECT said, thumbnail FROM images WHERE digest = ? AND made_by = ?"
                row = self._database.execute(query, (digest, _MADE_BY)).fetchone()
                return None if row is None else _verdict(*row)
            except (sqlite3.Error, ValueError, TypeError, KeyError) as err:
                self._give_up(err)
                return None

    def put(self, digest: str, verdict: CachedFacts) -> None:
        """Store a verdict."""
        with self._lock:
            self._new[digest] = verdict
            if len(self._new) >= _BATCH:
                self._write()

    def _write(self) -> None:
        """Write the new verdicts in one transaction."""
        rows = [(digest, _MADE_BY, _said(verdict), _thumbnail(verdict)) for digest, verdict in self._new.items()]
        self._new.clear()
        if self._database is None or not rows:
            return
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error as err:
            self._give_up(err)

    def _give_up(self, err: Exception) -> None:
        self.trouble = f"the scan's memory {self._path} cannot be used ({err}); delete it if it is damaged"
        if self._database is not None:
            self._database.close()
            self._database = None


def _said(verdict: CachedFacts) -> str:
    """A verdict without its thumbnail, as JSON."""
    facts = verdict.facts
    if facts is None:
        return json.dumps({"error": verdict.error})
    keys = ("size", "mode", "format", "orientation", "remarks", "grey")
    return json.dumps({key: getattr(facts, key) for key in keys})


def _thumbnail(verdict: CachedFacts) -> bytes:
    return verdict.facts.thumbnail if verdict.facts is not None else b""


def _verdict(said: str, thumbnail: bytes) -> CachedFacts:
    """The reverse of `_said` and `_thumbnail`."""
    value = json.loads(said)  # not by pydantic: a line an image, of which there are millions; `_MADE_BY` names the form
    if "error" in value:
        code, message = value["error"]
        return CachedFacts(None, (str(code), str(message)))
    if len(thumbnail) != THUMBNAIL_BYTES:
        raise ValueError(f"a thumbnail of {len(thumbnail)} bytes")
    width, height = value.pop("size")
    remarks = tuple(map(str, value.pop("remarks")))
    facts = ImageFacts(size=(int(width), int(height)), remarks=remarks, thumbnail=thumbnail, **value)
    return CachedFacts(facts, None)
