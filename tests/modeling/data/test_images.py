import numpy as np
import pytest
import torch

from modeling.data.images import DecodedImages
from modeling.training.fit.inputs import DeviceImages

PIXELS = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)


@pytest.mark.parametrize("on_device", [False, True])
def test_an_image_that_is_not_in_memory_is_never_another_ones_pixels(on_device):
    some = DecodedImages(PIXELS, np.array([4, 0, 2]), num_images=5)
    images = DeviceImages(some, torch.device("cpu")) if on_device else some

    (batch,) = images.batches([np.array([2, 4])])

    assert batch.flatten().tolist() == [2, 0]
    with pytest.raises(IndexError, match="image 3 is not among those in memory"):
        next(images.batches([np.array([4, 3, 1])]))
