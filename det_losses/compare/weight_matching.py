"""Loss weights with which the gradient norms of box losses on the box outputs are equal."""

import copy
import gc
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from tqdm import tqdm

from det_losses.compare.gradient_norm import FixedBatches, gradient_norms
from det_losses.compare.variants import Selection, Variant
from det_losses.engine.build import build_runner
from det_losses.engine.run import build_parts
from det_losses.engine.runner import shows_bar
from det_losses.engine.signals import StopHook
from det_losses.errors import InputError
from det_losses.files import read_json, write_json
from det_losses.generators import generators_kept
from det_losses.losses import build_loss
from det_losses.models.slots import box_layer_name
from det_losses.registry import MODELS, find

MATCHED_FILE = "matched_weights.json"
LEAST_BATCHES = 8
BATCHES = 256


@dataclass(frozen=True)
class MatchedLoss:
    """A loss with the weight that gives it the baseline's gradient norm.

    Attributes:
        config: the loss as it was given.
        given_weight: its loss weight there.
        loss_weight: the matched one.
        norm: mean gradient norm with the given weight, at the warmed-up weights.
        initial_norm: the same at the initial weights, on fewer batches.
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
    """The result of matching loss weights.

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
            InputError: the two were not made in the same way.
        """
        theirs = replace(other, losses=self.losses)
        first, second = (m.losses[m.baseline].config for m in (self, other))
        if theirs != self or first != second:
            raise InputError(
                f"loss weights were matched with slot={self.slot}, baseline={self.baseline}, "
                f"batches={self.batches}, warmup_steps={self.warmup_steps}, seed={self.seed}, and "
                "this command asks for another matching; give another --work-dir"
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


def match_variants(cfg: Config, selection: Selection, root: Path) -> list[Variant]:
    """Return the selected variants with loss weights that match the baseline's gradient norm.

    What was matched before in this directory stays: ``matched_weights.json``.

    Raises:
        InputError: the component is not a box slot, or was matched otherwise before.
    """
    slot, baseline = selection.component, selection.baseline_loss
    losses = {variant.factors[slot]: variant.loss(slot) for variant in selection.variants}
    file = root / MATCHED_FILE
    stored = read_json(file)
    known = None if stored is None else Matching.from_dict(stored)
    if known and (known.slot, known.baseline) != (slot, baseline):
        raise InputError(
            f"{file}: the weights of {known.slot} were matched to {known.baseline}, not those of "
            f"{slot} to {baseline}; give another --work-dir"
        )
    if known is None or not losses.keys() <= known.losses.keys():
        print("Matching loss weights: a short training with the baseline", flush=True)
        found = match_weights(cfg, slot, losses, baseline, work_dir=root)
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
    batches: int = BATCHES,
    seed: int = 0,
) -> Matching:
    r"""Find the weight with which each box loss has the gradient norm of the baseline.

    .. math:: w' = w \, \frac{\sum_b \lVert g_b^{baseline} \rVert}{\sum_b \lVert g_b \rVert}

    g_b is the gradient with respect to the raw box output (see
    :func:`~det_losses.compare.gradient_norm.gradient_norm`) on batch b of fixed training batches,
    at the weights after the first ``warmup_steps`` of the config's training with the baseline.
    Weights and batches are the same for all losses. A loss with a running state is measured in the
    state in which it is built. The norms at the initial weights, on the first quarter of the
    batches, are for information only.

    How many batches it takes: in quickstart/retinanet_shapes, SmoothL1Loss the baseline, the norms
    of all box losses on 256 other batches of 16 images agreed within 4.0% after matching on 8
    batches, 1.3% on 128 and 0.5% on 256, the default. The ratio of two norms varies from batch to
    batch by 2 to 21% (9% for GIoULoss); so 256 batches give a weight to within 1.2% with 95%
    confidence, those of MSELoss and HuberLoss to within 2.6%. ``error`` of the result says it for
    the data at hand.

    Args:
        cfg: config of the experiment; it is not changed.
        slot: a box slot of its detector.
        losses: label -> config of a loss, the baseline among them.
        baseline: label of the loss whose norm the others get; it keeps its weight.
        work_dir: where the warm-up may put a temporary folder.
        warmup_steps: steps of the warm-up; None: a tenth of training, but 100 to 1000 steps.
        batches: how many fixed batches, at least 8.
        seed: of initial weights, warm-up and batches.

    Raises:
        InputError: the slot is not a box slot, an argument is out of range, or a loss has no weight
            or a norm that is zero or not finite.
        KeyboardInterrupt: a signal came; nothing is left on disk.
    """
    if baseline not in losses:
        raise InputError(f"the baseline {baseline!r} is none of {', '.join(losses)}")
    if batches < LEAST_BATCHES:
        raise InputError(f"batches must be at least {LEAST_BATCHES}, got {batches}")
    box_layer_name(find(MODELS, cfg.model.type), slot)
    modules = {label: build_loss(dict(config)) for label, config in losses.items()}
    given = {label: _weight(label, loss) for label, loss in modules.items()}
    own = copy.deepcopy(cfg)
    own.model[slot] = ConfigDict(losses[baseline])
    with tqdm(desc=f"warm-up with {baseline}", disable=not shows_bar(), leave=False) as bar:
        models = warm_up(own, warmup_steps, seed, Path(work_dir), bar)
        bar.set_description("gradient norms")
        bar.reset(batches)
        norms = _norms(models, slot, modules, batches, seed, bar)
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
    return Matching(slot, baseline, batches, models.steps, seed, found)


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
        raise InputError(
            f"{label}: loss_weight is {weight!r}, and matching needs a number to scale"
        )
    return float(weight)


def _norms(
    models: "WarmUp",
    slot: str,
    losses: Mapping[str, nn.Module],
    batches: int,
    seed: int,
    bar: tqdm,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return for each loss its norms at the initial and at the trained weights, one a batch.

    Raises:
        InputError: a norm is not finite, or zero on all batches at the trained weights.
    """
    counts = max(LEAST_BATCHES, batches // 4), batches
    norms = {label: tuple(np.empty(count) for count in counts) for label in losses}
    for number in range(batches):
        batch = models.batches[number]
        for row, model in enumerate((models.initial, models.trained)):
            if number < counts[row]:
                with generators_kept(seed, number):
                    found = gradient_norms(model, batch, slot, losses)
                for label, norm in found.items():
                    norms[label][row][number] = norm
        bar.update()
    for label, (initial, trained) in norms.items():
        if not (np.isfinite(initial).all() and np.isfinite(trained).all()):
            raise InputError(f"{label}: the gradient on the box output is NaN or infinite")
        if not trained.any():
            raise InputError(
                f"{label}: the gradient on the box output is zero on all {batches} batches, so no "
                "weight can match it; leave the loss out or look at the boxes of the data"
            )
    return norms


@dataclass(frozen=True)
class WarmUp:
    """The result of a warm-up.

    Attributes:
        steps: how many there were.
        initial: the model with its initial weights.
        trained: the model after the last step.
        batches: fixed batches of the training data.
    """

    steps: int
    initial: nn.Module
    trained: nn.Module
    batches: FixedBatches


def warm_up(
    cfg: Config, steps: int | None, seed: int, work_dir: Path, bar: tqdm | None = None
) -> WarmUp:
    """Train the first steps of a config in memory: its schedule and hooks, without evaluation.

    Args:
        cfg: the config; it is not changed.
        steps: how many; None: a tenth of all, but from 100 to 1000 where there are so many.
        seed: of initial weights, data order and augmentation, and of the fixed batches.
        work_dir: where a temporary folder is made, and removed at the end.
        bar: shows the progress.

    Raises:
        InputError: the config trains fewer steps.
        KeyboardInterrupt: a signal came.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".warm_up.", dir=work_dir) as folder:
        runner = build_runner(_training_only(cfg, seed, folder))
        build_parts(runner)
        steps = _checked_steps(steps, runner.max_iters)
        loader = runner.train_dataloader
        batch_size = runner.cfg.train_dataloader.batch_size
        batches = FixedBatches(loader.dataset, loader.collate_fn, batch_size, seed)
        initial = copy.deepcopy(runner.model)  # before hooks are put on it
        trained = copy.deepcopy(runner.model)
        snapshots = _train(runner, steps, tqdm(disable=True) if bar is None else bar)
    initial.load_state_dict(snapshots.initial)
    trained.load_state_dict(snapshots.trained)
    del runner, loader
    gc.collect()  # ends the loader's workers
    torch.cuda.empty_cache()
    return WarmUp(steps, initial, trained, batches)


def _checked_steps(steps: int | None, most: int) -> int:
    if steps is None:
        return min(max(100, most // 10), 1000, most)
    if not 1 <= steps <= most:
        raise InputError(
            f"warmup_steps must be 1 to {most}, the steps that the config trains, got {steps}"
        )
    return steps


def _training_only(cfg: Config, seed: int, folder: str) -> Config:
    own = copy.deepcopy(cfg)
    for key in ("val_dataloader", "val_cfg", "val_evaluator"):
        own.pop(key, None)
    own.work_dir, own.log_level, own.resume = folder, "WARNING", False
    own.randomness = {**(cfg.get("randomness") or {}), "seed": seed}
    hooks = own.get("default_hooks") or {}
    kept = {
        name: hook
        for name, hook in hooks.items()
        if hook and not str(hook.get("type")).endswith("ProgressHook")
    }
    own.default_hooks = {**kept, "checkpoint": None}
    return own


class _Done(Exception):
    """The last step is done."""


class _SnapshotHook(Hook):
    """Keeps the weights before the first step and after the last one, when it ends training."""

    priority = "LOWEST"

    def __init__(self, steps: int, bar: tqdm) -> None:
        self.initial: dict[str, Tensor] = {}
        self.trained: dict[str, Tensor] = {}
        self._steps, self._bar = steps, bar

    def before_train(self, runner: Runner) -> None:
        self._bar.reset(self._steps)
        self.initial = copy.deepcopy(runner.model.state_dict())

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self._bar.update()
        if runner.iter + 1 >= self._steps:
            self.trained = copy.deepcopy(runner.model.state_dict())
            raise _Done


def _train(runner: Runner, steps: int, bar: tqdm) -> _SnapshotHook:
    stop, snapshots = StopHook(), _SnapshotHook(steps, bar)
    runner.register_hook(stop, priority="LOWEST")
    runner.register_hook(snapshots, priority="LOWEST")
    with stop.listening():
        try:
            runner.train()
        except _Done:
            pass
    return snapshots
