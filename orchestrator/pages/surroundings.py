"""Finds what a photographed page lies on: darker, at the border of the image, and parted from the page by a sharp edge.

A shadow on the page is dark, too, but its edge is soft: what lies in it is read.
"""

import numpy as np
from PIL import Image, ImageFilter

from orchestrator.pages.ink import Bytes, Mask, find_blobs

_SIDE_PX = 400  # of the image that is looked at: print is only a shade of grey there
_MEDIAN_PX = 7
_EDGE_PX, _EDGE = 5, 0.3  # brightness falls by this share within so many pixels
_NEAR_PX, _FAR_PX = 15, 23  # of an edge's other side: beyond its own width
_DARKER = 0.75  # of the brightness on the other side
_LEAST_SHARE = 0.02  # of the image: smaller regions at the border are no table


def find_surroundings(image: Image.Image) -> Image.Image | None:
    """A mask of the image's size, 255 where there is no page; None if the page fills the image."""
    small = image.copy()
    small.thumbnail((_SIDE_PX, _SIDE_PX))
    small = small.filter(ImageFilter.MedianFilter(_MEDIAN_PX))
    grey = np.asarray(small)
    lightest = np.asarray(small.filter(ImageFilter.MaxFilter(_EDGE_PX)), np.float32)
    darkest = np.asarray(small.filter(ImageFilter.MinFilter(_EDGE_PX)), np.float32)
    regions = find_blobs(lightest - darkest < _EDGE * lightest).names
    outside = np.zeros(grey.shape, bool)
    for name in np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])):
        region = regions == name
        if name and region.mean() >= _LEAST_SHARE and _is_darker_than_around(grey, region):
            outside |= region
    if not outside.any():
        return None
    return _grown(outside, _EDGE_PX + _MEDIAN_PX).resize(image.size, Image.Resampling.NEAREST)


def _is_darker_than_around(grey: Bytes, region: Mask) -> bool:
    """Whether a region is clearly darker along its edge than what lies beyond it."""
    beyond = (np.asarray(_grown(region, _FAR_PX)) > 0) & (np.asarray(_grown(region, _NEAR_PX)) == 0)
    within = region & (np.asarray(_grown(beyond, 2 * _FAR_PX + 1)) > 0)
    if not within.any():
        return False
    return bool(np.median(grey[within]) < _DARKER * np.median(grey[beyond]))


def _grown(mask: Mask, size_px: int) -> Image.Image:
    """The mask, larger by half the size on each side; the size is made odd."""
    return Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(size_px | 1))
