"""Which classes and which images of an annotation file are used: one rule for all callers."""

import difflib
import hashlib
from collections.abc import Collection, Sequence

from det_losses.data.coco_json import CocoDict


def select_categories(
    coco: CocoDict, classes: Sequence[str] | None, source: str
) -> list[tuple[int, str]]:
    """Return (official id, name) of each class: in the given order, or all by ascending id.

    Raises:
        TypeError: ``classes`` is no list of names.
        ValueError: A name is unknown (the nearest ones are suggested), repeated, or none is given.
    """
    ids = {category["name"]: category["id"] for category in coco["categories"]}
    if classes is None:
        return sorted((category_id, name) for name, category_id in ids.items())
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise TypeError(f"classes must be a list of class names, got {classes!r}")
    if not classes:
        raise ValueError("classes is empty; name at least one, or leave it None for all classes")
    for name in classes:
        if name not in ids:
            lower = {known.lower(): known for known in ids}
            near = [lower[n] for n in difflib.get_close_matches(name.lower(), lower)]
            hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise ValueError(
                f"{source}: no class {name!r}. {hint}The classes are {', '.join(sorted(ids))}."
            )
        if list(classes).count(name) > 1:
            raise ValueError(f"classes names {name!r} twice; name each class once")
    return [(ids[name], name) for name in classes]


def select_images(
    coco: CocoDict,
    category_ids: Collection[int] | None = None,
    num_images: int | None = None,
    seed: int = 0,
    keep_negatives: bool = False,
    *,
    exclude: Collection[int] = (),
    source: str = "the annotation file",
) -> list[int]:
    """Choose images, deterministic by ``seed`` and independent of the order in the file.

    Images are ranked by a hash of seed and image id, and the first ``num_images`` are taken. So
    with one seed a smaller subset is a part of every larger one, on every machine and version.

    Args:
        coco: As read by :func:`~det_losses.data.coco_json.load_coco_json`.
        category_ids: The chosen classes: only images with a box of these that is no crowd are
            candidates. None: every image is.
        num_images: How many; None for all candidates.
        seed: Another seed ranks the images otherwise.
        keep_negatives: Every image is a candidate, whatever it shows.
        exclude: Image ids that are no candidates.
        source: What error messages call the file.

    Returns:
        Image ids in ascending order.

    Raises:
        ValueError: ``num_images`` is not positive, or there are fewer candidates (0 included).
    """
    if num_images is not None and num_images < 1:
        raise ValueError(f"num_images must be at least 1, or None for all; got {num_images}")
    candidates = {image["id"] for image in coco["images"]}
    what = "images"
    if category_ids is not None and not keep_negatives:
        what = "images with a box of the chosen classes"
        candidates = {
            annotation["image_id"]
            for annotation in coco["annotations"]
            if annotation["category_id"] in category_ids and not annotation.get("iscrowd", 0)
        }
    candidates -= set(exclude)
    wanted = len(candidates) if num_images is None else num_images
    if not candidates or wanted > len(candidates):
        left = " outside the other split" if exclude else ""
        asked = f"{num_images} images asked for, but " if num_images is not None else ""
        raise ValueError(
            f"{source}: {asked}there are {len(candidates)} {what}{left}. Ask for fewer images or "
            "choose other classes."
        )
    return sorted(sorted(candidates, key=lambda image_id: _rank(seed, image_id))[:wanted])


def _rank(seed: int, image_id: int) -> bytes:
    return hashlib.sha256(f"{seed}:{image_id}".encode()).digest()
