"""Trainers: what a run's command is, and how a config names a trainer."""

import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from det_losses.comparison.trainer import (
    PLACEHOLDERS,
    CommandTrainer,
    EngineTrainer,
    Trainer,
    TrainingRun,
    build_trainer,
)
from det_losses.errors import InputError


def run_of(loss: str = "GIoULoss", **changes) -> TrainingRun:
    facts = dict(
        label=loss,
        losses={"loss_bbox": loss},
        seed=3,
        work_dir=Path("/work dir/run"),
        train_ann=Path("/my data/train.json"),
        train_images=Path("/my data/train"),
        val_ann=Path("/my data/val.json"),
        val_images=Path("/my data/val"),
        config=Config({}),
    )
    return TrainingRun(**{**facts, **changes})


def test_values_with_spaces_stay_one_argument():
    command = "prog '--a b' --loss {loss} --data={train_ann}:{val_ann} --out {work_dir} {{x}}"
    assert CommandTrainer(command).command(run_of()) == [
        "prog",
        "--a b",
        "--loss",
        "GIoULoss",
        "--data=/my data/train.json:/my data/val.json",
        "--out",
        "/work dir/run",
        "{x}",
    ]


def test_python_is_the_interpreter_of_this_process():
    assert CommandTrainer("python train.py").command(run_of()) == [sys.executable, "train.py"]
    assert CommandTrainer("torchrun train.py").command(run_of())[0] == "torchrun"


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("GIoULoss(loss_weight=2.5)", ["GIoULoss", "2.5"]),
        ("GIoULoss", ["GIoULoss", "1"]),
        ("SmoothL1Loss(beta=0.5, loss_weight=2)", ["SmoothL1Loss(beta=0.5)", "2"]),
        ("my giou", ["my giou", "1"]),
    ],
)
def test_a_weight_is_passed_once(loss, expected):
    assert CommandTrainer("prog {loss} {weight}").command(run_of(loss))[1:] == expected
    assert CommandTrainer("prog {loss}").command(run_of(loss))[1:] == [loss]


def test_all_placeholders_have_a_value():
    words = CommandTrainer(" ".join(f"{{{name}}}" for name in PLACEHOLDERS)).command(run_of())
    assert len(words) == len(PLACEHOLDERS)
    assert words[-1] == "false"
    assert CommandTrainer("a {resume}").command(run_of(resume=True)) == ["a", "true"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("a {los}", r"no such placeholder: \{los\}. The placeholders are \{loss\}, \{weight\}, "),
        ("a {}", r"no such placeholder: \{\}"),
        ("a {seed:03d}", r"no such placeholder: \{seed:03d\}"),
        ("a {seed.real}", "no such placeholder"),
        ("a {seed", "literal braces are doubled"),
        ("a 'b", "No closing quotation"),
        (" ", "--command is empty"),
    ],
)
def test_a_command_that_cannot_be_used(command, message):
    with pytest.raises(InputError, match=message):
        CommandTrainer(command)


def test_the_result_file_is_inside_the_directory_of_the_run():
    assert CommandTrainer("a", "out/dets.json").detections(run_of()) == Path(
        "/work dir/run/out/dets.json"
    )
    for file in ("/tmp/dets.json", "../dets.json"):
        with pytest.raises(InputError, match="directory of the run"):
            CommandTrainer("a", file)


def test_a_placeholder_without_a_value_is_an_error():
    with pytest.raises(InputError, match=r"has \{loss\}, which big does not have"):
        CommandTrainer("a {loss}").command(run_of(label="big", losses={}))


class Mine(Trainer):
    def __init__(self, size: int = 1) -> None:
        self.size = size

    def command(self, run):
        return ["prog", str(self.size)]


def test_a_config_names_a_trainer():
    assert isinstance(build_trainer(Config({})), EngineTrainer)
    cfg = Config({"trainer": dict(type=f"{__name__}:Mine", size=2)})
    assert build_trainer(cfg).command(run_of()) == ["prog", "2"]
    assert build_trainer(cfg).detections(run_of()).name == "detections.json"


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        (dict(type="Mine"), "'module:Class', or one of EngineTrainer, CommandTrainer"),
        (dict(size=1), "'module:Class'"),
        (dict(type="no_such_module_x:Mine"), "no_such_module_x.*cannot be imported"),
        (dict(type=f"{__name__}:Yours"), "the module has no Yours"),
        (dict(type=f"{__name__}:Mine", sise=1), "sise"),
        (
            dict(type=f"{__name__}:Path"),
            "is not a subclass of det_losses.comparison.trainer.Trainer",
        ),
    ],
)
def test_a_trainer_that_cannot_be_used(trainer, message):
    with pytest.raises(InputError, match=message) as error:
        build_trainer(Config({"trainer": trainer}))
    assert error.value.key == "trainer"
