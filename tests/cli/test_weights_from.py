"""--weights-from: a run from another one's weights, and no other weights beside a checkpoint."""

import json
from urllib.error import URLError

import pytest
import torch
from mmengine.config import Config

from det_losses.cli.test import main as evaluate
from det_losses.cli.train import main as train
from det_losses.engine import build_runner
from det_losses.errors import InputError


@pytest.fixture
def trained(tiny_config, tmp_path):
    """A run with three classes, and its checkpoint."""
    run = tmp_path / "run"
    assert train([str(tiny_config), "--work-dir", str(run)]) == 0
    return run, str(next(run.glob("epoch_*.pth")))


def test_a_run_starts_from_a_checkpoint_with_other_classes(
    trained, tiny_config, tiny_coco, tmp_path, capsys
):
    _, checkpoint = trained

    def rename(coco):
        coco["categories"] = [
            {**each, "name": {"bird": "gull"}.get(each["name"], each["name"])}
            for each in coco["categories"]
            if each["name"] != "dog"
        ]
        kept = {each["id"] for each in coco["categories"]}
        coco["annotations"] = [a for a in coco["annotations"] if a["category_id"] in kept]

    ann_file, images = tiny_coco("other", change=rename)
    own = ["--train-ann", ann_file, "--train-images", images]
    own += ["--val-ann", ann_file, "--val-images", images]
    run, start = tmp_path / "tuned", ["--weights-from", checkpoint]
    assert train([str(tiny_config), *own, "--work-dir", str(run), *start]) == 0
    printed = capsys.readouterr().out
    assert "class layer (cls_logits): loaded by name for cat; made anew for gull" in printed
    record = json.loads((run / "metrics.json").read_text())["weights"]
    assert (record["anew"], record["unused"], record["layout"]) == (2, 0, "det_losses")
    assert record["source"] == checkpoint and len(record["sha256"]) == 64
    # The whole file of the run, with its config, starts the same training again.
    again = tmp_path / "again"
    assert train([str(run / "config.py"), "--work-dir", str(again)]) == 0
    repeated = json.loads((again / "metrics.json").read_text())
    first = json.loads((run / "metrics.json").read_text())
    assert repeated["initial_weights"] == first["initial_weights"]


def test_a_whole_checkpoint_needs_no_other_weights(trained, tiny_config, tmp_path, monkeypatch):
    """A test and a resumed run read neither the backbone's weights nor the start's."""

    def refuse(*args, **kwargs):
        raise URLError("no route to host")

    run, checkpoint = trained
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    name = "RetinaNet_ResNet50_FPN_Weights.COCO_V1"
    options = ["--cfg-options", f"model.weights={name}"]
    with pytest.raises(SystemExit):
        train([str(tiny_config), "--work-dir", str(tmp_path / "new"), *options])
    assert (
        evaluate([str(tiny_config), checkpoint, "--work-dir", str(tmp_path / "t"), *options]) == 0
    )
    cfg = Config.fromfile(run / "config.py")
    cfg.update(resume=True, load_from=checkpoint, work_dir=str(tmp_path / "resumed"))
    cfg.model.weights = name
    assert build_runner(cfg).model.loaded is None


def test_a_test_of_a_part_of_the_weights_is_refused(trained, tmp_path):
    run, checkpoint = trained
    content = torch.load(checkpoint, weights_only=True)
    state = {k: v for k, v in content["state_dict"].items() if "backbone" not in k}
    torch.save({"state_dict": state}, tmp_path / "part.pth")
    cfg = Config.fromfile(run / "config.py")
    cfg.update(load_from=str(tmp_path / "part.pth"), work_dir=str(tmp_path / "test"))
    with pytest.raises(InputError, match=r"part\.pth does not fit the config's model"):
        build_runner(cfg, train=False)
