"""Comparisons whose runs another program trains: a script that shifts the ground truth."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from det_losses.cli import compare_losses
from det_losses.comparison import comparison
from det_losses.errors import InputError, UserError
from det_losses.options.comparison import ComparisonOptions

# Without torch or this package. The detections of "eiou" are nearer to the boxes than those of
# "giou". Notes what it was told, and fails in the way that the file `fault` says, once.
SCRIPT = """
import argparse, json, os, pathlib, random, signal, sys

parser = argparse.ArgumentParser()
for name in ("--loss", "--seed", "--train", "--val", "--out", "--resume", "--epochs"):
    parser.add_argument(name)
args = parser.parse_args()
out, here = pathlib.Path(args.out), pathlib.Path(__file__).parent
with (here / "log.jsonl").open("a") as log:
    log.write(json.dumps(vars(args)) + "\\n")
truth = json.loads(pathlib.Path(args.val).read_text())
random.seed(args.loss + args.seed)
error = 0.02 if "eiou" in args.loss else 0.12
found = []
for box in truth["annotations"]:
    x, y, w, h = box["bbox"]
    moved = [x + random.gauss(0, error * w), y + random.gauss(0, error * h), w, h]
    ids = {key: box[key] for key in ("image_id", "category_id")}
    found.append({**ids, "bbox": moved, "score": random.random()})
fault = here / "fault"
target = json.loads(fault.read_text()) if fault.exists() else {}
if target.get("run") == [args.loss, int(args.seed)]:
    fault.unlink()
    if "raw" in target:
        (out / "predictions.json").write_text(target["raw"])
    if target.get("signal"):
        os.kill(os.getpid(), target["signal"])
    sys.exit(target.get("exit", 0))
(out / "predictions.json").write_text(json.dumps(found))
(out / "predictions_100.json").write_text(json.dumps(found[:12]))
"""

IMAGES = tuple(
    (number, 96, 64, ((3, [10, 8, 40, 20], 0), (7, [60, 30, 20, 30], 0), (18, [5, 40, 20, 20], 0)))
    for number in range(2, 14)
)


@pytest.fixture
def data(tiny_coco):
    """The options of own data."""
    ann, images = tiny_coco(images=IMAGES)
    return dict(train_ann=[ann], train_images=[images], val_ann=[ann], val_images=[images])


@pytest.fixture
def script(tmp_path):
    """A script in a folder with a space; `log(key)` has what its runs were told."""
    folder = tmp_path / "my code"
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)

    class Script:
        command = (
            f"python {shlex.quote(str(folder / 'train.py'))} --loss {{loss}} --seed {{seed}} "
            "--train {train_ann} --val {val_ann} --out {work_dir} --resume {resume}"
        )

        def fail(self, run, **how):
            (folder / "fault").write_text(json.dumps({"run": run, **how}))

        def told(self):
            lines = (folder / "log.jsonl").read_text().splitlines()
            (folder / "log.jsonl").unlink()
            return [json.loads(line) for line in lines]

    return Script()


@pytest.fixture
def run(script, data, tmp_path, monkeypatch):
    """Compare by command in `tmp_path / "work"`; write a report only if that is asked for."""
    write = comparison._report

    def compare(losses=("giou", "eiou"), seeds=(0, 1), report=False, **options):
        monkeypatch.setattr(comparison, "_report", write if report else lambda *_: None)
        given = dict(command=script.command, resamples=100, seeds=list(seeds), **data)
        given |= dict(losses=list(losses), work_dir=str(tmp_path / "work"))
        return comparison.run(ComparisonOptions(**{**given, **options}), "compare ...")

    return compare


def official_ap(truth_file, file):
    """AP by pycocotools from the two files alone."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(truth_file))
    evaluation = COCOeval(truth, truth.loadRes(str(file)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


def test_a_comparison_from_the_first_run_to_the_report(run, script, data, tmp_path, capsys):
    rows = run(report=True)
    assert [(row["variant"], row["seed"], row["status"]) for row in rows] == [
        ("giou", 0, "done"),
        ("eiou", 0, "done"),
        ("giou", 1, "done"),
        ("eiou", 1, "done"),
    ]
    told = script.told()
    assert [(each["loss"], each["seed"], each["resume"]) for each in told] == [
        ("giou", "0", "false"),
        ("eiou", "0", "false"),
        ("giou", "1", "false"),
        ("eiou", "1", "false"),
    ]
    work = tmp_path / "work"
    for row in rows:
        assert row["detections"] == ["predictions.json"]
        expected = official_ap(data["val_ann"][0], work / row["work_dir"] / "predictions.json")
        assert row["metrics"]["AP"] == pytest.approx(expected, abs=1e-9)
        assert row["train_seconds"] > 0
        # The curve: the evaluation at step 100 is that of its own file.
        early = work / row["work_dir"] / "predictions_100.json"
        history = json.loads((work / row["work_dir"] / "history.jsonl").read_text())
        assert history["step"] == 100
        assert history["metrics"]["AP"] == pytest.approx(
            official_ap(data["val_ann"][0], early), abs=1e-9
        )
    # The ids of the data, which have gaps, are those of the files that the program reads.
    given, own = (json.loads(Path(told[0][key]).read_text()) for key in ("val", "train"))
    assert {each["id"] for each in given["categories"]} == {3, 7, 18}
    assert [image["id"] for image in own["images"]] == list(range(2, 14))

    report = " ".join((work / "report.md").read_text().split())
    assert "# Comparison of loss_bbox, trained by python " in report
    assert "Use eiou." in report
    # As a caution, and where the initial weights of our own runs are.
    assert report.count("Not recorded, because the runs were trained by python ") == 2
    for claim in ("have equal initial weights", "Losses that ran", "same initial weights, data"):
        assert claim not in report
    assert "No training curves" not in report

    run()
    assert capsys.readouterr().out.count("(already finished)") == 4
    (work / rows[1]["work_dir"] / "predictions.json").write_text("[{")
    assert [row["status"] for row in run()] == ["done"] * 4
    assert [(each["loss"], each["seed"]) for each in script.told()] == [("eiou", "0")]


def test_a_killed_run_is_resumed(run, script):
    script.fail(["eiou", 0], raw="[]", signal=9)
    rows = run()
    assert [row["status"] for row in rows] == ["done", "failed", "done", "done"]
    assert rows[1]["error"].startswith("killed by SIGKILL")
    script.told()
    assert [row["status"] for row in run()] == ["done"] * 4
    again = script.told()
    assert [(each["loss"], each["seed"], each["resume"]) for each in again] == [
        ("eiou", "0", "true")
    ]


ENTRY = dict(image_id=2, category_id=3, bbox=[1, 2, 3, 4], score=0.5)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({}, r"left no .*predictions\.json$"),
        ({"raw": "[{"}, r"predictions\.json"),
        ({"raw": "{}"}, r"predictions\.json: a COCO result file is a list"),
        ({"raw": "[]"}, r"predictions\.json has no detections$"),
        (
            {"raw": json.dumps([{**ENTRY, "image_id": 99}])},
            r"predictions\.json.*image_id 99 is not",
        ),
        ({"raw": json.dumps([{**ENTRY, "category_id": 1}])}, r"\.json.*category_id 1 is not"),
        ({"raw": json.dumps([ENTRY]), "exit": 3}, "exit status 3"),
    ],
    ids=["missing", "damaged", "a dict", "empty", "image", "category", "exit status"],
)
def test_a_run_fails_with_one_line(run, script, fault, message, capsys):
    script.fail(["giou", 0], **fault)
    rows = run(seeds=[0])
    assert [row["status"] for row in rows] == ["failed", "done"]
    line = next(line for line in capsys.readouterr().out.splitlines() if "FAILED" in line)
    assert line.startswith("[1/2] giou seed 0  FAILED")
    assert re.search(message, rows[0]["error"].splitlines()[0])


def test_the_file_of_an_earlier_attempt_is_not_a_result(run, script):
    script.fail(["giou", 0], raw=json.dumps([ENTRY]), exit=1)
    run(losses=["giou"], seeds=[0])
    script.fail(["giou", 0])
    assert "left no" in run(losses=["giou"], seeds=[0])[0]["error"]


def test_each_seed_has_its_fold(run, script, data, tmp_path):
    rows = run(losses=["giou"], seeds=[0, 1, 2], folds=3, val_ann=None, val_images=None)
    assert [row["status"] for row in rows] == ["done"] * 3
    evaluated = []
    for told, row in zip(script.told(), rows, strict=True):
        train, val = (
            {image["id"] for image in json.loads(Path(told[key]).read_text())["images"]}
            for key in ("train", "val")
        )
        assert not train & val and train | val == set(range(2, 14))
        evaluated += val
        expected = official_ap(
            told["val"], tmp_path / "work" / row["work_dir"] / "predictions.json"
        )
        assert row["metrics"]["AP"] == pytest.approx(expected, abs=1e-9)
    assert sorted(evaluated) == list(range(2, 14))


def test_a_trainer_of_the_users_package(script, data, tmp_path, monkeypatch):
    """A class with two methods, named in a config; a variant changes one of its arguments."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("my_trainers.py").write_text(
        "import sys\n"
        "from det_losses.comparison.trainer import Trainer\n"
        "class Mine(Trainer):\n"
        "    slots = ('loss_bbox', 'loss_cls')\n"
        "    def __init__(self, script, prefix=''):\n"
        "        self.script, self.prefix = script, prefix\n"
        "    def command(self, run):\n"
        "        words = dict(loss=self.prefix + run.losses['loss_bbox'], seed=run.seed,\n"
        "                     train=run.train_ann, val=run.val_ann, out=run.work_dir)\n"
        "        options = [x for k, v in words.items() for x in ('--' + k, str(v))]\n"
        "        return [sys.executable, self.script, *options]\n"
        "    def check(self, run):\n"
        "        if 'bad' in run.loss:\n"
        "            raise ValueError(run.loss)\n"
        "    def detections(self, run):\n"
        "        return run.work_dir / 'predictions.json'\n"
    )
    path = shlex.split(script.command)[1]
    Path("mine.py").write_text(
        f"trainer = dict(type='my_trainers:Mine', script={path!r})\n"
        "train_dataloader = dict(dataset=dict(type='CocoDataset'))\n"
        "val_dataloader = dict(dataset=dict(type='CocoDataset', test_mode=True))\n"
        "val_evaluator = dict(type='CocoMetric')\n"
    )
    options = dict(
        config="mine.py", losses=["GIoULoss"], seeds=[0], resamples=100, work_dir="work", **data
    )
    variant = ["prefixed:loss_bbox=eiou,trainer.prefix=very_"]
    rows = comparison.run(ComparisonOptions(**options, variant=variant), "compare")
    assert [row["status"] for row in rows] == ["done"] * 2
    assert [each["loss"] for each in script.told()] == ["GIoULoss", "very_eiou"]
    assert "trained by Mine" in Path("work/report.md").read_text()

    for wrong, message in (
        (dict(component="loss_x"), "--component loss_x: Mine has the slots loss_bbox, loss_cls"),
        (dict(losses=["GIoULoss(beta=3)"]), "beta"),  # of this package, so it is checked
        (dict(command="a {loss} {work_dir}"), "mine.py has a trainer of its own"),
        (dict(cfg_options=["optim_wrapper.clip_grad=1"]), "does not read this key"),
        (dict(cfg_options=["trainer.sript='a'"]), "sript"),
    ):
        with pytest.raises(UserError, match=message):
            comparison.run(
                ComparisonOptions(**{**options, "work_dir": "other", **wrong}), "compare"
            )
    with pytest.raises(ValueError, match="bad"):  # by the trainer's check
        comparison.run(ComparisonOptions(**{**options, "losses": ["bad"]}), "compare")
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(match_weights="gradient", amp=True), "--match-weights, --amp: only this package's"),
        (dict(fork_at=0.5), "--fork-at: only this package's engine"),
        (dict(weights_from="x.pth"), "--weights-from: only this"),
        (dict(screen=True), "--screen: only this"),
        (dict(command="train {loss}"), r"no \{work_dir\}, .* predictions.json"),
        (dict(command="train {seed} {work_dir}"), r"neither \{loss\} nor \{label\}"),
        (dict(command="train {loss} {lr} {work_dir}"), r"no such placeholder: \{lr\}"),
        (dict(cross=["loss_cls", "a", "b"]), r"no \{loss_cls\}, which --cross compares"),
        (dict(val_ann=None, val_images=None), "--val-ann"),
        (dict(train_ann=None, train_images=None), "requires --train-ann"),
        (dict(cfg_options=["train_cfg.max_epochs=3"]), "does not read this key"),
        (dict(command="pyhton {loss} {work_dir}"), "there is no program 'pyhton'"),
        (dict(command=None), "--command with the data"),
        (dict(command=None, detections_file="x.json"), "--detections-file requires --command"),
        (dict(losses=["SmoothL1Loss(bta=1)"]), "bta"),
    ],
)
def test_options_that_cannot_be_used(run, options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run(**options)
    assert not (tmp_path / "work").exists()


def test_names_and_weights_are_passed(run, script, tmp_path):
    command = script.command.replace("{loss}", "{loss}*{weight}")
    losses = ["my giou", "SmoothL1Loss(beta=1/9)", "eiou(loss_weight=3)"]
    rows = run(losses=losses, seeds=[0], weights=[1, 2], command=command)
    assert [row["status"] for row in rows] == ["done"] * 6
    assert [each["loss"] for each in script.told()] == [
        "my giou*1",
        "my giou*2",
        "SmoothL1Loss(beta=1/9)*1",
        "SmoothL1Loss(beta=0.1111111111111111)*2",
        "eiou*3",
        "eiou*6",
    ]


def test_a_budget_is_planned_by_the_first_seed(run, script, capsys):
    rows = run(seeds=[0, 1, 2], budget=3600.0)
    assert [row["status"] for row in rows] == ["done"] * 6
    out = capsys.readouterr().out
    assert "not known before the first run has ended" in out
    assert "[2/2] eiou seed 0  AP" in out  # the first seed alone
    assert "seeds 0, 1, 2: 4 runs of about" in out


def test_training_data_that_has_changed_is_refused(run, data, tmp_path):
    text, file = Path(data["train_ann"][0]).read_text(), tmp_path / "train.json"
    file.write_text(text)
    run(losses=["giou"], seeds=[0], train_ann=[str(file)])
    file.write_text(text.replace("[10, 8, 40, 20]", "[10, 8, 40, 21]"))
    with pytest.raises(InputError, match=r"train\.json: the data has changed"):
        run(losses=["giou"], seeds=[0, 1], train_ann=[str(file)])


def test_the_code_of_the_docs_runs(data, tmp_path, monkeypatch):
    """docs/any_trainer.md: the commands, the class with its config, and the call."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_trainers", raising=False)
    page = (Path(__file__).parents[2] / "docs/any_trainer.md").read_text()
    commands = re.findall(r"```bash\ndet-losses compare(.*?)```", page, re.DOTALL)
    trainer, config, call = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for file, text in (("train.py", SCRIPT), ("my_trainers.py", trainer), ("mine.py", config)):
        Path(file).write_text(text)
    for file in ("train.json", "val.json"):
        Path(file).write_bytes(Path(data["train_ann"][0]).read_bytes())
    Path("images").symlink_to(data["train_images"][0])
    for number, command in enumerate(commands):
        words = shlex.split(command.replace("\\\n", " ").replace("--seeds 0 1 2", "--seeds 0"))
        options = ["--resamples", "100", "--work-dir", str(number)]
        assert compare_losses.main([*words, *options]) == 0
        assert "trained by" in Path(str(number), "report.md").read_text()
    names = {}
    call = call.replace("seeds=3", "seeds=1, jobs=2")
    exec(compile(call, "docs/any_trainer.md", "exec"), names)
    study = names["study"]
    assert [run["status"] for run in study.runs] == ["done"] * 2
    assert "compare --work-dir" in study.meta["command"]
    assert "--command 'python train.py --loss {loss}" in study.meta["command"]
