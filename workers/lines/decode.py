"""Reads and decodes the images of pushes, each in time or not at all."""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from modeling.errors import ImageError, trouble_of
from modeling.images.decode import decode_image
from modeling.inference.decode_watch import DecodeWatch
from modeling.names import path_to_text, text_to_path
from orchestrator.contract.lines.requests import ImagePath
from workers.classify.read import ImageReader
from workers.lines.requests import OpenLine, Request
from workers.lines.scheduler import Scheduler

logger = logging.getLogger(__name__)

DECODE_S = 60.0  # processor time; some 5 s are the most that an estimate allows on one core of 2024
SLOW_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h
_POLL_S = 0.5

_TROUBLE_PAUSE_S = 0.2

Unreadable = Callable[[Request, ImageError], None]
HandBack = Callable[[list[Request]], None]


class LineDecoders:
    """Threads that decode what the scheduler gives them."""

    def __init__(
        self,
        scheduler: Scheduler,
        num_threads: int,
        max_pixels: int,
        on_unreadable: Unreadable,
        hand_back: HandBack,
    ) -> None:
        """on_unreadable: called with a request whose image cannot be decoded, and why.

        hand_back: called with a request that others may have: this worker lacks memory or files now.
        """
        self._scheduler = scheduler
        self._max_pixels = max_pixels
        self._on_unreadable = on_unreadable
        self._hand_back = hand_back
        self._stopped = threading.Event()
        self._watch = DecodeWatch()
        self._threads = [
            threading.Thread(target=self._run, name=f"lines-decode-{number}", daemon=True)
            for number in range(num_threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped.set()

    def look(self) -> None:
        """End this process if an image takes far longer than any estimate allows: native code cannot be interrupted."""
        for running in self._watch.look():
            if running.processor_s > DECODE_S:
                logger.critical("decoding %s takes more than %.0f s; this process ends", running.source, DECODE_S)
                os._exit(SLOW_EXIT_CODE)

    def _run(self) -> None:
        while not self._stopped.is_set():
            request = self._scheduler.next_to_decode(_POLL_S)
            if request is not None:
                self._decode(request)

    def _decode(self, request: Request) -> None:
        begun_s = request.decode_begun_s = time.monotonic()
        request.stage_ms["queue"] = request.waited_ms + (begun_s - request.taken_s) * 1e3
        error = trouble = None
        self._watch.begin(f"{request.key} of line {request.line.name}")
        try:
            assert request.model is not None
            if request.held.path is not None:
                request.image = self._read(request.held.path, request.line)
            request.pixels = decode_image(request.image, request.model.preprocessing, max_pixels=self._max_pixels)
        except ImageError as err:
            error = err
        except Exception as err:
            trouble = trouble_of(err)
            if trouble is None:
                logger.exception("line %s: cannot decode %s", request.line.name, request.key)
            error = ImageError("unreadable", f"{type(err).__name__}: {err}"[:300])
        finally:
            self._watch.end()
        request.decoded_s = time.monotonic()
        ms = request.stage_ms["decode"] = (request.decoded_s - begun_s) * 1e3
        request.line.decode.add(ms)
        if error is None:
            self._scheduler.decoded(request)
        elif trouble == "worker":
            self._hand_back([request])
            self._scheduler.ended([request])
            self._stopped.wait(_TROUBLE_PAUSE_S)
        else:
            self._on_unreadable(request, error)
            self._scheduler.ended([request])

    def _read(self, image: ImagePath, line: OpenLine) -> bytes:
        """The file that the client saw, below a root of the line. Raises ImageError."""
        full = text_to_path(image.path)
        for root in line.line.settings.roots:
            folder = text_to_path(root).rstrip("/")
            if full.startswith(f"{folder}/"):
                data = self._read_below(root, full.removeprefix(f"{folder}/"), line)
                break
        else:
            roots = ", ".join(line.line.settings.roots) or "none"
            raise ImageError("outside_root", f"{image.path} is not below a root of the line; its roots: {roots}")
        facts = Path(full).stat()  # after reading: a file that was changed meanwhile has another time
        if (len(data), facts.st_mtime_ns) != (image.size, image.mtime_ns):
            raise ImageError("unreadable", f"{image.path} has changed since it was pushed")
        return data

    def _read_below(self, root: str, path: str, line: OpenLine) -> bytes:
        """A reader remembers which folders are inside; one of these may be a link by the next push."""
        reader = ImageReader(root, follow_symlinks=False, max_file_bytes=line.line.settings.max_image_bytes)
        try:
            return reader.read(path)
        except ImageError as err:
            if err.code == "outside_root":  # the reader's words are those of jobs, which may follow links
                text = f"{path_to_text(path)} leads out of the root {root}, by a link"
                raise ImageError("outside_root", text) from err
            raise
