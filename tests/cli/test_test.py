import json
import re

import pytest

from det_losses.cli.test import main
from det_losses.cli.train import main as train


@pytest.fixture
def trained(tiny_config, tmp_path):
    options = [
        "optim_wrapper.optimizer.lr=0.05",
        "train_cfg.max_epochs=1",
        "model.score_thresh=0.0",
    ]
    run = tmp_path / "run"
    assert train([str(tiny_config), "--work-dir", str(run), "--cfg-options", *options]) == 0
    return [str(tiny_config), str(run / "epoch_1.pth"), "--work-dir", str(tmp_path / "test")]


def test_both_backends_and_the_result_file(trained, tmp_path, capsys):
    out = tmp_path / "found.json"
    options = ["--out", str(out), "--cfg-options", "model.score_thresh=0.0"]
    texts = []
    for backend in ("hotcoco", "pycocotools"):
        assert main([*trained, "--backend", backend, *options]) == 0
        texts.append(capsys.readouterr().out.partition(f"({backend})\n")[2].partition(" - ")[0])
    # The table is the same to its last digit, up to the next line's time.
    assert texts[0].splitlines()[:-1] == texts[1].splitlines()[:-1]
    assert "AP of each class (boxes)" in texts[0]
    assert {entry["category_id"] for entry in json.loads(out.read_text())} <= {3, 7, 18}


def own_data(tiny_coco, change, name="other"):
    ann_file, image_dir = tiny_coco(name, change=change)
    return ["--val-ann", ann_file, "--val-images", image_dir]


def test_detections_of_images_without_annotations(trained, tiny_coco, tmp_path, capsys):
    data = own_data(tiny_coco, lambda coco: coco.pop("annotations"))
    out = tmp_path / "found.json"
    options = ["--cfg-options", "model.score_thresh=0.0"]
    assert main([*trained, *data, "--out", str(out), *options]) == 0
    assert {entry["image_id"] for entry in json.loads(out.read_text())} == {5, 8, 11, 20, 33, 42}
    assert "data: instances.json: there is no list 'annotations'" in capsys.readouterr().out
    error = refused([*trained, *data, *options], capsys)
    assert "the test data has no box to evaluate with; --out FILE writes the detections" in error


def test_classes_are_those_of_the_checkpoint_by_name(trained, tiny_coco, tmp_path, capsys):
    """Test data with other ids, and without one of the classes."""

    def change(coco):
        ids = {3: 1, 7: 0}
        coco["categories"] = [dict(id=1, name="cat"), dict(id=0, name="dog")]
        kept = [a for a in coco["annotations"] if a["category_id"] in ids]
        coco["annotations"] = [dict(a, category_id=ids[a["category_id"]]) for a in kept]

    out = tmp_path / "found.json"
    options = ["--out", str(out), "--cfg-options", "model.score_thresh=0.0"]
    assert main([*trained, *options]) == 0
    before = json.loads(out.read_text())
    assert main([*trained, *own_data(tiny_coco, change), *options]) == 0
    found = json.loads(out.read_text())
    # bird, which the json lacks, gets the first id after its last one
    renamed = [dict(each, category_id={3: 1, 7: 0, 18: 2}[each["category_id"]]) for each in before]
    assert found == renamed
    assert re.search(r"bird +n/a \(0 boxes\)", capsys.readouterr().out)


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as info:
        main(arguments)
    assert info.value.code == 2
    return capsys.readouterr().err


def test_a_checkpoint_that_does_not_fit_is_refused(trained, capsys):
    error = refused([*trained, "--cfg-options", "model.num_convs=2"], capsys)
    assert "epoch_1.pth does not fit the config's model" in error
    assert len(error.splitlines()) == 1
    error = refused([*trained, "--cfg-options", "val_dataloader.dataset.classes=[cat]"], capsys)
    assert "was trained on the classes cat, dog, bird, but the data has cat" in error


def test_a_file_that_is_not_a_checkpoint_is_an_error(tiny_config, tmp_path, capsys):
    other = ["--work-dir", str(tmp_path / "test")]
    error = refused([str(tiny_config), "absent.pth", *other], capsys)
    assert error == "error: checkpoint absent.pth: no such file\n"
    assert "is not a checkpoint" in refused([str(tiny_config), str(tiny_config), *other], capsys)
    assert not (tmp_path / "test").exists()


def test_a_directory_as_result_file_is_refused_before_the_test(trained, tmp_path, capsys):
    assert "is a directory, expected a file" in refused([*trained, "--out", str(tmp_path)], capsys)
