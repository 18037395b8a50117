import numpy as np
import pytest
from pycocotools import mask

from det_losses.data.rle import _decompressed, rle_box


def random_mask(seed, height, width):
    found = np.zeros((height, width), np.uint8)
    generator = np.random.default_rng(seed)
    for y, x in generator.integers(0, (height - 2, width - 2), (4, 2)):
        found[y : y + generator.integers(1, 40), x : x + generator.integers(1, 60)] = 1
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_compressed_mask_has_the_box_of_its_pixels(seed):
    height, width = 300, 177  # runs beyond 16 and 512: one, two and three characters
    pixels = random_mask(seed, height, width)
    encoded = mask.encode(np.asfortranarray(pixels))
    text = encoded["counts"].decode()
    rows, columns = np.nonzero(pixels)
    box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    assert rle_box({"size": [height, width], "counts": text}) == box
    # runs by definition: the positions at which the pixels change, in column order
    flat = np.concatenate([[0], pixels.ravel(order="F"), [1 - pixels[-1, -1]]])
    runs = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat))]))
    np.testing.assert_array_equal(_decompressed(text), runs)
    assert rle_box({"size": [height, width], "counts": runs.tolist()}) == box


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"counts": "525"}, "'size' must be"),
        ({"size": [4, -3], "counts": "525"}, "'size' must be"),
        ({"size": [10**9, 10**9], "counts": "525"}, "too large"),
        ({"size": [4, 3], "counts": "52"}, "sum is 7"),
        ({"size": [4, 3], "counts": "52555"}, "sum is "),
        ({"size": [4, 3], "counts": "52e"}, "not COCO's compressed text"),  # more should follow
        ({"size": [4, 3], "counts": "5 5"}, "not COCO's compressed text"),
        ({"size": [4, 3], "counts": "5é5"}, "not COCO's compressed text"),
        ({"size": [4, 3], "counts": ""}, "not COCO's compressed text"),
        ({"size": [4, 3], "counts": "o" * 99 + "0"}, "more than 31 bits"),
        ({"size": [4, 3], "counts": [6, -1, 7]}, "at least 0"),
        ({"size": [4, 3], "counts": [6.5, 5.5]}, "must be whole numbers"),
        ({"size": [4, 3], "counts": []}, "must be whole numbers"),
        ({"size": [4, 3]}, "must be whole numbers"),
    ],
)
def test_what_is_not_a_mask_is_refused(segmentation, message):
    with pytest.raises(ValueError, match=message):
        rle_box(segmentation)
