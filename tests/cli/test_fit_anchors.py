"""--fit-anchors on the command line: a run gets the sizes, and keeps them when it is resumed."""

import pytest
from mmengine.config import Config

from det_losses.cli.check_data import main as check_data
from det_losses.cli.train import main as train
from det_losses.engine import fitted_anchors
from det_losses.engine.run import continued_config


@pytest.fixture
def own_data(tiny_coco):
    """The options of data and anchors: no box has an anchor, and 24 of 31 are of 18 px."""

    def add_small(coco):
        for image in coco["images"]:
            for place in range(1, 5):
                number = len(coco["annotations"]) + 1
                box = dict(bbox=[12 * place - 9, 3, 18, 18], area=324, iscrowd=0, category_id=7)
                coco["annotations"].append(dict(id=number, image_id=image["id"], **box))

    ann_file, images = tiny_coco("small", change=add_small)
    train_data = ["--train-ann", ann_file, "--train-images", images]
    anchors = ["--cfg-options", "model.anchors.sizes=[[100],[150],[200]]"]
    return [*train_data, "--val-ann", ann_file, "--val-images", images, *anchors]


def test_an_interrupted_run_keeps_its_anchors(
    tiny_config, own_data, once, tmp_path, monkeypatch, capsys
):
    once("stop_self")
    run = tmp_path / "run"
    command = [str(tiny_config), *own_data, "--work-dir", str(run)]
    assert train([*command, "--fit-anchors"]) == 130
    printed = capsys.readouterr().out
    assert "\nanchors: fitted to the training data: " in f"\n{printed}"
    stored = Config.fromfile(run / "config.py")
    sizes = [level[0] for level in stored.model.anchors.sizes]
    assert sizes[0] < 20
    row = f"sizes {' / '.join(map(str, sizes))} px, aspect ratios "
    assert row in printed.partition("\nPlan")[2]
    # A run from its checkpoint in another directory has the same.
    other = Config(dict(work_dir=str(tmp_path / "other")))
    checkpoint = next(run.glob("epoch_*.pth"))
    known = continued_config(other, str(checkpoint)).model.anchors
    assert known.to_dict() == stored.model.anchors.to_dict()
    assert continued_config(other, None) is None

    with pytest.raises(SystemExit):  # without the option, it is another config
        train([*command, "--no-plan", "--resume"])
    assert "contains a run of a different config (model.anchors." in capsys.readouterr().err
    monkeypatch.setattr(fitted_anchors, "fitted", lambda coverage: 1 / 0)
    assert train([*command, "--no-plan", "--resume", "--fit-anchors"]) == 0
    assert "anchors: those with which this was started\n" in capsys.readouterr().out
    assert Config.fromfile(run / "config.py").model.anchors.sizes == stored.model.anchors.sizes


def test_the_tool_for_data_shows_what_would_be_chosen(tiny_config, own_data, tmp_path, capsys):
    options = ["--out", str(tmp_path / "out"), "--browse", "0"]
    assert check_data([str(tiny_config), *own_data, *options]) == 0
    printed = capsys.readouterr().out
    assert "; with --fit-anchors, or --cfg-options model.anchors.sizes=[[" in printed
    assert "\n--fit-anchors: fitted to the training data: " in printed
