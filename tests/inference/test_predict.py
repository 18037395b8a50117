import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import det_losses
from det_losses.errors import InputError, InputTypeError
from det_losses.inference import detect, load_detector


def photo(seed=0, size=(40, 60)):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size[::-1])


def same(one, other):
    return all(torch.equal(one[k], other[k]) for k in ("boxes", "scores", "labels"))


def test_all_kinds_of_images_give_the_same_detections(checkpoint, tmp_path):
    image = photo()
    pixels = np.array(image)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    (tmp_path / "p" / "q").mkdir(parents=True)
    file = tmp_path / "p" / "q" / "a.png"
    image.save(file)
    images = [file, str(file), tmp_path / "p", f"{tmp_path}/p/**/*.png"]
    images += [image, pixels, tensor, tensor / 255]
    found = det_losses.predict(checkpoint(), images, device="cpu")
    assert len(found) == 8 and all(same(each, found[0]) for each in found)
    first = found[0]
    assert len(first["boxes"]) and first["scores"].min() >= 0.3
    assert first["names"] == [("cat", "dog")[label] for label in first["labels"]]
    assert (first["size"], first["file"], first["frame"]) == ((60, 40), file, None)
    assert found[-1]["file"] is None


def test_detections_equal_torchvisions_on_the_same_image(checkpoint):
    detector = load_detector(checkpoint(), device="cpu")
    tensor = torch.from_numpy(np.array(photo())).permute(2, 0, 1)
    with torch.no_grad():
        reference = detector.model.detector([tensor / 255])[0]
    assert same(det_losses.predict(detector, tensor, threshold=0)[0], reference)


def test_an_images_detections_do_not_depend_on_the_others(checkpoint):
    """Images of one size share a batch, others do not."""
    detector = load_detector(checkpoint(), device="cpu")
    images = [photo(1), photo(2), photo(3, (60, 40)), photo(4)]
    batches = []
    detector.model.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    together = det_losses.predict(detector, images)
    assert batches == [2, 1, 1]
    for image, found in zip(images, together, strict=True):
        alone = det_losses.predict(detector, image)[0]
        assert torch.allclose(found["boxes"], alone["boxes"], atol=1e-3)
        assert found["names"] == alone["names"]


def test_the_transforms_of_test_images_are_applied(checkpoint):
    invert = dict(type="CocoDataset", transforms=[dict(type="RandomInvert", p=1.0)])
    image = photo()
    inverted = Image.fromarray(255 - np.array(image))
    plain = det_losses.predict(checkpoint("a.pth"), inverted, device="cpu")[0]
    path = checkpoint("b.pth", dataset=dict(type="RepeatDataset", dataset=invert))
    assert same(det_losses.predict(path, image, device="cpu")[0], plain)
    invert["transforms"] = [dict(type="Resize", size=[20, 20])]
    with pytest.raises(InputError, match=r"change an image from \[40, 60\] to \[20, 20\]"):
        det_losses.predict(checkpoint("c.pth", dataset=invert), image, device="cpu")


@pytest.mark.parametrize("wrong", [np.zeros((4, 4)), torch.zeros(4, 4), 7, np.zeros((4, 4, 3))])
def test_another_type_is_refused(checkpoint, wrong):
    with pytest.raises(InputTypeError, match=r"an image must be a path, .*, got"):
        det_losses.predict(checkpoint(), [wrong], device="cpu")


def test_arguments_out_of_range_are_refused(checkpoint):
    detector = load_detector(checkpoint(), device="cpu")
    with pytest.raises(InputError, match="from 0 to 1, got 50"):
        list(detect(detector, [], threshold=50))
    with pytest.raises(InputError, match="at least 1, got 0"):
        list(detect(detector, [], batch_size=0))


def test_the_code_of_the_docs_runs(checkpoint, tmp_path, monkeypatch, capsys):
    """The Python block of docs/predict.md, in a folder with the files that it names."""
    page = Path(__file__).parents[2] / "docs/predict.md"
    [block] = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    checkpoint("epoch_9.pth")
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/a.png"):
        photo().save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs/predict.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) >= 2
