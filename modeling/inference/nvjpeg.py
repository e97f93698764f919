"""JPEGs decoded in batches on a GPU (nvJPEG, through torchcodec), scaled to the model's size there, and copied back.

They return to the host as bytes, in one copy a batch. That takes a few per cent of the bus, and batching, order,
errors and halved batches are the same as for images that the cores decode.

On the CPU torchcodec uses libjpeg-turbo instead of nvJPEG: the tests run the module that way.
"""

# Shapes: N images, H height, W width, C channels.
import io
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchcodec.decoders import decode_jpeg  # type: ignore[attr-defined]  # not named in its __all__

from modeling.errors import ModelingError, is_out_of_memory
from modeling.images.cost import is_quick_jpeg
from modeling.images.decode import decode_image, warm_up
from modeling.images.formats import MAX_PIXELS, is_truncated
from modeling.images.jpeg import (
    exif_orientation,
    is_common,
    jpeg_size,
    lacks_scans,
    outline_of,
    with_padding,
    without_exif,
)
from modeling.images.pixels import Pixels, Size, interpolated, scaling_of
from modeling.images.preprocessing import Preprocessing
from modeling.images.quotas import num_cores
from modeling.inference.decoders import DEVICE_CHUNK, DEVICE_THREADS, best_num_threads
from modeling.inference.engines.choice import CORES, GPU

_MAX_PIXELS = 32_000_000  # decoded at a time: 100 MB on the device, briefly 400 MB
_LARGEST_FACTOR = 64  # of scaling down: torch's kernel has shared memory for 94


class NvJpeg:
    """Decodes plain JPEGs and leaves everything else to `decode_image`. Several threads may call it."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self._preprocessing = preprocessing
        self._device = device
        self._mode: Literal["GRAY", "RGB"] = "GRAY" if preprocessing.mode == "L" else "RGB"
        # A fixed number: torch has 32 streams and reuses them in turn, also those of the engine.
        self._streams: SimpleQueue[torch.cuda.Stream | None] = SimpleQueue()
        for _ in range(DEVICE_THREADS):
            self._streams.put(torch.cuda.Stream(device) if device.type == "cuda" else None)  # type: ignore[no-untyped-call]

    def __call__(self, files: Sequence[bytes], max_pixels: int) -> list[Pixels | None]:
        """Pixels HWC of each file, as `decode_image` returns them except for rounding; None if that has to decode it.

        None: no common JPEG in grey or YCbCr, more than `max_pixels`, very large, too slow, cut short, with further
        pictures, refused by the GPU, or with scans missing or data that end early.

        Raises:
            RuntimeError: the GPU does not decode even a plain image.
            MemoryError: it has no memory for one image.
        """
        decoded: list[Pixels | None] = [None] * len(files)
        for places in _split_by_pixels([self._size(data, max_pixels) for data in files]):
            for place, pixels_HWC in zip(places, self._decode([files[place] for place in places]), strict=True):
                decoded[place] = pixels_HWC
        return decoded

    def _size(self, data: bytes, max_pixels: int) -> Size | None:
        size = jpeg_size(data)
        if size is None or size[0] * size[1] > min(max_pixels, _MAX_PIXELS) or is_truncated(data):
            return None
        if not is_quick_jpeg(data, size, max_pixels):
            return None
        outline = outline_of(data)
        if outline.may_have_pictures or not is_common(data, outline) or lacks_scans(data, outline):
            return None
        smallest = min(self._preprocessing.height, self._preprocessing.width)
        return size if max(size) <= _LARGEST_FACTOR * smallest else None

    def _decode(self, files: Sequence[bytes]) -> Sequence[Pixels | None]:
        try:
            return self._decode_all(files)
        except RuntimeError as err:  # it does not name the file
            if len(files) == 1:
                if is_out_of_memory(err):  # says nothing of the file
                    raise MemoryError(str(err)) from None
                self._check_it_works(err)
                return [None]
        half = len(files) // 2
        return [*self._decode(files[:half]), *self._decode(files[half:])]

    def _decode_all(self, files: Sequence[bytes]) -> Sequence[Pixels | None]:
        with torch.inference_mode(), self._stream():
            images_CHW, unfinished = self._decode_twice([without_exif(data) for data in files])
            places_of: dict[Size, list[int]] = defaultdict(list)  # images of one size are scaled together
            upright = [_upright(image, data) for image, data in zip(images_CHW, files, strict=True)]
            for place, image_CHW in enumerate(upright):
                places_of[image_CHW.shape[2], image_CHW.shape[1]].append(place)
            stacked = (torch.stack([upright[place] for place in places]) for places in places_of.values())
            scaled = [self._scale_to(images_NCHW) for images_NCHW in stacked]
            pixels_NHWC = torch.cat(scaled).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        places = [place for places in places_of.values() for place in places]
        found = dict(zip(places, pixels_NHWC, strict=True))
        return [None if place in unfinished else found[place] for place in range(len(files))]

    def _decode_twice(self, files: Sequence[bytearray]) -> tuple[list[Tensor], set[int]]:
        """The images, and the places of those whose data end early although the file does not.

        nvJPEG reports no error for them and shows remains of other images. Such a file gives other pixels after other
        images and with more data before its end; a whole file ignores both.
        """
        images = self._decode_once(files)
        longer = self._decode_once([with_padding(data) for data in reversed(files)])[::-1]
        if torch.equal(_concatenate(images), _concatenate(longer)):
            return images, set()
        pairs = zip(images, longer, strict=True)
        return images, {place for place, (one, other) in enumerate(pairs) if not torch.equal(one, other)}

    def _decode_once(self, files: Sequence[bytearray]) -> list[Tensor]:
        tensors = [torch.frombuffer(data, dtype=torch.uint8) for data in files]
        return list(decode_jpeg(tensors, mode=self._mode, device=self._device))

    def _check_it_works(self, err: RuntimeError) -> None:
        """Check that a plain image can be decoded; if not, the file is not the cause."""
        file = io.BytesIO()
        Image.new("L", (16, 16)).save(file, "JPEG")
        try:
            self._decode_all([file.getvalue()])
        except RuntimeError:
            raise err from None

    def _scale_to(self, images_NCHW: Tensor) -> Tensor:
        """Upright images at the model's size, not rounded yet: `modeling.images.pixels.scale_to` on the device."""
        scaling = scaling_of(images_NCHW.shape[2], images_NCHW.shape[3], self._preprocessing)
        taken_NCHW = images_NCHW[:, :, scaling.rows, scaling.columns].float()  # only CPUs have kernels for bytes
        if taken_NCHW.shape[2:] != (scaling.height, scaling.width):
            taken_NCHW = interpolated(taken_NCHW, scaling.height, scaling.width)
        return taken_NCHW[:, :, scaling.crop_rows, scaling.crop_columns]

    @contextmanager
    def _stream(self) -> Iterator[None]:
        """A stream for this thread alone, so that decoding does not wait for predictions; none on a CPU."""
        stream = self._streams.get()
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            self._streams.put(stream)


def _split_by_pixels(sizes: Sequence[Size | None]) -> Iterator[list[int]]:
    """Places of the images that have sizes, in lists that may be decoded at a time."""
    places: list[int] = []
    num_pixels = 0
    for place, size in enumerate(sizes):
        if size is None:
            continue
        if places and num_pixels + size[0] * size[1] > _MAX_PIXELS:
            yield places
            places, num_pixels = [], 0
        places.append(place)
        num_pixels += size[0] * size[1]
    if places:
        yield places


def _concatenate(images: Sequence[Tensor]) -> Tensor:
    """All bytes of all images."""
    return torch.cat([image.reshape(-1) for image in images])


def _upright(image_CHW: Tensor, data: bytes) -> Tensor:
    """The image turned by its EXIF orientation: `modeling.images.jpeg.apply_orientation` on the device."""
    turn = exif_orientation(data, outline_of(data))
    if turn >= 5:
        image_CHW = image_CHW.transpose(1, 2)
    flipped = ([2] if turn in (2, 3, 6, 7) else []) + ([1] if turn in (3, 4, 7, 8) else [])
    return image_CHW.flip(flipped) if flipped else image_CHW


_SIZE = (500, 375)  # px: a common size of photographs
_MEASURE_S = 0.5
_MIN_SPEEDUP = 1.1
_MAX_MEAN_DIFFERENCE = 2.0  # of 255, in any image: decoders round and smooth colours differently


def fastest_decoder(
    preprocessing: Preprocessing, device: torch.device, batch_size: int
) -> tuple[str, dict[str, float], dict[str, str]]:
    """CORES or GPU; images per second of each; and why the GPU cannot be used, if so.

    batch_size: images in a forward pass, which limits how many are decoded in one call.
    """
    files = _photographs(min(DEVICE_CHUNK, batch_size))
    warm_up()
    decode_image(files[0], preprocessing)  # the first call is slow
    decode_all = _by_cores(preprocessing, files)
    expected = decode_all()
    speeds = {CORES: _per_sec(decode_all, len(files))}
    try:
        decoder = NvJpeg(preprocessing, device)
        _check(decoder(files, MAX_PIXELS), expected)
        callers = min(DEVICE_THREADS, num_cores())
        with ThreadPoolExecutor(callers, thread_name_prefix="decode") as pool:
            batches, decode = [files] * callers, partial(decoder, max_pixels=MAX_PIXELS)
            speeds[GPU] = _per_sec(lambda: list(pool.map(decode, batches)), len(files) * callers)
    except Exception as err:  # whatever a driver raises: the cores remain
        return CORES, speeds, {GPU: f"{type(err).__name__}: {' '.join(str(err).split())}"[:300]}
    return (GPU if speeds[GPU] > _MIN_SPEEDUP * speeds[CORES] else CORES), speeds, {}


def _by_cores(preprocessing: Preprocessing, files: Sequence[bytes]) -> Callable[[], list[Pixels]]:
    """A function that decodes the files with as many threads as a job has for them."""
    started = time.thread_time()
    decode_image(files[0], preprocessing)
    num_threads = best_num_threads(0.0, time.thread_time() - started, 1, num_cores())

    def decode_all() -> list[Pixels]:
        with ThreadPoolExecutor(num_threads, thread_name_prefix="decode") as pool:
            return list(pool.map(lambda data: decode_image(data, preprocessing), files))

    return decode_all


def _per_sec(work: Callable[[], object], num_images: int) -> float:
    """Images per second: the best of several rounds."""
    best_s, begun = float("inf"), time.perf_counter()
    while best_s == float("inf") or time.perf_counter() - begun < _MEASURE_S:
        started = time.perf_counter()
        work()
        best_s = min(best_s, time.perf_counter() - started)
    return round(num_images / best_s, 1)


def _check(found: Sequence[Pixels | None], expected: Sequence[Pixels]) -> None:
    """Check that the GPU's images are those of the cores, except for rounding.

    Raises:
        ModelingError: they are not; says by how much.
    """
    for ours, theirs in zip(found, expected, strict=True):
        if ours is None:
            raise ModelingError("it refuses a plain JPEG")
        difference = float(np.abs(ours.astype(np.int16) - theirs).mean())
        if difference > _MAX_MEAN_DIFFERENCE:
            raise ModelingError(f"pixels differ by {difference:.2g} of 255, {_MAX_MEAN_DIFFERENCE:g} is allowed")


def _photographs(count: int) -> list[bytes]:
    """Made JPEGs with soft shapes and grain, as photographs have."""
    made = []
    for seed in range(count):
        generator = np.random.default_rng(seed)
        shapes = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        shapes_HWC = np.asarray(shapes.resize(_SIZE, Image.Resampling.BICUBIC), dtype=np.int16)
        grain_HWC = generator.normal(0, 6, shapes_HWC.shape).astype(np.int16)
        file = io.BytesIO()
        Image.fromarray((shapes_HWC + grain_HWC).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made
