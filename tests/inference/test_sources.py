import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from det_losses.errors import InputError, MissingFileError
from det_losses.inference.sources import find_files, frame_rate, read_frames


def test_files_of_folders_and_patterns_each_once(tmp_path):
    names = ["b.jpg", "a.PNG", "sub/c.mp4", "notes.txt", ".hidden.jpg", ".cache/d.jpg", "sub/e.dat"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(*sources):
        files = find_files([tmp_path / source for source in sources])
        return [file.relative_to(tmp_path).as_posix() for file in files]

    assert found(".") == ["a.PNG", "b.jpg", "sub/c.mp4"]
    assert found("*.jpg", ".", "b.jpg") == ["b.jpg", "a.PNG", "sub/c.mp4"]
    assert found("**/*.mp4") == ["sub/c.mp4"]
    assert found("sub/e.dat") == ["sub/e.dat"]  # a file that is named is read
    with pytest.raises(MissingFileError, match="no file matches this pattern"):
        found("*.webp")
    with pytest.raises(MissingFileError, match="no such image, video or folder"):
        found("missing.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image and no video in this folder"):
        found("empty")


def test_a_pattern_that_is_a_files_name_is_the_file(tmp_path):
    (tmp_path / "photo[1].jpg").touch()
    assert find_files([tmp_path / "photo[1].jpg"]) == [tmp_path / "photo[1].jpg"]


def test_an_image_is_upright(tmp_path):
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    (image,) = read_frames(tmp_path / "a.png")
    assert np.array_equal(image[0].numpy(), np.rot90(pixels, k=-1)) and image.shape[0] == 3


def test_frames_of_a_video_in_rgb(tmp_path):
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.0, (32, 16))
    colours = [(250, 10, 10), (10, 10, 250)]  # red, blue
    for colour in colours:
        writer.write(np.full((16, 32, 3), colour[::-1], np.uint8))
    writer.release()
    frames = list(read_frames(path))
    assert [tuple(frame.shape) for frame in frames] == [(3, 16, 32)] * 2
    means = torch.stack([frame.float().mean((1, 2)) for frame in frames])
    assert torch.allclose(means, torch.tensor(colours).float(), atol=8)  # JPEG
    assert frame_rate(path) == 12


@pytest.mark.parametrize("name", ["a.jpg", "a.mp4"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    (tmp_path / name).write_text("no picture")
    with pytest.raises(InputError, match=rf"{name}: not a readable .* Replace the file\.$"):
        list(read_frames(tmp_path / name))
