import json

import pytest

from det_losses.cli.predict import main
from det_losses.cli.test import main as evaluate
from det_losses.cli.train import main as train


@pytest.fixture
def trained(tiny_config, tmp_path):
    options = ["train_cfg.max_epochs=1", "model.score_thresh=0.0"]
    run = tmp_path / "run"
    assert train([str(tiny_config), "--work-dir", str(run), "--cfg-options", *options]) == 0
    return run / "epoch_1.pth"


def test_predictions_are_those_of_the_test_tool(trained, tiny_config, tmp_path, capsys):
    """From the checkpoint alone, after the run and its annotations have moved."""
    result = tmp_path / "found.json"
    options = ["model.score_thresh=0.0", "val_dataloader.batch_size=1"]
    arguments = [str(tiny_config), str(trained), "--work-dir", str(tmp_path / "test")]
    assert evaluate([*arguments, "--out", str(result), "--cfg-options", *options]) == 0
    expected = {}
    for each in json.loads(result.read_text()):
        place = f"{each['image_id']:06d}.png", each["category_id"]
        expected.setdefault(place, []).append((*each["bbox"], each["score"]))
    moved = tmp_path / "moved.pth"
    trained.rename(moved)
    (tmp_path / "tiny" / "instances.json").unlink()
    tiny_config.unlink()
    out = tmp_path / "out"
    images = tmp_path / "tiny" / "images"
    (images / "broken.jpg").write_text("no image")
    capsys.readouterr()
    assert main([str(moved), str(images), "--out", str(out), "--threshold", "0"]) == 1
    written = capsys.readouterr()
    assert written.err.count("\n") == 1
    assert f"error: {images / 'broken.jpg'}: not a readable image" in written.err
    assert "in 6 images, " in written.out and f"{images / '000005.png'}: " in written.out
    content = json.loads((out / "predictions.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    found = {}
    for each in content["annotations"]:
        place = names[each["image_id"]], each["category_id"]
        found.setdefault(place, []).append((*each["bbox"], each["score"]))
    assert found.keys() == expected.keys()
    for place, boxes in found.items():
        # Boxes of equal score have no order.
        assert sorted(boxes) == [pytest.approx(b, abs=1e-4) for b in sorted(expected[place])]
    assert {p.name for p in out.iterdir()} == {*names.values(), "predictions.json"}


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as info:
        main(arguments)
    assert info.value.code == 2
    return capsys.readouterr().err


def test_errors_are_one_line(tmp_path, capsys):
    photo = tmp_path / "a.png"
    photo.touch()
    assert refused(["gone.pth", str(photo)], capsys) == "error: checkpoint gone.pth: no such file\n"
    assert "gone.png: no such image" in refused(["gone.pth", "gone.png"], capsys)
    assert "is not a checkpoint" in refused([str(photo), str(photo)], capsys)
    error = refused(["gone.pth", str(photo), "--threshold", "50"], capsys)
    assert "--threshold: must be a number from 0 to 1, got '50'" in error
