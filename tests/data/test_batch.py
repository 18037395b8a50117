import copy
import os
import pickle
import resource
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch.utils.data import DataLoader

from det_losses.data import batch
from det_losses.data.batch import detection_collate
from det_losses.registry import FUNCTIONS, find


def sample(number, boxes=2):
    image = torch.full((3, 4, 5 + number), number, dtype=torch.uint8)
    target = {
        "boxes": torch.full((boxes, 4), number + 0.5),
        "labels": torch.arange(boxes),
        "image_id": number,
        "coco": {"image": {"id": number}, "annotations": [{"bbox": [1, 2, 3, 4.5]}]},
    }
    return image, target


class Samples(torch.utils.data.Dataset):
    def __len__(self):
        return 128

    def __getitem__(self, index):
        return sample(index)


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def test_collate_does_not_stack_images():
    first = torch.zeros(3, 4, 5, dtype=torch.uint8), {"image_id": 7}
    second = torch.ones(3, 6, 2, dtype=torch.uint8), {"image_id": 9}
    batch = detection_collate([first, second])
    assert [image.shape for image in batch["images"]] == [(3, 4, 5), (3, 6, 2)]
    assert batch["targets"] == [{"image_id": 7}, {"image_id": 9}]
    assert find(FUNCTIONS, "detection_collate") is detection_collate


def test_a_batch_between_processes_is_one_block_of_memory():
    batch = detection_collate([sample(0), sample(1, boxes=0), sample(2, boxes=3)])
    received = pickle.loads(bytes(ForkingPickler.dumps(batch)))
    assert type(received) is dict and equal(dict(batch), received)
    tensors = [
        *received["images"],
        *(t[key] for t in received["targets"] for key in ("boxes", "labels")),
    ]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1
    received["images"][0].fill_(9)  # the receiver may change it
    assert received["targets"][0]["boxes"].eq(0.5).all()


def test_a_copy_in_the_same_process_stays_a_batch():
    batch = detection_collate([sample(0)])
    same, other = copy.copy(batch), copy.deepcopy(batch)
    assert type(same) is type(other) is type(batch)
    assert same["images"][0] is batch["images"][0] and equal(other, batch)


def test_views_and_strides_are_kept_in_value():
    image = torch.arange(60, dtype=torch.uint8).reshape(4, 5, 3).permute(2, 0, 1)
    batch = detection_collate([(image, {"boxes": torch.arange(8.0)[::2]})])
    received = pickle.loads(bytes(ForkingPickler.dumps(batch)))
    assert torch.equal(received["images"][0], image)
    assert received["targets"][0]["boxes"].tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize("workers", [0, 2])
def test_many_samples_need_few_descriptors(workers):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # fewer than the 192 tensors of a batch, more than the pipes of two workers
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, hard))
    try:
        loader = DataLoader(Samples(), 64, num_workers=workers, collate_fn=detection_collate)
        batches = list(loader)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    ids = [target["image_id"] for batch in batches for target in batch["targets"]]
    assert ids == list(range(128))
    assert [int(image[0, 0, 0]) for batch in batches for image in batch["images"]] == ids


def test_without_shared_memory_a_batch_is_sent_as_bytes(monkeypatch):
    """A container has 64 MB of it by default; a worker that fails to send a batch would hang."""

    def full(size):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", full)
    logged = []
    monkeypatch.setattr(batch, "print_log", lambda text, **options: logged.append(text))
    batch._warn_once.cache_clear()
    settings = dict(batch_size=8, collate_fn=detection_collate)
    here = DataLoader(Samples(), **settings)
    process = dict(num_workers=1, multiprocessing_context="fork", timeout=60)
    there = DataLoader(Samples(), **settings, **process)
    for one, other in zip(here, there, strict=True):
        assert equal(dict(one), other)
        other["images"][0] += 1  # can be written
    (text,) = logged  # once, in the process that receives them
    assert "cannot allocate shared memory" in text and "docker run --shm-size" in text
