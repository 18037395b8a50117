import io
import os
import re
import threading
import time
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from svg_checks import check_figures, texts_of

from det_losses.report import photos
from det_losses.report.photos import DrawnBox, Jpegs, Panel, read_jpeg, side_by_side

JPEG = b"\xff\xd8not looked at"


def drawn(boxes, size=(320, 240), jpeg=JPEG):
    return side_by_side(jpeg, size, [Panel("<b>one</b>", boxes)], "a & b", "image")


def outlines(picture):
    """Return (x, y, width, height) and style of the drawn boxes; a unit is a pixel here."""
    found = []
    for element in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}path"):
        corners = np.array(re.findall(r"[\d.]+", element.get("d")), float).reshape(-1, 2)
        low, high = corners.min(axis=0), corners.max(axis=0)
        found.append(([*low, *(high - low)], element.get("style")))
    return found


def test_right_and_wrong_differ_without_colour():
    box = (10.0, 20.0, 30.0, 40.0)
    dashes = {}
    for kind in ("truth", "right", "wrong"):
        (_, under), (place, over) = outlines(drawn([DrawnBox(box, "cat", kind)]))
        assert place == list(box)
        assert "stroke:#000000" in under  # so that the box is visible on any image
        assert "dasharray" not in under
        dashes[kind] = "dasharray" in over

    assert dashes == {"truth": False, "right": False, "wrong": True}


def test_pictures_can_share_a_page():
    boxes = [DrawnBox((10, 20, 30, 40), "<script>", "right")]
    panels = [Panel(name, boxes) for name in ("a", "<i>", "c")]
    pictures = [side_by_side(jpeg, (320, 240), panels, "x", "image") for jpeg in (JPEG, JPEG * 2)]

    elements = check_figures(pictures)

    names = [element.tag.rpartition("}")[2] for element in elements]
    assert (names.count("svg"), names.count("image"), names.count("use")) == (6, 2, 4)
    assert "<script>" in texts_of(pictures[0])


def test_a_name_is_inside_the_image_and_overlaps_no_other():
    boxes = [DrawnBox((300.0, 0.0, 20.0, 15.0), "skateboard", "right")]
    boxes += [DrawnBox((100.0, 100.0, 90.0 - n, 90.0 - n), f"cat{n}", "wrong") for n in range(3)]
    root = ElementTree.fromstring(drawn(boxes))
    texts = [e for e in root.iter() if e.tag.rpartition("}")[2] == "text"]
    places = {t.text: (float(t.get("x")), float(t.get("y"))) for t in texts}

    assert set(places) == {"skateboard", "cat0", "cat1", "cat2"}
    assert places["skateboard"][0] + 10 * 6 < 320 and places["skateboard"][1] > 9
    cats = [places[f"cat{n}"] for n in range(3)]
    for one in range(3):
        for other in range(one):
            apart = abs(cats[one][0] - cats[other][0]), abs(cats[one][1] - cats[other][1])
            assert apart[0] >= 4 * 6 or apart[1] >= 11  # 12 units high, about 7 per character


def test_names_without_a_free_place_are_left_out_smallest_first():
    boxes = [
        DrawnBox((100.0, 100.0, 60.0 + n, 60.0 + n), f"wineglass{n}", "right") for n in range(30)
    ]
    shown = texts_of(drawn(boxes))

    assert 4 <= len(shown) < 30 and "wineglass29" in shown
    assert len(outlines(drawn(boxes))) == 60


def test_jpeg_is_small_and_upright(tmp_path):
    pixels = np.zeros((200, 400, 3), np.uint8)
    pixels[:, :200] = (250, 20, 20)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    # Orientation 6: stored with its upper side to the left; the json speaks of the upright image.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(pixels).copy()).save(tmp_path / "turned.jpg", exif=exif, quality=95)

    for name in ("a.png", "turned.jpg"):
        with Image.open(io.BytesIO(read_jpeg(tmp_path / name, (400, 200), 100))) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (100, 50))
            left, right = (image.getpixel((x, 25)) for x in (20, 80))
        assert left[0] > 200 and right[0] < 60, name


def test_a_missing_or_broken_image_is_named(tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")

    with pytest.raises(FileNotFoundError, match=r"none\.jpg: no such image file"):
        read_jpeg(tmp_path / "none.jpg", (4, 4), 100)
    with pytest.raises(ValueError, match=r"text\.jpg: not a readable image"):
        read_jpeg(tmp_path / "text.jpg", (4, 4), 100)


def test_a_fifo_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to("a.png")
    for name in ("a.png", "link.png"):
        with pytest.raises(ValueError, match=rf"{name}: not a regular file"):
            Jpegs().read(tmp_path / name, (400, 200), 100)
    with pytest.raises(FileNotFoundError):
        Jpegs().read(tmp_path / "absent.png", (400, 200), 100)


def test_images_that_cannot_be_decoded_share_a_limited_time(tmp_path, monkeypatch):
    going, read = threading.Event(), photos.read_image
    monkeypatch.setattr(photos, "read_image", lambda *args: going.wait(60) and read(*args))
    (tmp_path / "a.png").touch()
    jpegs, begin = Jpegs(0.1), time.monotonic()
    for _ in range(8):  # as many as a report shows
        with pytest.raises(ValueError, match=r"a\.png: not decoded in time"):
            jpegs.read(tmp_path / "a.png", (400, 200), 100)
    assert time.monotonic() - begin < 5
    going.set()  # ends the threads
