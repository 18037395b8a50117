import json
import os
import re
import shutil
import struct

import pytest
from PIL import Image

from det_losses.data import image_check, images
from det_losses.data.image_check import check_images, reported_together
from det_losses.errors import InputError


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that a check has opened."""
    names, check = [], image_check.check_image

    def spy(path, size):
        names.append(os.path.basename(path))
        return check(path, size)

    monkeypatch.setattr(image_check, "check_image", spy)
    return names


@pytest.fixture
def make(tmp_path):
    """Factory of a folder with images of 20 x 10 pixels."""

    def build(count=6, name="images"):
        folder = tmp_path / name
        folder.mkdir()
        entries = []
        for number in range(count):
            Image.new("RGB", (20, 10), (number, 0, 0)).save(folder / f"{number}.jpg")
            entries.append(dict(file_name=f"{number}.jpg", width=20, height=10))
        return folder, entries

    return build


def truncate(path):
    os.truncate(path, os.path.getsize(path) - 150)


DAMAGES = {
    "truncated": (truncate, "not a readable image"),
    "empty": (lambda path: os.truncate(path, 0), "not a readable image .the file is empty."),
    "link": (lambda path: (path.unlink(), path.symlink_to("gone")), "a link to gone, which is"),
    "missing": (lambda path: path.unlink(), "no such image file"),
    "fifo": (lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file"),
    "size": (lambda path: Image.new("RGB", (10, 20)).save(path), "width and height exchanged"),
    "other": (lambda path: path.write_bytes(b"BM" + b"\xff" * 60), "not a readable image"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_broken_image_is_named_before_training(make, kind):
    damage, reason = DAMAGES[kind]
    folder, entries = make()
    damage(folder / "3.jpg")
    pattern = rf"1 of 6 images cannot be used: .*3\.jpg: .*{reason}.*--skip-broken"
    for _ in range(2):  # what is broken is not remembered
        with pytest.raises(ValueError, match=pattern):
            check_images(str(folder), entries, skip=False)
    assert list(check_images(str(folder), entries, skip=True)) == ["3.jpg"]


def test_a_broken_image_is_told_without_warnings_of_pil(make, recwarn):
    folder, entries = make(1)
    path, sizes = folder / "0.jpg", (257, 3, 20, 0, 1)  # a TIFF that ends within its tags
    path.write_bytes(b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHIHH", *sizes) + b"\0" * 3)
    with pytest.raises(ValueError, match=r"0\.jpg: not a readable image"):
        check_images(str(folder), entries, skip=False)
    assert not recwarn.list


def test_the_first_three_are_shown_and_the_others_counted(make):
    folder, entries = make()
    for number in range(5):
        os.truncate(folder / f"{number}.jpg", 0)
    with pytest.raises(ValueError) as info:
        check_images(str(folder), entries, skip=False)
    assert re.findall(r"(\d)\.jpg: not a readable", str(info.value)) == ["0", "1", "2"]
    assert "5 of 6 images" in str(info.value) and "; and 2 more. --skip-broken" in str(info.value)


def test_a_set_of_broken_images_only_is_an_error_with_skip_too(make):
    folder, entries = make(2)
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match=r"2 of 2 images cannot be used: .*0\.jpg: no such image"):
        check_images(str(folder), entries, skip=True)


def test_good_files_are_opened_again_only_if_they_change(make, opened):
    folder, entries = make()
    before = sorted(os.listdir(folder))
    check_images(str(folder), entries, skip=False)
    assert sorted(opened) == [f"{number}.jpg" for number in range(6)]
    assert sorted(os.listdir(folder)) == before  # nothing is written beside the images
    del opened[:]
    check_images(str(folder), entries, skip=False)
    assert opened == []
    Image.new("RGB", (20, 10), (0, 0, 99)).save(folder / "1.jpg")
    os.utime(folder / "2.jpg", ns=(1, 1))
    Image.new("RGB", (20, 12)).save(folder / "4.jpg")
    entries[4]["height"] = 12
    check_images(str(folder), entries, skip=False)
    assert sorted(opened) == ["1.jpg", "2.jpg", "4.jpg"]
    entries[5]["width"] = 21
    with pytest.raises(ValueError, match=r"5\.jpg: the annotation file says 21 x 10"):
        check_images(str(folder), entries, skip=False)


def test_other_images_of_the_folder_stay_known(make, opened):
    folder, entries = make()
    check_images(str(folder), entries[:3], skip=False)
    check_images(str(folder), entries[3:], skip=False)
    check_images(str(folder), entries, skip=False)
    assert len(opened) == 6


@pytest.mark.parametrize("content", ["", "{", "[]", '{"good": 3}', '{"decoder": "0", "good": {}}'])
def test_a_damaged_cache_is_ignored(make, opened, content, monkeypatch, tmp_path):
    monkeypatch.setenv("DET_LOSSES_CACHE", str(tmp_path / "cache"))
    folder, entries = make(2)
    check_images(str(folder), entries, skip=False)
    (file,) = (tmp_path / "cache" / "images").glob("*.json")
    assert json.loads(file.read_text())["folder"] == str(folder)
    file.write_text(content)
    for _ in range(2):
        check_images(str(folder), entries, skip=False)
    assert len(opened) == 4


def test_a_cache_that_cannot_be_written_costs_only_time(make, opened, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DET_LOSSES_CACHE", str(tmp_path / "file"))
    folder, entries = make(2)
    for _ in range(2):
        check_images(str(folder), entries, skip=False)
    assert len(opened) == 4


def test_an_interrupted_check_goes_on_where_it_stopped(make, opened, monkeypatch):
    folder, entries = make(60)
    spy = image_check.check_image

    def interrupt(path, size):
        if path.endswith("/40.jpg"):
            raise KeyboardInterrupt
        return spy(path, size)

    monkeypatch.setattr(image_check, "check_image", interrupt)
    with pytest.raises(KeyboardInterrupt):
        check_images(str(folder), entries, skip=False)
    monkeypatch.setattr(image_check, "check_image", spy)
    del opened[:]
    check_images(str(folder), entries, skip=False)
    assert sorted(opened) == sorted(f"{number}.jpg" for number in range(40, 60))


def test_a_long_check_is_announced(make, messages, monkeypatch):
    monkeypatch.setattr(image_check, "_ANNOUNCED_AFTER", 0.0)
    folder, entries = make(3)
    check_images(str(folder), entries, skip=False)
    assert re.fullmatch(rf"{folder}: opening 3 images, only once: 33%, \d+ s left", messages[0])
    assert len(messages) == 1  # the next one is due after 30 s
    check_images(str(folder), entries, skip=False)
    assert len(messages) == 1


def test_broken_images_of_several_datasets_are_one_error(make):
    sets = [make(3, name) for name in ("train", "val")]
    for folder, _ in sets:
        os.truncate(folder / "1.jpg", 0)
    pattern = (
        r"^1 of 3 images cannot be used: \S*train/1\.jpg: [^;]*\. "
        r"1 of 3 images cannot be used: \S*val/1\.jpg: [^;]*\. --skip-broken \(.*leaves them out\.$"
    )
    with pytest.raises(ValueError, match=pattern), reported_together():
        for folder, entries in sets:
            check_images(str(folder), entries, skip=False)


def test_a_further_error_of_the_data_follows_that_of_its_images(make):
    folder, entries = make(2)
    os.truncate(folder / "1.jpg", 0)
    with pytest.raises(ValueError, match=r"1\.jpg: .* leaves them out\. no class 'cta'$"):
        with reported_together():
            check_images(str(folder), entries, skip=False)
            raise InputError("no class 'cta'")


def large_png(folder):
    """A PNG of more than 16 megapixels."""
    size = (4100, 4000)
    Image.new("L", size).save(folder / "large.png", compress_level=1)
    return [dict(file_name="large.png", width=size[0], height=size[1])]


def test_a_truncated_large_png_is_found(tmp_path):
    entries = large_png(tmp_path)
    check_images(str(tmp_path), entries, skip=False)
    truncate(tmp_path / "large.png")
    with pytest.raises(ValueError, match=r"large\.png: not a readable image .*truncated"):
        check_images(str(tmp_path), entries, skip=False)


def test_an_image_that_the_memory_does_not_allow_to_decode_is_told(tmp_path, monkeypatch, capsys):
    entries = large_png(tmp_path)
    truncate(tmp_path / "large.png")
    monkeypatch.setattr(images, "_free_memory", lambda: 1e6)
    said = []
    monkeypatch.setattr(image_check, "print_log", lambda text, **_: said.append(text))
    for _ in range(2):  # it is not remembered as a good one
        assert check_images(str(tmp_path), entries, skip=False) == {}
    line, _ = said
    assert line.startswith("1 image too large to be decoded in the free memory") and line.endswith(
        "large.png"
    )
