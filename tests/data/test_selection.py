import random
from hashlib import sha256

import pytest

from det_losses.data import CocoDataset
from det_losses.data.selection import select_categories, select_images


def coco(count=50, classes=("a", "b", "c")):
    """Image i (ids 1, 3, 5, ...) has one box of class i % 3 (ids 10, 20, 30)."""
    images = [{"id": 2 * i + 1} for i in range(count)]
    annotations = [
        {"id": i + 1, "image_id": 2 * i + 1, "category_id": 10 * (i % 3 + 1), "iscrowd": 0}
        for i in range(count)
    ]
    categories = [{"id": 10 * (i + 1), "name": name} for i, name in enumerate(classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def test_classes_keep_the_given_order_and_official_ids():
    assert select_categories(coco(), ["c", "a"], "x.json") == [(30, "c"), (10, "a")]
    assert select_categories(coco(), None, "x.json") == [(10, "a"), (20, "b"), (30, "c")]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("persn", "Did you mean 'person'"), ("Person", "Did you mean 'person'"), ("zebra", "The cl")],
)
def test_unknown_class_suggests_and_lists(name, hint):
    data = coco(classes=("person", "car", "dog"))
    message = f"x.json: no class '{name}'. {hint}.*classes are car, dog, person"
    message = message if hint != "The cl" else f"x.json: no class '{name}'. The classes are car"
    with pytest.raises(ValueError, match=message):
        select_categories(data, [name], "x.json")


def test_class_named_twice():
    with pytest.raises(ValueError, match="classes names 'a' twice"):
        select_categories(coco(), ["a", "b", "a"], "x.json")


def test_no_class_at_all():
    with pytest.raises(ValueError, match="classes is empty"):
        select_categories(coco(), [], "x.json")


@pytest.mark.parametrize("classes", ["a", [1]])
def test_classes_must_be_names(classes):
    with pytest.raises(TypeError, match="classes must be a list of class names"):
        select_categories(coco(), classes, "x.json")


def test_choice_ignores_the_order_in_the_file():
    data, shuffled = coco(), coco()
    random.Random(1).shuffle(shuffled["images"])
    random.Random(2).shuffle(shuffled["annotations"])
    chosen = select_images(data, num_images=10, seed=4)
    assert chosen == select_images(shuffled, num_images=10, seed=4) == sorted(set(chosen))
    assert chosen != select_images(data, num_images=10, seed=5)


def test_choice_is_spread_over_the_images():
    # any image is equally likely: over 200 seeds, each of 50 is in 10 of 50 about 40 times;
    # 6 standard deviations of the binomial (200, 0.2) are 34
    counts = dict.fromkeys((image["id"] for image in coco()["images"]), 0)
    for seed in range(200):
        for image_id in select_images(coco(), num_images=10, seed=seed):
            counts[image_id] += 1
    assert min(counts.values()) > 6 and max(counts.values()) < 74


def test_smaller_subsets_are_part_of_larger_ones():
    data = coco()
    small, large = (set(select_images(data, num_images=n, seed=3)) for n in (10, 30))
    assert small < large


def test_choice_is_the_same_everywhere():
    # the rule: the images with the smallest sha256 of "seed:id", whatever the Python version
    ids = [1, 3, 5, 7, 9]
    expected = sorted(sorted(ids, key=lambda i: sha256(b"0:%d" % i).hexdigest())[:2])
    assert select_images(coco(5), num_images=2, seed=0) == expected


def test_candidates_by_class_and_exclusion():
    data = coco(6)  # ids 1 3 5 7 9 11 with classes 10 20 30 10 20 30
    assert select_images(data, [10]) == [1, 7]
    assert select_images(data, [10], keep_negatives=True) == [1, 3, 5, 7, 9, 11]
    assert select_images(data, [10], exclude=[7]) == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_images=7), "x.json: 7 images asked for, but there are 6 images. Ask for fewer"),
        (dict(num_images=3, category_ids=[10]), "there are 2 images with a box of the chosen cl"),
        (dict(category_ids=[99]), "x.json: there are 0 images with a box of the chosen classes."),
        (dict(num_images=6, exclude=[1]), "there are 5 images outside the other split"),
        (dict(num_images=0), "num_images must be at least 1, or None for all; got 0"),
    ],
)
def test_too_few_images(options, message):
    with pytest.raises(ValueError, match=message):
        select_images(coco(6), source="x.json", **options)


def test_dataset_uses_this_choice(tiny_coco):
    paths = tiny_coco()
    dataset = CocoDataset(*paths, classes=["cat", "bird"], num_images=2, subset_seed=6)
    assert len(dataset) == 2
    # images with a box of cat 3 or bird 18 that is no crowd: 8, 11 and 33
    assert set(dataset.image_ids) < {8, 11, 33}
    with pytest.raises(ValueError, match=r"4 images asked for, but there are 3 images with"):
        CocoDataset(*paths, classes=["cat", "bird"], num_images=4)
