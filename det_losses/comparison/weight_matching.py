"""Matching of loss weights: equal gradient norms of box losses on the box outputs."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from torch import nn
from tqdm import tqdm

from det_losses.comparison.gradient_norm import gradient_norms
from det_losses.comparison.variants import Selection, Variant
from det_losses.comparison.warm_up import (
    LEAST_BATCHES,
    Lines,
    WarmUp,
    effort,
    progress_bar,
    warm_up,
)
from det_losses.errors import InputError
from det_losses.files import read_whole_json, write_json
from det_losses.generators import generators_kept
from det_losses.losses import build_loss
from det_losses.models.slots import box_layer_name
from det_losses.registry import MODELS, find

MATCHED_FILE = "matched_weights.json"
_GIVE_UP = 64  # batches with boxes, after which no positive is expected any more
_LOOKED_AT = 4  # times as many batches are looked at, if objects are rare


@dataclass(frozen=True)
class MatchedLoss:
    """A loss and the loss weight with which it has the baseline's gradient norm.

    Attributes:
        config: the loss as given.
        given_weight: its loss weight in that config.
        loss_weight: its matched loss weight.
        norm: mean gradient norm with the given weight, at the warmed-up weights.
        initial_norm: the same at the initial weights, on fewer batches.
        error: relative standard error of ``loss_weight``, from the spread over batches.
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
    """The result of matching loss weights.

    Attributes:
        slot: such as ``"loss_bbox"``.
        baseline: label of the loss whose norm the others are matched to.
        batches: number of batches that each norm is averaged over, those with positives.
        warmup_steps: training steps with the baseline before the measurement.
        seed: seed of the warm-up and the batches.
        losses: label -> weight and norms.
    """

    slot: str
    baseline: str
    batches: int
    warmup_steps: int
    seed: int
    losses: dict[str, MatchedLoss]

    def source(self, label: str) -> str:
        """Return the source of a matched weight, for tables."""
        return (
            f"gradient norm {self.losses[label].matched_norm:.3g}, matched to {self.baseline} over "
            f"{self.batches} batches after {self.warmup_steps} steps with {self.baseline}"
        )

    def joined(self, other: "Matching") -> "Matching":
        """Return the union of the losses of two matchings.

        Raises:
            InputError: the two have different settings.
        """
        theirs = replace(other, losses=self.losses)
        first, second = (m.losses[m.baseline].config for m in (self, other))
        if theirs != self or first != second:
            raise InputError(
                f"--match-weights: the stored weights of {self.slot} were matched to "
                f"{self.baseline} over {self.batches} batches after {self.warmup_steps} steps, "
                f"those of this command to {other.baseline} over {other.batches} batches after "
                f"{other.warmup_steps} steps, with other settings; give another --work-dir"
            )
        return replace(self, losses={**other.losses, **self.losses})

    def to_dict(self) -> dict[str, Any]:
        """Return values for JSON, including the norms after matching."""
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
        """Restore a matching from the result of :meth:`to_dict`."""
        fields = MatchedLoss.__dataclass_fields__
        losses = {
            label: MatchedLoss(**{key: loss[key] for key in fields})
            for label, loss in stored["losses"].items()
        }
        return cls(**{**stored, "losses": losses})


def match_variants(cfg: Config, selection: Selection, root: Path) -> list[Variant]:
    """Return the selected variants with loss weights that match the baseline's gradient norm.

    Weights that an earlier command stored in ``matched_weights.json`` are reused.

    Raises:
        InputError: the component is not a box slot, or stored weights have different settings.
    """
    slot, baseline = selection.component, selection.baseline_loss
    losses = {variant.factors[slot]: variant.loss(slot) for variant in selection.variants}
    file = root / MATCHED_FILE
    stored = read_whole_json(file)
    known = None if stored is None else Matching.from_dict(stored)
    if known and (known.slot, known.baseline) != (slot, baseline):
        raise InputError(
            f"{file}: {known.slot} was matched to {known.baseline}, but this command matches "
            f"{slot} to {baseline}; give another --work-dir"
        )
    if known is None or not losses.keys() <= known.losses.keys():
        found = match_weights(
            cfg, slot, losses, baseline, work_dir=root, warmup_steps=known and known.warmup_steps
        )
        known = known.joined(found) if known else found
        write_json(file, known.to_dict(), indent=2)
    variants = []
    for variant in selection.variants:
        label = variant.factors[slot]
        loss = known.losses[label]
        norms = {
            "gradient_norm": loss.matched_norm,
            "initial_gradient_norm": loss.matched_initial_norm,
            "published_weight": loss.given_weight,
        }
        source = known.source(label)
        variants.append(variant.with_weight(slot, loss.loss_weight, source, how="matched", **norms))
    return variants


def match_weights(
    cfg: Config,
    slot: str,
    losses: Mapping[str, Mapping[str, Any]],
    baseline: str,
    *,
    work_dir: str | Path,
    warmup_steps: int | None = None,
    batches: int | None = None,
    seed: int = 0,
) -> Matching:
    r"""Find the weight with which each box loss has the baseline's gradient norm.

    .. math:: w' = w \, \frac{\sum_b \lVert g_b^{baseline} \rVert}{\sum_b \lVert g_b \rVert}

    g_b is the gradient with respect to the raw box output (see
    :mod:`~det_losses.comparison.gradient_norm`) on batch b of fixed training batches,
    at the weights after the first ``warmup_steps`` of the config's training with the baseline.
    Weights and batches are the same for all losses. A loss with running statistics is measured in
    its initial state. The norms at the initial weights, on the first quarter of the batches, are
    for information only.

    Number of batches: in the quickstart of version 0.1 with SmoothL1Loss as the baseline, the norms
    of all box losses on 256 other batches of 16 images agreed within 4.0% after matching on 8
    batches, 1.3% on 128 and 0.5% on 256, the default. The ratio of two norms varies by 2 to 21%
    between batches (9% for GIoULoss), so 256 batches determine a weight to within 1.2% with 95%
    confidence, and those of MSELoss and HuberLoss to within 2.6%. ``error`` of the result is this
    uncertainty on the actual data. Shorter trainings get fewer batches (:func:`effort`), so that
    matching takes no longer than a tenth of a run.

    Args:
        cfg: config of the experiment; it is not changed.
        slot: a box slot of its detector.
        losses: label -> config of a loss, including the baseline.
        baseline: label of the baseline, which keeps its weight.
        work_dir: parent of the temporary folder of the warm-up.
        warmup_steps: steps of the warm-up; None: see :func:`effort`.
        batches: number of fixed batches with positives, at least 8; fewer if objects are rare.
            None: see :func:`effort`; for a given warm-up, as many as belong to it.
        seed: seed of initial weights, warm-up and batches.

    Raises:
        InputError: the slot is not a box slot, an argument is out of range, or a loss has no weight
            or a norm that is zero or not finite.
        KeyboardInterrupt: on a signal; nothing is left on disk.
    """
    if baseline not in losses:
        raise InputError(f"the baseline {baseline!r} is not one of {', '.join(losses)}")
    if batches is not None and batches < LEAST_BATCHES:
        raise InputError(f"batches must be at least {LEAST_BATCHES}, got {batches}")
    box_layer_name(find(MODELS, cfg.model.type), slot)
    modules = {label: build_loss(dict(config)) for label, config in losses.items()}
    given = {label: _weight(label, loss) for label, loss in modules.items()}
    own = copy.deepcopy(cfg)
    own.model[slot] = ConfigDict(losses[baseline])
    print(
        "Matching loss weights: a short training with the baseline, then gradient norms", flush=True
    )
    with progress_bar(f"warm-up with {baseline}") as bar:
        warmed = warm_up(own, warmup_steps, seed, Path(work_dir), bar)
        batches = batches or effort(warmed.training_steps, warmed.steps)[1]
        bar.set_description("gradient norms")
        bar.reset(batches)
        norms = _norms(warmed, slot, modules, batches, seed, bar)
    reference = norms[baseline][1]
    if len(reference) < batches:
        print(
            f"Objects are rare: the weights are matched on {len(reference)} batches with "
            f"positives instead of {batches}"
        )
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
    return Matching(slot, baseline, len(reference), warmed.steps, seed, found)


def ratio_error(first: np.ndarray, second: np.ndarray) -> float:
    r"""Return the relative standard error of ``first.mean() / second.mean()``.

    .. math:: \mathrm{sd}_b \left( x_b / \bar x - y_b / \bar y \right) / \sqrt B

    This is the delta method for a ratio of means of paired values.

    Args:
        first: x, one value per batch, ``[B]``.
        second: y, one value per batch, ``[B]``.
    """
    relative = first / first.mean() - second / second.mean()
    return float(relative.std(ddof=1) / math.sqrt(len(relative)))


def _weight(label: str, loss: nn.Module) -> float:
    weight = getattr(loss, "loss_weight", None)
    if not isinstance(weight, (int, float)) or not weight:
        raise InputError(f"{label}: loss_weight is {weight!r}, but matching needs a nonzero number")
    return float(weight)


def _norms(
    warmed: "WarmUp",
    slot: str,
    losses: Mapping[str, nn.Module],
    batches: int,
    seed: int,
    bar: tqdm | Lines,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the norms of each loss at the initial and the trained weights, one per batch.

    A batch in which no anchor or proposal is positive shows nothing and is not counted: up to
    ``_LOOKED_AT * batches`` batches are looked at for those that have some, but none after the
    first ``_GIVE_UP`` with boxes if no box is positive.

    Raises:
        InputError: fewer than two batches have positives, or a norm is not finite, or zero on all
            batches at the trained weights.
    """
    first = max(LEAST_BATCHES, batches // 4)
    initial: list[dict[str, float]] = []
    trained: list[dict[str, float]] = []
    tried = number = 0
    for number in range(_LOOKED_AT * batches):
        batch = warmed.batches[number]
        if not any(len(target["boxes"]) for target in batch["targets"]):
            continue
        with generators_kept(seed, number):
            found = gradient_norms(warmed.trained, batch, slot, losses)
        tried += 1
        if not any(found.values()):
            if not trained and tried == _GIVE_UP:
                break
            continue
        trained.append(found)
        if len(trained) <= first:
            with generators_kept(seed, number):
                initial.append(gradient_norms(warmed.initial, batch, slot, losses))
        bar.update()
        if len(trained) == batches:
            break
    _check_norms(initial, trained, number + 1)
    return {
        label: tuple(np.array([row[label] for row in rows]) for rows in (initial, trained))
        for label in losses
    }


def _check_norms(
    initial: Sequence[Mapping[str, float]], trained: Sequence[Mapping[str, float]], looked_at: int
) -> None:
    """Check that the norms determine the weights; see :func:`_norms`."""
    if len(trained) < 2:
        raise InputError(
            f"an object was assigned to an anchor or proposal in {len(trained)} of {looked_at} "
            "training batches, which is too few to match loss weights; check the boxes of the "
            "training data, or compare without --match-weights"
        )
    for label in trained[0]:
        if not all(math.isfinite(row[label]) for row in (*initial, *trained)):
            raise InputError(f"{label}: the gradient on the box output is NaN or infinite")
        if not any(row[label] for row in trained):
            raise InputError(
                f"{label}: the gradient on the box output is zero on all {len(trained)} batches, "
                "so no weight can match it; remove the loss or check the boxes of the data"
            )
