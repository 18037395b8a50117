import torch

from det_losses.data import detection_collate
from det_losses.registry import FUNCTIONS, find


def test_keeps_images_of_different_sizes_apart():
    first = torch.zeros(3, 4, 5, dtype=torch.uint8), {"image_id": 7}
    second = torch.ones(3, 6, 2, dtype=torch.uint8), {"image_id": 9}
    batch = detection_collate([first, second])
    assert [image.shape for image in batch["images"]] == [(3, 4, 5), (3, 6, 2)]
    assert batch["targets"] == [{"image_id": 7}, {"image_id": 9}]
    assert find(FUNCTIONS, "detection_collate") is detection_collate
