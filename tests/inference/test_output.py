import errno
import json
import os
import resource
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from det_losses.errors import ExistingFileError, InputError
from det_losses.evaluation.result_file import read_detections
from det_losses.inference import TrainedDetector
from det_losses.inference.output import Output, new_folder

DETECTOR = TrainedDetector(None, ("cat", "dog"), (3, 7), [], torch.device("cpu"))


def found(file, frame=None, size=(64, 48)):
    return dict(
        boxes=torch.tensor([[4.0, 8.0, 24.5, 38.0]]),
        scores=torch.tensor([0.75]),
        labels=torch.tensor([1]),
        names=["dog"],
        size=size,
        file=Path(file),
        frame=frame,
    )


def test_a_json_in_coco_format_and_a_picture_of_each_file(tmp_path):
    files = [tmp_path / "in" / name for name in ("a.jpg", "sub/a.jpg", "sub/b.tif")]
    image = torch.zeros(3, 48, 64, dtype=torch.uint8)
    with Output(tmp_path / "out", files, DETECTOR) as output:
        for file in files:
            output.add(image, found(file))
    written = sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.rglob("out/**/*.*")
    )
    assert written == ["a.jpg", "predictions.json", "sub/a.jpg", "sub/b.tif.png"]
    with Image.open(tmp_path / "out" / "a.jpg") as picture:
        assert picture.size == (320, 240)  # enlarged to be legible
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert content["info"]["image_dir"] == str(tmp_path / "in")
    assert content["categories"] == [dict(id=3, name="cat"), dict(id=7, name="dog")]
    assert content["images"][2] == dict(id=3, file_name="sub/b.tif", width=64, height=48)
    entry = content["annotations"][1]
    assert entry == dict(
        id=2, image_id=2, category_id=7, category_name="dog", bbox=[4.0, 8.0, 20.5, 30.0],
        area=615.0, score=0.75, iscrowd=0,
    )  # fmt: skip
    # The list of annotations alone is a COCO result file.
    (tmp_path / "result.json").write_text(json.dumps(content["annotations"]))
    assert read_detections(tmp_path / "result.json").shape == (3, 7)


def test_the_frames_of_each_video_become_an_mp4(tmp_path):
    image = torch.zeros(3, 48, 64, dtype=torch.uint8)
    videos = [tmp_path / "a.mp4", tmp_path / "b.avi"]
    with Output(tmp_path / "out", videos, DETECTOR) as output:
        for video in videos:
            for frame in range(3):
                output.add(image, found(video, frame))
    for name in ("a.mp4", "b.avi.mp4"):
        video = cv2.VideoCapture(str(tmp_path / "out" / name))
        sizes = [video.read()[1].shape for _ in range(3)]
        assert sizes == [(240, 320, 3)] * 3 and not video.read()[0]
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [image["frame"] for image in content["images"]] == [0, 1, 2] * 2


def test_what_was_found_before_an_interrupt_is_written(tmp_path):
    image = torch.zeros(3, 48, 64, dtype=torch.uint8)
    with pytest.raises(KeyboardInterrupt):
        with Output(tmp_path, [tmp_path / "a.png"], DETECTOR, pictures=False) as output:
            output.add(image, found(tmp_path / "a.png"))
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.json"]
    assert len(json.loads((tmp_path / "predictions.json").read_text())["annotations"]) == 1


def test_nothing_is_overwritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [str(new_folder(None)) for _ in range(2)] == [
        "work_dirs/predict/1",
        "work_dirs/predict/2",
    ]
    assert new_folder("a/b") == new_folder("a/b") == Path("a/b")
    with pytest.raises(ExistingFileError, match=r"--out a: exists and is not an empty folder"):
        new_folder("a")
    Path("file").touch()
    with pytest.raises(ExistingFileError, match=r"--out file: exists"):
        new_folder("file")


def test_pictures_have_the_colours_of_the_image(tmp_path):
    """Red, green and blue are not exchanged, neither in a picture nor in a video."""
    image = torch.tensor([250, 120, 10], dtype=torch.uint8)[:, None, None].expand(3, 320, 320)
    box = dict(
        boxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0).long(), names=[]
    )
    files = [tmp_path / "a.png", tmp_path / "b.mp4"]
    with Output(tmp_path / "out", files, DETECTOR) as output:
        output.add(image, found(files[0]) | box)
        output.add(image, found(files[1], 0) | box)
    with Image.open(tmp_path / "out" / "a.png") as image:
        picture = np.array(image)[160, 160]
    frame = cv2.VideoCapture(str(tmp_path / "out" / "b.mp4")).read()[1][160, 160, ::-1]
    assert picture.tolist() == [250, 120, 10]
    assert np.allclose(frame, [250, 120, 10], atol=8)  # compressed


def test_a_picture_on_a_full_disk_is_named_and_leaves_no_part(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    output = Output(tmp_path / "out", [tmp_path / "a.png"], DETECTOR)
    with pytest.raises(OSError, match=r"No space left on device: '.*/out/a\.png'"):
        output.add(torch.zeros(3, 48, 64, dtype=torch.uint8), found(tmp_path / "a.png"))
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupt_keeps_the_frames_that_a_video_has(tmp_path):
    file = tmp_path / "b.mp4"
    with pytest.raises(KeyboardInterrupt), Output(tmp_path / "out", [file], DETECTOR) as output:
        output.add(torch.zeros(3, 48, 64, dtype=torch.uint8), found(file, 0))
        output._frames += 1  # the interrupt came between the count and the frame
        raise KeyboardInterrupt
    video = cv2.VideoCapture(str(tmp_path / "out" / "b.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 1


def test_a_video_on_a_full_disk_is_an_error_that_names_it(tmp_path):
    """OpenCV itself says nothing. The json is written first, so the detections are not lost."""
    folder, file = tmp_path / "out", tmp_path / "b.mp4"
    noise = torch.randint(256, (3, 480, 640), dtype=torch.uint8)
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, former[1]))  # less than the video has
    try:
        with pytest.raises(InputError, match=r"out/b\.mp4: this video could not be written"):
            with Output(folder, [file], DETECTOR) as output:
                for frame in range(3):
                    output.add(noise, found(file, frame))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert [path.name for path in folder.iterdir()] == ["predictions.json"]
    assert len(json.loads((folder / "predictions.json").read_text())["annotations"]) == 3
