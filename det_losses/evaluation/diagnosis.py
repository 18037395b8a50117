"""Why a training reached almost no AP, from what was measured: its history and its data."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from det_losses.data.box_faults import STRONG
from det_losses.data.suspicions import UNTRAINED

NEARLY_ZERO = 0.01  # AP below which a training is diagnosed at its end

_FEW_STEPS = 300  # the shipped recipes for few images take 500 to 800
_WARM_UP = 0.25  # of the steps, from which on the learning rate rose for too long
_FALLEN = 0.9  # of the first loss, above which the last one has not fallen

History = Sequence[Mapping[str, Any]]


def read_history(file: Path) -> list[dict[str, Any]]:
    """Return the valid lines of a run's history.jsonl; an empty list without such a file."""
    if not file.is_file():
        return []
    found = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # the incomplete last line of an interrupted run
            continue
    return found


def diagnose(history: History, notes: Mapping[str, Sequence[str]]) -> list[str]:
    """Return sentences on the probable causes of an AP near zero, the most probable first.

    Args:
        history: lines of history.jsonl.
        notes: what looks wrong in the data, as
            :func:`~det_losses.engine.coverage.notes_before_training` returns it.
    """
    every = [note for own in notes.values() for note in own]
    found = [f"The boxes look wrong: {note}." for note in every if STRONG in note][:2]
    lines = [line for line in history if line.get("kind") == "train"]
    rates = [(line["step"], line["lr"]) for line in lines if line.get("lr") is not None]
    losses = [(line.get("losses") or {}).get("loss") for line in lines]
    steps = lines[-1]["step"] if lines else None
    found += filter(None, [_rate(rates), _length(steps), _loss(losses, rates, steps)])
    found += [f"The anchors do not fit: {note}." for note in notes.get("anchors", ())]
    found += [f"Classes differ: {note}." for note in every if UNTRAINED in note]
    return found or [_unexplained(losses, rates, steps)]


def _rate(rates: Sequence[tuple[int, float]]) -> str | None:
    """Return a sentence on a learning rate that was zero, or too long in its warm-up."""
    if not rates:
        return None
    highest = max(rate for _, rate in rates)
    if highest == 0:
        return (
            "The learning rate was 0 in all steps: set optim_wrapper.optimizer.lr, and check "
            "param_scheduler."
        )
    reached = next(step for step, rate in rates if rate >= 0.99 * highest)
    last = rates[-1][0]
    if len(rates) < 2 or reached <= _WARM_UP * last or rates[0][1] > 0.5 * highest:
        return None
    return (
        f"The learning rate rose until step {reached} of {last}: shorten its warm-up (`end` of the "
        "first param_scheduler) or train longer."
    )


def _length(steps: int | None) -> str | None:
    if steps is None or steps >= _FEW_STEPS:
        return None
    return (
        f"Training had only {steps} steps, and the recipes for few images take 500 to 800: "
        "increase train_cfg.steps or train_cfg.max_epochs."
    )


def _ends(losses: Sequence[float | None]) -> tuple[float, float] | None:
    """Return the means of the first and of the last fifth of the losses; None if too few."""
    known = [loss for loss in losses if loss is not None]
    if len(known) < 2:
        return None
    part = max(1, len(known) // 5)
    return sum(known[:part]) / part, sum(known[-part:]) / part


def _loss(
    losses: Sequence[float | None], rates: Sequence[tuple[int, float]], steps: int | None
) -> str | None:
    ends = _ends(losses)
    if ends is None or not ends[0] > 0 or ends[1] <= _FALLEN * ends[0]:
        return None
    if rates and not any(rate for _, rate in rates):  # which is said, and explains it
        return None
    rate = f" of {max(rate for _, rate in rates):.2g}" if rates else ""
    if ends[1] > 1.5 * ends[0]:
        return (
            f"The loss rose from {ends[0]:.3g} to {ends[1]:.3g} in {steps} steps: the learning "
            f"rate{rate} or a loss_weight is too high."
        )
    return (
        f"The loss did not fall: it was {ends[0]:.3g} at first and {ends[1]:.3g} at the end of "
        f"{steps} steps. Try another learning rate than that{rate}, 3 times as high and as low."
    )


def _unexplained(
    losses: Sequence[float | None], rates: Sequence[tuple[int, float]], steps: int | None
) -> str:
    """Return the general advice, with what was measured and does not explain the AP."""
    advice = "Train longer, on more images or on fewer classes."
    ends = _ends(losses)
    if ends is None:
        return advice
    return (
        f"Data, anchors and schedule look right, and the loss fell from {ends[0]:.3g} to "
        f"{ends[1]:.3g} in {steps} steps, but not far enough: {advice[0].lower()}{advice[1:]}"
    )
