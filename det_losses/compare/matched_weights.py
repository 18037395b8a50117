"""Loss weights with which all box losses pull equally hard: gradients matched to the baseline's."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from torch import nn
from tqdm import tqdm

from det_losses.compare.warm_up import WarmUp, warm_up
from det_losses.engine.gradient_norm import gradient_norms
from det_losses.engine.runner import shows_bar
from det_losses.generators import generators_kept
from det_losses.losses import build_loss
from det_losses.models.box_outputs import box_layer_name
from det_losses.registry import MODELS, find

LEAST_BATCHES = 8
BATCHES = 24
WARMUP_STEPS = 100


@dataclass(frozen=True)
class MatchedLoss:
    """The weight of a loss that pulls as hard as the baseline.

    Attributes:
        config: the loss as it was given.
        given_weight: its loss weight there.
        loss_weight: the matched one.
        norm: mean gradient norm with the given weight, at the warmed-up weights.
        initial_norm: the same at the initial weights.
        error: standard error of ``loss_weight`` as a fraction of it, from the spread over batches.
    """

    config: dict[str, Any]
    given_weight: float
    loss_weight: float
    norm: float
    initial_norm: float
    error: float

    @property
    def matched_norm(self) -> float:
        """Mean gradient norm with the matched weight, at the warmed-up weights: the baseline's."""
        return self.norm * self.loss_weight / self.given_weight

    @property
    def matched_initial_norm(self) -> float:
        """Mean gradient norm with the matched weight, at the initial weights."""
        return self.initial_norm * self.loss_weight / self.given_weight


@dataclass(frozen=True)
class Matching:
    """What a matching of loss weights came to.

    Attributes:
        slot: such as ``"loss_bbox"``.
        baseline: label of the loss whose norm the others got.
        batches: how many batches each norm is the mean of.
        warmup_steps: training steps with the baseline before the norms were taken.
        seed: of the warm-up and the batches.
        losses: label -> its weight and norms.
    """

    slot: str
    baseline: str
    batches: int
    warmup_steps: int
    seed: int
    losses: dict[str, MatchedLoss]

    def source(self, label: str) -> str:
        """Return where the weight of a loss comes from, for tables."""
        return (
            f"gradient norm {self.losses[label].matched_norm:.3g}, as {self.baseline}'s, over "
            f"{self.batches} batches after {self.warmup_steps} steps with {self.baseline}"
        )

    def joined(self, other: "Matching") -> "Matching":
        """Return this matching with the other one's further losses.

        Raises:
            ValueError: the two were not made in the same way.
        """
        theirs = replace(other, losses=self.losses)
        if theirs != self or other.losses[self.baseline].config != self._baseline.config:
            raise ValueError(
                f"loss weights were matched with slot={self.slot}, baseline={self.baseline}, "
                f"batches={self.batches}, warmup_steps={self.warmup_steps}, seed={self.seed}, and "
                "are now asked for in another way; give another --work-dir"
            )
        return replace(self, losses={**other.losses, **self.losses})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with the norms after matching."""
        losses = {
            label: {
                **asdict(loss),
                "matched_norm": loss.matched_norm,
                "matched_initial_norm": loss.matched_initial_norm,
            }
            for label, loss in self.losses.items()
        }
        return {**vars(self), "losses": losses}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Matching":
        """Return the matching that :meth:`to_dict` gave."""
        fields = MatchedLoss.__dataclass_fields__
        losses = {
            label: MatchedLoss(**{key: loss[key] for key in fields})
            for label, loss in stored["losses"].items()
        }
        return cls(**{**stored, "losses": losses})

    @property
    def _baseline(self) -> MatchedLoss:
        return self.losses[self.baseline]


def match_weights(
    cfg: Config,
    slot: str,
    losses: Mapping[str, Mapping[str, Any]],
    baseline: str,
    *,
    work_dir: str | Path,
    warmup_steps: int = WARMUP_STEPS,
    batches: int = BATCHES,
    seed: int = 0,
) -> Matching:
    r"""Find the weight with which each box loss has the gradient norm of the baseline.

    .. math:: w' = w \, \frac{\sum_b \lVert g_b^{baseline} \rVert}{\sum_b \lVert g_b \rVert}

    g_b is the gradient with respect to the raw box output (see
    :func:`~det_losses.engine.gradient_norm.gradient_norm`) on batch b of fixed training batches, at
    the weights that the first ``warmup_steps`` of the config's training have made with the
    baseline. Weights and batches are the same for all losses. A loss with a running state is
    measured in the state in which it is built.

    Args:
        cfg: config of the experiment; it is not changed.
        slot: a box slot of its detector.
        losses: label -> configuration of a loss, the baseline among them.
        baseline: label of the loss whose norm the others get; it keeps its weight.
        work_dir: where the warm-up may put a temporary folder.
        warmup_steps: steps of the warm-up.
        batches: how many fixed batches, at least 8.
        seed: of initial weights, warm-up and batches.

    Raises:
        ValueError: the slot is no box slot, an argument is out of range, or a loss has no weight or
            a norm that is zero or not finite.
        KeyboardInterrupt: a signal asked for the end; nothing is left on disk.
    """
    if baseline not in losses:
        raise ValueError(f"the baseline {baseline!r} is none of {', '.join(losses)}")
    if batches < LEAST_BATCHES:
        raise ValueError(f"batches must be at least {LEAST_BATCHES}, got {batches}")
    box_layer_name(find(MODELS, cfg.model.type), slot)
    modules = {label: build_loss(dict(config)) for label, config in losses.items()}
    given = {label: _weight(label, loss) for label, loss in modules.items()}
    own = copy.deepcopy(cfg)
    own.model[slot] = ConfigDict(losses[baseline])
    steps = warmup_steps + 2 * batches
    title = "matching loss weights"
    with tqdm(total=steps, desc=title, disable=not shows_bar(), leave=False) as bar:
        models = warm_up(own, warmup_steps, seed, Path(work_dir), bar.update)
        norms = _norms(models, slot, modules, batches, seed, bar.update)
    reference = norms[baseline][1]
    found = {}
    for label, (initial, trained) in norms.items():
        factor = reference.mean() / trained.mean()
        found[label] = MatchedLoss(
            config=dict(losses[label]),
            given_weight=given[label],
            loss_weight=given[label] * float(factor),
            norm=float(trained.mean()),
            initial_norm=float(initial.mean()),
            error=ratio_error(reference, trained),
        )
    return Matching(slot, baseline, batches, warmup_steps, seed, found)


def ratio_error(first: np.ndarray, second: np.ndarray) -> float:
    r"""Return the standard error of ``first.mean() / second.mean()`` as a fraction of it.

    .. math:: \mathrm{sd}_b \left( x_b / \bar x - y_b / \bar y \right) / \sqrt B

    This is the delta method for a ratio of means of paired values.

    Args:
        first: x, one value a batch, ``[B]``.
        second: y, likewise.
    """
    relative = first / first.mean() - second / second.mean()
    return float(relative.std(ddof=1) / math.sqrt(len(relative)))


def _weight(label: str, loss: nn.Module) -> float:
    weight = getattr(loss, "loss_weight", None)
    if not isinstance(weight, (int, float)) or not weight:
        raise ValueError(
            f"{label}: loss_weight is {weight!r}, and matching needs a number to scale"
        )
    return float(weight)


def _norms(
    models: WarmUp,
    slot: str,
    losses: Mapping[str, nn.Module],
    batches: int,
    seed: int,
    tick: Callable[[], Any],
) -> dict[str, np.ndarray]:
    """Return for each loss its norms at the initial and the trained weights, ``[2, batches]``.

    Raises:
        ValueError: a norm is not finite, or zero on all batches at the trained weights.
    """
    norms = {label: np.empty((2, batches)) for label in losses}
    for number in range(batches):
        batch = models.batches[number]
        for row, model in enumerate((models.initial, models.trained)):
            with generators_kept(seed, number):
                found = gradient_norms(model, batch, slot, losses)
            for label, norm in found.items():
                norms[label][row, number] = norm
            tick()
    for label, values in norms.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{label}: the gradient on the box output is NaN or infinite")
        if not values[1].any():
            raise ValueError(
                f"{label}: the gradient on the box output is zero on all {batches} batches, so no "
                "weight can match it; leave the loss out or look at the boxes of the data"
            )
    return norms
