"""The plan of a comparison: which losses and seeds on which config; kept in its directory."""

import copy
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from det_losses.compare.differences import describe, differences, plain
from det_losses.compare.files import read_json, write_json
from det_losses.compare.weights import NamedLoss

PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class PlannedRun:
    """One training of a comparison, in a directory of its own."""

    loss: NamedLoss
    seed: int
    work_dir: Path

    @property
    def title(self) -> str:
        """The name of the run on a terminal."""
        return f"{self.loss.label} seed {self.seed}"


@dataclass
class Plan:
    """What a comparison trains.

    Attributes:
        component: the slot whose loss changes, such as ``"loss_bbox"``.
        detector: registered name of the detector.
        config: the config that all runs share, plain, without the slot and the seed.
        losses: the losses, the baseline first.
        seeds: the seeds.
    """

    component: str
    detector: str
    config: dict[str, Any]
    losses: list[NamedLoss] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    @classmethod
    def of(
        cls, cfg: Config, component: str, losses: Sequence[NamedLoss], seeds: Sequence[int]
    ) -> "Plan":
        """Return the plan of a command.

        Raises:
            ValueError: a loss or a seed is named twice.
        """
        for name, values in (("--losses", [loss.label for loss in losses]), ("--seeds", seeds)):
            twice = {value for value in values if list(values).count(value) > 1}
            if twice:
                raise ValueError(f"{name} names {', '.join(map(str, twice))} twice")
        shared = plain(cfg, without=[f"model.{component}", "randomness.seed"])
        return cls(component, cfg.model.type, shared, list(losses), list(seeds))

    @property
    def hash(self) -> str:
        """SHA-256 of what all runs share."""
        shared = [self.component, self.detector, self.config]
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()

    def runs(self, root: Path) -> list[PlannedRun]:
        """Return all runs, each seed with all losses before the next seed."""
        return [
            PlannedRun(loss, seed, root / "runs" / _folder(loss.label) / f"seed_{seed}")
            for seed in self.seeds
            for loss in self.losses
        ]

    def joined(self, stored: "Plan", root: Path) -> "Plan":
        """Return the stored plan with this one's further losses and seeds.

        Raises:
            ValueError: the stored plan is on another config, or has another loss of that name.
        """
        old, new = ({"component": p.component, **p.config} for p in (stored, self))
        lines = differences(old, new)
        if lines:
            raise ValueError(
                f"{root} holds a comparison on another config ({describe(lines)}); "
                "give another --work-dir"
            )
        known = {loss.label: loss for loss in stored.losses}
        for loss in self.losses:
            lines = differences(known.get(loss.label, loss).config, loss.config)
            if lines:
                raise ValueError(
                    f"{root} holds a comparison with another {loss.label} ({describe(lines)}); "
                    "give another --work-dir"
                )
        losses = stored.losses + [loss for loss in self.losses if loss.label not in known]
        seeds = stored.seeds + [seed for seed in self.seeds if seed not in stored.seeds]
        return Plan(self.component, self.detector, self.config, losses, seeds)

    def save(self, root: Path) -> None:
        """Write ``plan.json``."""
        losses = [vars(loss) for loss in self.losses]
        write_json(root / PLAN_FILE, {**vars(self), "losses": losses, "hash": self.hash})

    @classmethod
    def load(cls, root: Path) -> "Plan | None":
        """Return the plan of a directory, or None."""
        stored = read_json(root / PLAN_FILE)
        if stored is None:
            return None
        stored.pop("hash")
        losses = [NamedLoss(**loss) for loss in stored.pop("losses")]
        return cls(losses=losses, **stored)


def run_config(cfg: Config, component: str, run: PlannedRun) -> Config:
    """Return the config of one run: the shared one with its loss, its seed and its result file."""
    own = copy.deepcopy(cfg)
    own.model[component] = ConfigDict(run.loss.config)
    own.randomness = ConfigDict({**(cfg.get("randomness") or {}), "seed": run.seed})
    for key in ("val_evaluator", "test_evaluator"):
        evaluators = own.get(key) or []
        for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
            if str(evaluator.get("type", "")).split(".")[-1] == "CocoMetric":
                evaluator.out_file = "detections.json"
    return own


def _folder(label: str) -> str:
    """Return a directory name for a loss; what a label has beside its name gets a short hash."""
    if re.fullmatch(r"[\w.]+", label):
        return label
    digest = hashlib.sha256(label.encode()).hexdigest()[:6]
    readable = re.sub(r"[^\w.=-]+", "-", label)[:60]
    return f"{readable}-{digest}"
