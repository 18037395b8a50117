"""One comparison by Python, as docs/python.md has it, and the arguments of the call."""

import argparse
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training import runs_in_this_process

from det_losses.api import compare
from det_losses.cli.compare_losses import parser
from det_losses.comparison import prepare
from det_losses.engine.run_time import RunTime
from det_losses.options.comparison import DEFAULTS
from det_losses.report import Study

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)


@pytest.fixture
def tiny_yolo(tiny_config, tiny_coco, tmp_path, monkeypatch):
    """In the current folder, data.yaml of five images, and a tiny config of a shipped name."""
    monkeypatch.chdir(tmp_path)
    tiny = json.loads((tmp_path / "tiny" / "instances.json").read_text())
    for folder in ("images", "labels", "small"):
        (tmp_path / folder).mkdir()
    labels = {3: 0, 7: 1, 18: 2}
    for image in tiny["images"]:
        stem, (w, h) = image["file_name"][:-4], (image["width"], image["height"])
        Image.open(tmp_path / "tiny" / "images" / image["file_name"]).save(f"images/{stem}.png")
        lines = [
            f"{labels[a['category_id']]} {(b[0] + b[2] / 2) / w} {(b[1] + b[3] / 2) / h} "
            f"{b[2] / w} {b[3] / h}\n"
            for a in tiny["annotations"]
            if a["image_id"] == image["id"] and (b := a["bbox"])
        ]
        (tmp_path / "labels" / f"{stem}.txt").write_text("".join(lines))
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [cat, dog, bird]\n")
    text = tiny_config.read_text().replace("max_epochs=2", "max_epochs=1")
    (tmp_path / "small" / "retinanet_lite0.py").write_text(text)
    return tmp_path


def test_the_code_of_the_docs_runs(tiny_yolo, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "measure_run", lambda *args: RunTime(10.0, 50.0, 0.0, 1))
    names = {}
    with runs_in_this_process():
        for number, block in enumerate(BLOCKS, 1):
            exec(compile(block, f"block {number} of docs/python.md", "exec"), names)
            if number == 1:
                first = names["study"]
    labels = ["L1Loss", "GIoULoss", "SmoothL1Loss(beta=0.5)"]
    assert (first.labels, len(first.runs)) == (labels, 9)
    assert {(run["seed"], run["status"]) for run in first.runs} == {(s, "done") for s in range(3)}
    assert (names["study"].metric, names["study"].baseline) == ("AP75", "GIoULoss")
    assert {Path(name).is_file() for name in ("intervals.png", "first_report/report.html")} == {
        True
    }
    printed = capsys.readouterr().out
    assert first.answer in printed and "[9/9] SmoothL1Loss(beta=0.5) seed 2  started" in printed
    # The command line continues what the call has begun.
    assert first.meta["command"] == (
        "python -m det_losses compare small/retinanet_lite0 --work-dir work_dirs/first --losses "
        "L1Loss GIoULoss 'SmoothL1Loss(beta=0.5)' --seeds 0 1 2 --data data.yaml"
    )


@pytest.mark.slow
def test_a_script_without_a_main_guard(tiny_yolo):
    script = tiny_yolo / "script.py"
    script.write_text(
        "import det_losses\n"
        "study = det_losses.compare('small/retinanet_lite0', 'L1Loss', seeds=1, data='data.yaml')\n"
        "print('status', study.runs[0]['status'])\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("status done\n")


def test_the_arguments_are_the_options_of_the_command():
    """A new option needs a field in ComparisonOptions, and its name and default in compare."""
    options = {
        action.dest: tuple(action.default) if isinstance(action.default, list) else action.default
        for action in parser()._actions
        if action.dest not in ("help", argparse.SUPPRESS)
    }
    arguments = {
        name: parameter.default for name, parameter in inspect.signature(compare).parameters.items()
    }
    arguments["config"] = None  # which is required
    assert arguments == options == {**DEFAULTS, "config": None}
    assert all(f"    {name}: " in inspect.getdoc(compare) for name in arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(losses="GIuLoss"), "Did you mean 'GIoULoss'"),
        (dict(jobs=0), "jobs: must be at least 1, got 0"),
        (dict(jobs=1.5), "jobs: must be a whole number, got '1.5'"),
        (dict(jobs=[1]), "jobs: must be a text, a path or a number, got list [1]"),
        (dict(screen="yes"), "screen: must be True or False, got 'yes'"),
        (dict(seeds=[]), "seeds: expected at least one argument"),
        (dict(seeds=[1, 1]), "seeds contains 1 twice"),
        (dict(seeds=[-1]), "seeds: must be from 0 to 4294967295, got -1"),
        (dict(budget="2 weeks"), "budget: expected a duration such as 2h"),
        (dict(match_weights="area"), "match_weights: invalid choice: 'area'"),
        (dict(train_ann="a.json"), "train_ann requires train_images"),
        (
            dict(data="a.yaml", val_ann="b.json"),
            "data gives all data; leave out train_ann, train_images, val_ann",
        ),
        (dict(data="."), "neither Pascal VOC"),
        (dict(fold_key="patient"), "fold_key requires folds"),
        (dict(cfg_options={"randomness.seed": 1}), "cfg_options randomness.seed=1: a comparison"),
        (dict(cfg_options={"model.num_convs": object}), "cfg_options: model.num_convs: cannot be"),
        (dict(losses=[dict(type="L1Loss", beta=1)]), "beta"),
    ],
)
def test_a_wrong_argument_is_an_error_in_terms_of_python(
    tiny_config, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, TypeError, KeyError)) as info:
        compare(tiny_config, **{"losses": ["L1Loss"], **arguments})
    assert message in str(info.value)
    assert "--" not in str(info.value)
    assert not (tmp_path / "work_dirs").exists()


def test_a_loss_of_the_notebook_is_refused(tiny_config):
    from det_losses.registry import MODELS

    own = type("NotebookLoss", (), {"__module__": "__main__"})
    MODELS.register_module(module=own)
    try:
        with pytest.raises(ValueError, match="NotebookLoss is defined in this notebook or script"):
            compare(tiny_config, ["L1Loss", "NotebookLoss(loss_weight=2)"])
    finally:
        del MODELS.module_dict["NotebookLoss"]


def test_an_interrupt_says_how_to_resume_and_goes_on(tiny_config, tmp_path, monkeypatch, capsys):
    def interrupted(options, command):
        (tmp_path / "out").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr("det_losses.comparison.comparison.run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(tiny_config, "L1Loss", work_dir=tmp_path / "out")
    assert "the same call resumes the comparison in " in capsys.readouterr().out


def test_the_name_at_the_top_is_the_function():
    import det_losses

    assert det_losses.compare is compare and det_losses.Study is Study
    assert {"Study", "compare"} <= set(dir(det_losses))


def test_the_study_is_that_of_the_directory(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr("det_losses.comparison.comparison.run", lambda options, command: [])
    monkeypatch.setattr(Study, "load", lambda folder: ("study of", str(folder)))
    monkeypatch.chdir(tmp_path)
    found = compare(tiny_config, "L1Loss", cfg_options={"train_cfg.max_epochs": np.int64(3)})
    assert found == ("study of", "work_dirs/tiny_retinanet_loss_bbox")
