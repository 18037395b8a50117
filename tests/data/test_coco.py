import os
import shutil

import pytest
import torch
from mmengine.runner import Runner
from PIL import Image
from pycocotools.coco import COCO

from det_losses.data.coco import CocoDataset
from det_losses.registry import DATASETS, NotRegisteredError

FLIP = dict(type="RandomHorizontalFlip", p=0.5)


@pytest.fixture
def reference(coco_subset, capsys):
    return COCO(str(coco_subset / "instances_val.json"))


def real(coco_subset, split="val", **options):
    return CocoDataset(coco_subset / f"instances_{split}.json", coco_subset / "images", **options)


def test_samples_of_a_tiny_dataset(tiny_coco):
    dataset = CocoDataset(*tiny_coco())
    # categories by ascending id: cat 3, dog 7, bird 18; images by ascending id
    assert dataset.metainfo == {"classes": ("cat", "dog", "bird"), "category_ids": (3, 7, 18)}
    assert dataset.image_ids == [5, 8, 11, 20, 33, 42]
    image, target = dataset[2]
    assert image.shape == (3, 64, 96) and image.dtype == torch.uint8
    assert target["image_id"] == 11 and "coco" not in target
    # [10, 8, 40, 20] and [60, 30, 20, 30] as corners
    assert target["boxes"].tolist() == [[10, 8, 50, 28], [60, 30, 80, 60]]
    assert target["labels"].tolist() == [0, 1]
    assert image[:, 8, 10].tolist() == [220, 40, 40] and image[:, 7, 9].tolist() == [110] * 3


@pytest.mark.parametrize("shared", [False, True])
def test_cached_samples_equal_those_read_again(tiny_coco, tmp_path, shared):
    flip = [dict(type="RandomHorizontalFlip", p=1.0)]
    files = tiny_coco()
    plain = CocoDataset(*files, transforms=flip)
    own = dict(cache_mb=1, cache_dir=tmp_path / "cache" if shared else None)
    first, second = (CocoDataset(*files, transforms=flip, **own) for _ in range(2))
    for cached in (first, first, second):
        for (image, target), (again, same) in zip(plain, cached, strict=True):
            assert torch.equal(image, again) and torch.equal(target["boxes"], same["boxes"])


@pytest.mark.parametrize("index", [3, 5])  # image 20 has a crowd only, image 42 nothing
@pytest.mark.parametrize("transforms", [[], [FLIP]])
def test_empty_targets_keep_shape_and_type(tiny_coco, index, transforms):
    target = CocoDataset(*tiny_coco(), transforms=transforms)[index][1]
    assert target["boxes"].shape == (0, 4) and target["boxes"].dtype == torch.float32
    assert target["labels"].shape == (0,) and target["labels"].dtype == torch.int64


def test_test_mode_gives_the_json_entries_with_crowds(tiny_coco):
    dataset = CocoDataset(*tiny_coco(), classes=["dog", "bird"], test_mode=True)
    _, target = dataset[dataset.image_ids.index(33)]
    assert target["coco"]["image"] == dict(id=33, file_name="000033.png", width=100, height=60)
    bird, dog = target["coco"]["annotations"]
    assert (bird["category_id"], bird["bbox"], bird["iscrowd"]) == (18, [70, 5, 25, 45], 0)
    assert (dog["category_id"], dog["bbox"], dog["iscrowd"]) == (7, [5, 20, 50, 30], 1)
    assert target["labels"].tolist() == [1]


def test_a_sample_may_be_changed_by_its_user(tiny_coco):
    dataset = CocoDataset(*tiny_coco(), test_mode=True)
    first = dataset[0][1]
    first["boxes"].zero_(), first["coco"]["annotations"][0].clear(), first["coco"]["image"].clear()
    again = dataset[0][1]
    assert again["boxes"].any() and again["coco"]["image"] and again["coco"]["annotations"][0]


def test_boxes_equal_pycocotools(coco_subset, reference):
    dataset = real(coco_subset)
    assert dataset.image_ids == sorted(reference.getImgIds())
    assert list(dataset.metainfo["category_ids"]) == sorted(reference.getCatIds())
    for index in range(0, 400, 20):
        target = dataset[index][1]
        ids = reference.getAnnIds(dataset.image_ids[index], iscrowd=False)
        annotations = reference.loadAnns(ids)
        boxes = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        # json boxes are rounded to 0.01 px and may overshoot the image by that
        torch.testing.assert_close(target["boxes"].double(), boxes, atol=0.011, rtol=0)
        official = [dataset.metainfo["category_ids"][label] for label in target["labels"]]
        assert official == [a["category_id"] for a in annotations]


def test_images_of_classes_equal_pycocotools(coco_subset, reference):
    classes = ["dog", "cat"]
    dataset = real(coco_subset, classes=classes)
    ids = [reference.getCatIds(catNms=[name])[0] for name in classes]
    assert dataset.metainfo == {"classes": ("dog", "cat"), "category_ids": tuple(ids)}
    annotations = reference.loadAnns(reference.getAnnIds(catIds=ids, iscrowd=False))
    assert dataset.image_ids == sorted({a["image_id"] for a in annotations})
    assert sum(len(dataset[i][1]["labels"]) for i in range(len(dataset))) == len(annotations)


def test_negatives_are_kept_on_request(coco_subset):
    dataset = real(coco_subset, classes=["dog"], keep_negatives=True, test_mode=True)
    positive = real(coco_subset, classes=["dog"])
    assert len(dataset) == 400 > len(positive) > 0
    negative = next(i for i, n in enumerate(dataset.image_ids) if n not in positive.image_ids)
    target = dataset[negative][1]
    assert len(target["boxes"]) == 0
    assert all(a["category_id"] == 18 for a in target["coco"]["annotations"])


def test_an_image_with_only_a_crowd_of_the_class_is_not_a_positive(tiny_coco):
    paths = tiny_coco()
    # dog: boxes in images 5 and 11, a crowd in 33
    positives = CocoDataset(*paths, classes=["dog"])
    assert positives.image_ids == [5, 11]
    assert positives.notes[0].startswith("4 of 6 images have no box of the chosen classes and are")
    assert len(CocoDataset(*paths, classes=["dog"], keep_negatives=True)) == 6


def test_boxes_are_clipped_and_those_without_area_counted(tiny_coco, messages):
    def change(coco):
        boxes = [[-5, -5, 15, 15], [200, 0, 5, 5], [3, 3, 0, 9], [9, 9, 4, -1]]
        for number, box in enumerate(boxes):
            entry = dict(id=100 + number, image_id=42, category_id=3, bbox=box, area=1, iscrowd=0)
            coco["annotations"].append(entry)

    dataset = CocoDataset(*tiny_coco(change=change))
    assert dataset[5][1]["boxes"].tolist() == [[0, 0, 10, 10]]
    # 9 boxes of the tiny set, two of which are crowds, on images 20 and 33
    assert dataset.notes == [
        "2 of 13 boxes have no width or height and are left out (000042.png)",
        "1 of 13 boxes is outside its image and is left out (000042.png)",
        "1 of 13 boxes reaches beyond its image and is clipped (000042.png)",
        "2 of 13 boxes are crowds and are left out (000020.png, 000033.png)",
    ]
    assert dataset.num_boxes == 13 - 3 - 2


def test_boxes_that_are_no_targets_are_no_ground_truth_either(tiny_coco):
    def change(coco):
        for number, box in enumerate([[200, 0, 5, 5], [3, 3, 0, 9], [9, 9, 4, -1], [90, 5, 3, 3]]):
            entry = dict(id=100 + number, image_id=42, category_id=3, bbox=box, area=1, iscrowd=0)
            coco["annotations"].append(entry)

    # image 42 has 80 x 80 pixels, so all four are outside or empty
    dataset = CocoDataset(*tiny_coco(change=change), test_mode=True)
    target = dataset[5][1]
    assert len(target["boxes"]) == 0 and target["coco"]["annotations"] == []
    assert "2 of 13 boxes are outside their image and are left out (000042.png)" in dataset.notes


def test_boxes_that_augmentation_drops_and_repeated_ones_are_counted(tiny_coco):
    def change(coco):
        thin, repeated = (dict(coco["annotations"][0], id=100 + i) for i in range(2))
        coco["annotations"] += [dict(thin, bbox=[4, 4, 0.5, 20]), repeated]

    paths = tiny_coco(change=change)
    thin = "1 of 11 boxes is thinner than a pixel, and training with transforms leaves them out"
    for transforms, expected in (([], False), ([FLIP], True)):
        dataset = CocoDataset(*paths, transforms=transforms)
        assert (f"{thin} (000011.png)" in dataset.notes) == expected
        # cat, dog and the two more of image 11
        assert len(dataset[2][1]["boxes"]) == 4 - expected
        assert any(note.startswith("1 of 11 boxes repeats a box") for note in dataset.notes)

    def without_area(coco):
        coco["annotations"] += [
            dict(coco["annotations"][0], id=i, bbox=[4, 4, 0, 0]) for i in (90, 91)
        ]

    notes = CocoDataset(*tiny_coco("void", change=without_area)).notes
    assert not any("repeat a box" in note for note in notes)  # which are left out, not kept


def test_classes_without_boxes_are_told_with_the_option_that_leaves_them_out(tiny_coco):
    def change(coco):
        coco["categories"].append(dict(id=0, name="pets - v1"))

    paths = tiny_coco(change=change)
    expected = "classes without boxes (1): pets - v1; --classes cat dog bird leaves them out"
    assert expected in CocoDataset(*paths).notes
    evaluated = CocoDataset(*paths, test_mode=True)
    assert "classes without boxes, whose AP is n/a (1): pets - v1" in evaluated.notes


def test_labels_match_classes_by_name(tiny_coco):
    def change(coco):  # cat 3, dog 7, bird 18 become cat 9, dog 1; nothing is a bird
        ids = {3: 9, 7: 1}
        coco["categories"] = [dict(id=1, name="dog"), dict(id=9, name="cat")]
        boxes = [a for a in coco["annotations"] if a["category_id"] in ids]
        coco["annotations"] = [dict(a, category_id=ids[a["category_id"]]) for a in boxes]

    plain = CocoDataset(*tiny_coco())
    other = CocoDataset(*tiny_coco("other", change=change), labels=plain.metainfo["classes"])
    # bird gets the first id after the json's
    assert other.metainfo == {"classes": ("cat", "dog", "bird"), "category_ids": (9, 1, 10)}
    assert other.image_ids == plain.image_ids  # images without these classes stay
    assert other[2][1]["labels"].tolist() == plain[2][1]["labels"].tolist() == [0, 1]


def rotated_photo(paths, image_id, orientation=6):
    """Store an image turned by 90 degrees; the EXIF orientation 6 turns it back, 1 does not."""
    file = f"{paths.image_dir}/{image_id:06d}.png"
    with Image.open(file) as image:
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.rotate(90, expand=True).save(file, exif=exif)


def test_boxes_of_the_upright_photo_are_told_and_the_advice_works(tiny_coco):
    # Image 8 is upright 96 x 64, with a box up to x = 85; stored it is 64 x 96.
    def stored_size(coco):
        coco["images"][3].update(width=64, height=96)

    wrong, right = tiny_coco("wrong", change=stored_size), tiny_coco("right")
    for paths in (wrong, right):
        rotated_photo(paths, 8)
    told = [note for note in CocoDataset(*wrong).notes if "EXIF orientation 6" in note]
    assert len(told) == 1 and "upright picture (96 x 64 for 000008.png)" in told[0]
    # as told: the size of the upright picture
    dataset = CocoDataset(*right)
    assert not [note for note in dataset.notes if "EXIF" in note]
    image = dataset[1][0]
    assert image.shape == (3, 64, 96) and image[:, 10, 5].tolist() == [220, 40, 40]
    # without an orientation in the file, boxes that reach beyond are only clipped
    plain = tiny_coco("plain", change=stored_size)
    rotated_photo(plain, 8, orientation=1)
    assert not [note for note in CocoDataset(*plain).notes if "EXIF" in note]


def test_transforms_see_image_and_boxes(tiny_coco):
    dataset = CocoDataset(*tiny_coco(), transforms=[dict(type="RandomHorizontalFlip", p=1.0)])
    image, target = dataset[0]
    # image 5 is 64 px wide: x of [6, 56] becomes [8, 58]
    assert target["boxes"].tolist() == [[8, 10, 58, 35]]
    assert image[:, 10, 8].tolist() == [40, 200, 60] and image[:, 10, 7].tolist() == [110] * 3


@pytest.mark.parametrize(
    "spec", [dict(type="Resize", size=32), dict(type="RandomHorizontalFlip", p=1.0)]
)
def test_test_mode_refuses_to_move_boxes(tiny_coco, spec):
    dataset = CocoDataset(*tiny_coco(), transforms=[spec], test_mode=True)
    with pytest.raises(ValueError, match=r"000005\.png: the transforms of a test dataset changed"):
        dataset[0]


def test_test_mode_takes_colour_and_keeps_thin_boxes(tiny_coco):
    def change(coco):
        coco["annotations"][2]["bbox"] = [6, 10, 0.5, 25]

    spec = dict(type="RandomPhotometricDistort", p=1.0)
    dataset = CocoDataset(*tiny_coco(change=change), transforms=[spec], test_mode=True)
    assert dataset[0][1]["boxes"].tolist() == [[6, 10, 6.5, 35]]


def test_augmentation_is_a_function_of_seed_epoch_and_image(coco_subset):
    spec = dict(type="RandomResizedCrop", size=(64, 64))
    dataset = real(coco_subset, transforms=[spec], num_images=4)

    def draw(epoch, seed, index):
        dataset.set_epoch(epoch, seed)
        return dataset[index][0]

    first = draw(1, 0, 2)
    torch.rand(7)
    assert torch.equal(draw(1, 0, 2), first)
    assert not torch.equal(draw(2, 0, 2), first)
    assert not torch.equal(draw(1, 5, 2), first)


def test_without_set_epoch_augmentation_follows_the_global_generator(coco_subset):
    spec = dict(type="RandomResizedCrop", size=(64, 64))
    dataset = real(coco_subset, transforms=[spec], num_images=1)
    torch.manual_seed(0)
    first, second = dataset[0][0], dataset[0][0]
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(dataset[0][0], first)


@pytest.mark.parametrize("workers", [0, 2])
def test_in_mmengines_dataloader(tiny_coco, workers):
    ann_file, image_dir = tiny_coco()
    flips = [dict(type="RandomResizedCrop", size=(32, 32))]
    dataset = dict(type="CocoDataset", ann_file=ann_file, image_dir=image_dir, transforms=flips)
    config = dict(
        dataset=DATASETS.build(dataset),
        batch_size=4,
        num_workers=workers,
        persistent_workers=workers > 0,
        sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=dict(type="det_losses.detection_collate"),
    )
    loader = Runner.build_dataloader(config, seed=0)
    assert loader.dataset.metainfo["classes"] == ("cat", "dog", "bird")
    epochs = []
    for epoch in (0, 1, 0):
        loader.dataset.set_epoch(epoch)
        batches = list(loader)
        assert [t["image_id"] for b in batches for t in b["targets"]] == [5, 8, 11, 20, 33, 42]
        epochs.append(torch.stack([image for batch in batches for image in batch["images"]]))
    # persistent workers see the new epoch, and an epoch repeats exactly
    assert not torch.equal(epochs[0], epochs[1]) and torch.equal(epochs[0], epochs[2])


def test_missing_image_folder(tiny_coco):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such image folder .relative paths"):
        CocoDataset(tiny_coco().ann_file, "nowhere")


def test_missing_images_are_counted_at_construction(tiny_coco):
    ann_file, image_dir = tiny_coco()
    for image_id in (5, 11):
        os.remove(f"{image_dir}/{image_id:06d}.png")
    with pytest.raises(FileNotFoundError, match=r"2 of 6 images are missing, .* is 000005\.png\."):
        CocoDataset(ann_file, image_dir)
    # no bird is on these images: what is not used may be missing
    assert CocoDataset(ann_file, image_dir, classes=["bird"]).image_ids == [8, 33]


def test_file_names_with_folders(tiny_coco):
    def change(coco):
        for image in coco["images"]:
            image["file_name"] = f"a/b/{image['file_name']}"

    ann_file, image_dir = tiny_coco(change=change)
    with pytest.raises(FileNotFoundError, match=r"6 of 6 images are missing"):
        CocoDataset(ann_file, image_dir)
    shutil.copytree(image_dir, f"{image_dir}/a/b")
    assert CocoDataset(ann_file, image_dir)[0][0].shape == (3, 96, 64)


def test_size_that_contradicts_the_image(tiny_coco):
    paths = tiny_coco(change=lambda coco: coco["images"][1].update(width=65))
    with pytest.raises(ValueError, match=r"000005\.png: the annotation file says 65 x 96"):
        CocoDataset(*paths)


def test_broken_images_are_left_out_after_the_selection(tiny_coco):
    ann_file, image_dir = tiny_coco()
    chosen = CocoDataset(ann_file, image_dir, num_images=4).image_ids
    os.truncate(f"{image_dir}/{chosen[1]:06d}.png", 0)
    os.remove(f"{image_dir}/{chosen[3]:06d}.png")
    dataset = CocoDataset(ann_file, image_dir, num_images=4, skip_broken=True, test_mode=True)
    assert dataset.image_ids == [chosen[0], chosen[2]]
    assert [target["image_id"] for _, target in dataset] == dataset.image_ids
    names = f"{chosen[1]:06d}.png, {chosen[3]:06d}.png"
    assert f"2 of 4 images cannot be read and are left out: {names}" in dataset.notes
    assert list(dataset.broken) == [f"{chosen[1]:06d}.png", f"{chosen[3]:06d}.png"]
    plain = CocoDataset(*tiny_coco("plain"), test_mode=True)
    for index, image_id in enumerate(dataset.image_ids):
        boxes = plain[plain.image_ids.index(image_id)][1]["boxes"]
        assert torch.equal(dataset[index][1]["boxes"], boxes)


def test_copies_of_a_sample_are_augmented_differently(coco_subset):
    spec = dict(type="RandomResizedCrop", size=(64, 64))
    dataset = real(coco_subset, transforms=[spec], num_images=1)
    dataset.set_epoch(1, 0)
    assert torch.equal(dataset.sample(0)[0], dataset[0][0])
    assert torch.equal(dataset.sample(0, 1)[0], dataset.sample(0, 1)[0])
    assert not torch.equal(dataset.sample(0, 1)[0], dataset[0][0])


def test_misspelt_transform_is_found_at_construction(tiny_coco):
    with pytest.raises(NotRegisteredError, match="'RandomHorizontalFlip'"):
        CocoDataset(*tiny_coco(), transforms=[dict(type="RandomHorizontalFlp")])
