import os

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from det_losses.data.images import ImageCache, check_image, read_image
from det_losses.errors import InputError

ORIENTATION = 0x0112


def gradient(width=12, height=8):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 20, y * 30, x * 0 + 90], -1).astype(np.uint8)


def save(path, image, orientation=None, **options):
    exif = Image.Exif()
    if orientation:
        exif[ORIENTATION] = orientation
    image.save(path, exif=exif, **options)
    return path


def test_rgb_equals_opencvs_decoder(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(gradient()))
    image = read_image(path, (12, 8))
    assert image.dtype == torch.uint8 and image.is_contiguous()
    reference = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), reference)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_other_modes_become_rgb(tmp_path, mode):
    # a flat colour that each of the modes can hold exactly, alpha aside
    image = Image.new("RGB", (12, 8), (255, 255, 255)).convert(mode)
    read = read_image(save(tmp_path / "a.png", image), (12, 8))
    assert read.shape == (3, 8, 12) and (read == 255).all()


def test_palette_with_transparency_in_bytes_gives_its_colours_without_a_warning(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    path = save(tmp_path / "a.png", image, transparency=bytes([0, 128]))
    assert read_image(path, (4, 4))[:, 0, 0].tolist() == [10, 20, 30]


def test_cmyk_jpeg_has_the_colours_of_its_rgb_original(tmp_path):
    rgb = Image.new("RGB", (16, 16), (200, 40, 90))
    path = save(tmp_path / "a.jpg", rgb.convert("CMYK"), quality=100)
    read = read_image(path, (16, 16)).float().mean((1, 2))
    # two conversions and JPEG's rounding: a few grey levels
    assert torch.allclose(read, torch.tensor([200.0, 40.0, 90.0]), atol=4)


def test_16_bits_are_scaled_not_clipped(tmp_path):
    # 65535 / 257 = 255, 32896 / 257 = 128, 257 / 257 = 1
    values = np.array([[65535, 32896, 257, 0]], np.uint16)
    path = save(tmp_path / "a.png", Image.fromarray(values))
    assert read_image(path, (4, 1))[0, 0].tolist() == [255, 128, 1, 0]


def test_float_image_is_refused(tmp_path):
    path = save(tmp_path / "a.tiff", Image.fromarray(np.zeros((2, 2), np.float32)))
    with pytest.raises(ValueError, match=r"a\.tiff: float images are not supported"):
        read_image(path, (2, 2))


def test_exif_is_applied_where_only_the_turned_image_has_the_size(tmp_path):
    # orientation 6 means: turn a quarter clockwise to view, so rows become columns
    path = save(tmp_path / "a.png", Image.fromarray(gradient()), orientation=6)
    rotated = np.rot90(gradient(), k=-1)
    assert np.array_equal(read_image(path, (8, 12)).permute(1, 2, 0).numpy(), rotated)


@pytest.mark.parametrize("orientation", [2, 3, 4, 6, 8])
def test_exif_is_not_applied_where_the_stored_image_has_the_size(tmp_path, orientation):
    path = save(tmp_path / "a.png", Image.fromarray(gradient()), orientation=orientation)
    assert np.array_equal(read_image(path, (12, 8)).permute(1, 2, 0).numpy(), gradient())


def test_square_image_is_read_as_stored(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(gradient(8, 8)), orientation=6)
    assert np.array_equal(read_image(path, (8, 8)).permute(1, 2, 0).numpy(), gradient(8, 8))


def test_a_size_that_fits_no_orientation_is_an_error_with_all_sizes(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(gradient()), orientation=6)
    message = r"a\.png: the annotation file says 10 x 10 .*image is 12 x 8, rotated.* 6 8 x 12\."
    with pytest.raises(ValueError, match=message):
        read_image(path, (10, 10))


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_an_orientation_that_keeps_the_size_does_not_explain_exchanged_sides(tmp_path, orientation):
    path = save(tmp_path / "a.png", Image.fromarray(gradient()), orientation=orientation)
    with pytest.raises(ValueError, match=rf"rotated by its EXIF orientation {orientation} 12 x 8"):
        read_image(path, (8, 12))


def test_the_error_of_a_wrong_size_without_exif_does_not_mention_exif(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(gradient()))
    message = r"says 8 x 12 .*but the image is 12 x 8\. Are width and height exchanged\? Annotate"
    with pytest.raises(ValueError, match=message):
        read_image(path, (8, 12))
    with pytest.raises(ValueError, match=r"says 8 x 11 .*but the image is 12 x 8\. Annotate"):
        read_image(path, (8, 11))


@pytest.mark.parametrize("content", [b"not an image", b"", b"\x89PNG\r\n\x1a\n broken"])
def test_unreadable_file_is_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png: not a readable image .*Replace the file"):
        read_image(tmp_path / "a.png", (1, 1))


def test_truncated_file_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = save(tmp_path / "a.jpg", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ValueError, match=r"a\.jpg: not a readable image .*truncated"):
        read_image(path, (64, 64))


FORMATS = {
    "JPEG": {},
    "PNG": {},
    "BMP": {},
    "GIF": {},
    "PPM": {},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {},
    "JPEG2000": {},
}


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_bytes_are_the_same_error_when_checked_and_when_read(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8)
    path, size = tmp_path / "a", (40, 24)
    Image.fromarray(noise).save(path, kind, **FORMATS[kind])
    content, rng, refused = path.read_bytes(), np.random.default_rng(1), 0

    def outcome(function):
        try:
            function(path, size)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
            return type(error)

    for trial in range(40):
        damaged = bytearray(content)
        if trial % 4 == 0:
            del damaged[int(rng.integers(len(damaged))) :]
        else:  # bytes of the header
            for place in rng.integers(0, min(120, len(damaged)), 1 + trial % 3):
                damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        found = outcome(read_image)
        assert outcome(check_image) == found
        refused += found is not None
    assert refused >= 10


def test_an_image_over_the_limit_of_pixels_is_named_with_its_size(tmp_path):
    # a header of 14000 x 13000 pixels, which is all that is read
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6 14000 13000 255\n")
    message = r"a\.ppm: 14000 x 13000 pixels .*than the 179 megapixels .*Cut the image into tiles"
    with pytest.raises(ValueError, match=message):
        read_image(path, (14000, 13000))


@pytest.mark.parametrize("size", [(2000, 3), (2, 2000)])
def test_an_image_that_would_vanish_when_resized_is_refused_before_training(tmp_path, size):
    path = save(tmp_path / "a.png", Image.new("RGB", size))
    with pytest.raises(ValueError, match=r"a\.png: \d+ x \d+ pixels, .* 100 times the other"):
        check_image(path, size)
    check_image(save(tmp_path / "b.png", Image.new("RGB", (300, 3))), (300, 3))


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_what_is_not_a_regular_file_is_refused_without_opening_it(tmp_path, kind):
    path = tmp_path / "a.jpg"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"a\.jpg: not a regular file"):
        read_image(path, (1, 1))


@pytest.mark.parametrize("name", ["a\x1b[2J.jpg", "a\udc80.jpg", "a\0.jpg", "a\ud800.jpg"])
def test_control_characters_of_a_name_are_escaped(tmp_path, name):
    with pytest.raises((FileNotFoundError, ValueError)) as info:
        read_image(str(tmp_path / name), (1, 1))
    assert str(info.value).isprintable() and "a\\" in str(info.value)


def test_a_broken_link_is_named_with_its_target(tmp_path):
    (tmp_path / "a.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(
        FileNotFoundError, match=r"a\.jpg: a link to nowhere\.jpg, which is missing"
    ):
        read_image(tmp_path / "a.jpg", (1, 1))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg: no such image file"):
        read_image(tmp_path / "gone.jpg", (1, 1))


def test_real_grayscale_image(coco_subset):
    for path in sorted((coco_subset / "images").iterdir()):
        with Image.open(path) as image:
            mode, size = image.mode, image.size
        if mode == "L":
            break
    image = read_image(path, size)
    assert image.shape == (3, size[1], size[0])
    assert torch.equal(image[0], image[1]) and torch.equal(image[0], image[2])


def test_a_cache_reads_each_file_once_up_to_its_bound(tmp_path):
    paths = [save(tmp_path / f"{i}.png", Image.new("RGB", (16, 16), (i, 0, 0))) for i in range(3)]
    cache = ImageCache(2 * 16 * 16 * 3 / 2**20)  # two images of 16 x 16 x 3 bytes
    for path in paths * 2:  # read from the file and from memory
        cache.read(path, (16, 16)).fill_(7)  # a copy: what is kept does not change
    for path in paths[:2]:
        path.unlink()
    values = [int(cache.read(path, (16, 16))[0, 0, 0]) for path in paths]
    assert values == [0, 1, 2]
    paths[2].unlink()
    with pytest.raises(FileNotFoundError):
        cache.read(paths[2], (16, 16))


def test_a_cache_of_negative_size_is_refused():
    with pytest.raises(ValueError, match="0 or more MiB, got -1"):
        ImageCache(-1)


def test_a_shared_cache_reads_each_file_once_for_all_processes(tmp_path, monkeypatch):
    path, folder = str(tmp_path / "a.png"), tmp_path / "cache"
    Image.new("RGB", (20, 10), (1, 2, 3)).save(path)
    first = ImageCache(1, folder).read(path, (20, 10))
    read = []
    monkeypatch.setattr("det_losses.data.images.read_image", lambda *a: read.append(a) or first)
    again = ImageCache(1, folder).read(path, (20, 10))
    assert torch.equal(again, first) and not read
    again.zero_()  # the caller may change it
    assert torch.equal(ImageCache(1, folder).read(path, (20, 10)), first)
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-1])  # cut
    ImageCache(1, folder).read(path, (20, 10))
    os.utime(path, (1, 1))  # another image by the same name
    ImageCache(1, folder).read(path, (20, 10))
    assert len(read) == 2


def test_a_shared_cache_keeps_to_its_bound_whichever_process_fills_it(tmp_path):
    paths = [str(tmp_path / f"{k}.png") for k in range(4)]
    for path in paths:
        Image.new("RGB", (200, 100)).save(path)
    for path in paths:  # each image is 60,000 bytes, the bound is 157,286
        ImageCache(0.15, tmp_path / "cache").read(path, (200, 100))
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_shared_cache_without_a_bound_or_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="give cache_mb"):
        ImageCache(0, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cache_dir='.*file'"):
        ImageCache(1, tmp_path / "file")


def test_a_file_that_another_process_is_writing_is_not_counted(tmp_path, monkeypatch):
    for name in ("kept.npy", "renamed.part"):
        (tmp_path / name).write_bytes(bytes(1000))
    entries = list(os.scandir(tmp_path))
    (tmp_path / "renamed.part").unlink()
    monkeypatch.setattr("os.scandir", lambda folder: entries)
    assert ImageCache(1, tmp_path)._used == 1000
