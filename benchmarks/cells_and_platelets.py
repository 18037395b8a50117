"""Write a made data set with tiny objects, to train on with and without ``--fit-anchors``.

    python benchmarks/cells_and_platelets.py OUT

OUT has train.json (100 images), val.json (60 images) and images/: noise of 160 x 160 pixels with
nine "cells" of 20 to 31 px and three "platelets" of 6.5 to 10 px each. See docs/data.md.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE = 160
KINDS = (("cell", 9, 25, (200, 90, 90)), ("platelet", 3, 8, (120, 70, 160)))


def draw(rng: np.random.Generator) -> tuple[Image.Image, list[tuple[int, list[float]]]]:
    """Return an image, and the category and the box ``x, y, w, h`` of each object."""
    pixels = rng.normal(215, 12, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)
    image, found = Image.fromarray(pixels), []
    pen = ImageDraw.Draw(image)
    for category, (_, count, side, colour) in enumerate(KINDS, 1):
        for _ in range(count):
            w, h = np.round(side * rng.uniform(0.8, 1.25, 2))
            x, y = np.floor(rng.uniform(0, 1, 2) * (SIZE - np.array([w, h])))
            shade = tuple(int(each + rng.normal(0, 15)) for each in colour)
            pen.ellipse([x, y, x + w - 1, y + h - 1], fill=shade)
            found.append((category, [x, y, w, h]))
    return image, found


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    (out / "images").mkdir(parents=True)
    rng, number = np.random.default_rng(0), 0
    categories = [{"id": i, "name": name} for i, (name, *_) in enumerate(KINDS, 1)]
    for split, count in (("train", 100), ("val", 60)):
        images, annotations = [], []
        for _ in range(count):
            number += 1
            file = f"{number:03d}.png"
            image, objects = draw(rng)
            image.save(out / "images" / file)
            images.append(dict(id=number, file_name=file, width=SIZE, height=SIZE))
            for category, box in objects:
                entry = dict(image_id=number, category_id=category, bbox=box, iscrowd=0)
                annotations.append(dict(entry, id=len(annotations) + 1, area=box[2] * box[3]))
        content = dict(images=images, annotations=annotations, categories=categories)
        (out / f"{split}.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main()
