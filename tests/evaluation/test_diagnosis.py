"""Causes of an AP near zero: each is made in the history of a training that learns."""

import math

import pytest

from det_losses.data.box_faults import STRONG
from det_losses.evaluation.diagnosis import diagnose, read_history


def history(steps=800, warm_up=50, lr=0.002, losses=(1.6, 0.4)):
    """A loss that falls exponentially, with a warm-up and a cosine schedule."""
    lines = []
    for step in range(10, steps + 1, 10):
        rate = lr * min(1, step / warm_up) * (1 + math.cos(math.pi * step / steps)) / 2
        loss = losses[1] + (losses[0] - losses[1]) * math.exp(-5 * step / steps)
        lines.append({"kind": "train", "step": step, "losses": {"loss": loss}, "lr": rate})
    return [*lines, {"kind": "val", "step": steps, "metrics": {"AP": 0.0}}]


@pytest.mark.parametrize(
    ("lines", "start"),
    [
        (history(lr=0), "The learning rate was 0 in all steps"),
        (history(lr=0, losses=(1.6, 1.6)), "The learning rate was 0 in all steps"),
        (history(warm_up=700), "The learning rate rose until step "),
        (history(steps=40, warm_up=4), "Training had only 40 steps, and the recipes"),
        (history(losses=(1.6, 1.58)), "The loss did not fall: it was 1.59 at first and 1.58 at"),
        (history(losses=(1.6, 9.0)), "The loss rose from"),
        (history(), "Data, anchors and schedule look right, and the loss fell from 1.14"),
        ([], "Train longer, on more images or on fewer classes."),
        ([{"kind": "train", "step": 400, "losses": {"loss": 1.0}}], "Train longer"),  # of 0.3
    ],
)
def test_each_cause_is_recognised(lines, start):
    [sentence] = diagnose(lines, {})
    assert sentence.startswith(start)


def test_wrong_boxes_come_first_and_anchors_after_the_schedule():
    wrong = f"train.json: {STRONG} 236 of 315 boxes reach beyond their image"
    notes = {"train": ["2 boxes are crowds", wrong], "anchors": ["83 of 100 training boxes"]}
    found = diagnose(history(steps=40, warm_up=4), notes)
    starts = ["The boxes look wrong: train.json", "Training had only", "The anchors do not fit: 83"]
    assert [sentence.startswith(start) for sentence, start in zip(found, starts, strict=True)]
    assert diagnose(history(), {"train": notes["train"][:1]})[0].startswith("Data, anchors and")


def test_a_damaged_line_of_a_history_is_left_out(tmp_path):
    file = tmp_path / "history.jsonl"
    assert read_history(file) == []
    file.write_text('{"kind": "val", "step": 3}\n{"kind": "tr')
    assert read_history(file) == [{"kind": "val", "step": 3}]
