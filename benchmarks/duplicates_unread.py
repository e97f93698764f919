"""The process of `benchmarks.duplicates --unread`: compares images whose thumbnails are made of pixels in memory."""

import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.duplicates import stroke_batches
from modeling.data.cache import CachedFacts
from modeling.data.facts import check_pixels
from orchestrator.duplicates.find import ReadImages


def main(num_images: int, scratch: Path) -> None:
    """Print the counts, and the time of the comparison alone."""
    images = ReadImages(scratch)
    for strokes_nhw in stroke_batches(num_images):
        for pixels, facts in zip(strokes_nhw, check_pixels(strokes_nhw[..., np.newaxis]), strict=True):
            images.add(0, (hashlib.sha256(pixels.tobytes()).hexdigest(), CachedFacts(facts, None)))
    started = time.monotonic()
    counts = images.group().counts()
    print(json.dumps(counts | {"seconds_comparing": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
