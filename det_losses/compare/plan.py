"""The plan of a comparison: which variants and seeds on which config; kept in its directory."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from det_losses.compare.files import write_json
from det_losses.compare.variants import Variant
from det_losses.config_diff import describe, differences, plain
from det_losses.engine.run import is_finished
from det_losses.files import PLAN_FILE, read_json

DETECTIONS_FILE = "detections.json"


@dataclass(frozen=True)
class PlannedRun:
    """One training of a comparison, in a directory of its own."""

    variant: Variant
    seed: int
    work_dir: Path

    @property
    def title(self) -> str:
        """The name of the run on a terminal."""
        return f"{self.variant.label} seed {self.seed}"


@dataclass
class Plan:
    """What a comparison trains.

    Attributes:
        components: the slots whose losses change, such as ``["loss_bbox"]``; none where whole
            variants are compared.
        detector: registered name of the detector.
        config: the config that all runs share, plain, without the components and the seed.
        variants: what is compared, in the order that was given.
        seeds: the seeds.
    """

    components: list[str]
    detector: str
    config: dict[str, Any]
    variants: list[Variant] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        cfg: Config,
        components: Sequence[str],
        variants: Sequence[Variant],
        seeds: Sequence[int],
    ) -> "Plan":
        """Return the plan of a command.

        Raises:
            ValueError: a variant or a seed is named twice.
        """
        labels = [variant.label for variant in variants]
        for name, values in (("the comparison", labels), ("--seeds", seeds)):
            twice = {value for value in values if list(values).count(value) > 1}
            if twice:
                raise ValueError(f"{name} names {', '.join(map(str, twice))} twice")
        without = [f"model.{component}" for component in components]
        shared = plain(cfg, without=[*without, "randomness.seed"])
        return cls(list(components), cfg.model.type, shared, list(variants), list(seeds))

    @property
    def hash(self) -> str:
        """SHA-256 of what all runs share."""
        shared = [self.components, self.detector, self.config]
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()

    def runs(self, root: Path) -> list[PlannedRun]:
        """Return all runs, each seed with all variants before the next seed."""
        return [
            PlannedRun(variant, seed, root / "runs" / _folder(variant.label) / f"seed_{seed}")
            for seed in self.seeds
            for variant in self.variants
        ]

    def unfinished(self, root: Path, seed: int) -> int:
        """Return how many runs of a seed are still to be trained."""
        runs = replace(self, seeds=[seed]).runs(root)
        return sum(not is_finished(run.work_dir) for run in runs)

    def joined(self, stored: "Plan", root: Path) -> "Plan":
        """Return the stored plan with this one's further variants and seeds.

        Raises:
            ValueError: the stored plan is on another config, or has another variant of that name.
        """
        old, new = ({"components": p.components, **p.config} for p in (stored, self))
        lines = differences(old, new)
        if lines:
            raise ValueError(
                f"{root} holds a comparison on another config ({describe(lines)}); "
                "give another --work-dir"
            )
        known = {variant.label: variant for variant in stored.variants}
        for variant in self.variants:
            before = known.get(variant.label, variant)
            lines = differences(before.changes, variant.changes)
            if lines:
                raise ValueError(
                    f"{root} holds a comparison with another {variant.label} "
                    f"({describe(lines)}); give another --work-dir"
                )
        variants = stored.variants + [v for v in self.variants if v.label not in known]
        seeds = stored.seeds + [seed for seed in self.seeds if seed not in stored.seeds]
        return Plan(self.components, self.detector, self.config, variants, seeds)

    def save(self, root: Path) -> None:
        """Write ``plan.json``."""
        write_json(root / PLAN_FILE, {**asdict(self), "hash": self.hash})

    @classmethod
    def load(cls, root: Path) -> "Plan | None":
        """Return the plan of a directory, or None."""
        stored = read_json(root / PLAN_FILE)
        if stored is None:
            return None
        if "variants" not in stored:
            raise ValueError(
                f"{root / PLAN_FILE} is of an older version of det_losses; give another --work-dir"
            )
        stored.pop("hash")
        variants = [Variant(**variant) for variant in stored.pop("variants")]
        return cls(variants=variants, **stored)


def run_config(cfg: Config, run: PlannedRun) -> Config:
    """Return the config of one run: the shared one with its changes, seed and result file."""
    own = run.variant.apply(cfg)
    own.randomness = ConfigDict({**(own.get("randomness") or {}), "seed": run.seed})
    for key in ("val_evaluator", "test_evaluator"):
        evaluators = own.get(key) or []
        for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
            if str(evaluator.get("type", "")).split(".")[-1] == "CocoMetric":
                evaluator.out_file = DETECTIONS_FILE
    return own


def _folder(label: str) -> str:
    """Return a directory name for a loss; what a label has beside its name gets a short hash."""
    if re.fullmatch(r"[\w.]+", label):
        return label
    digest = hashlib.sha256(label.encode()).hexdigest()[:6]
    readable = re.sub(r"[^\w.=-]+", "-", label)[:60]
    return f"{readable}-{digest}"
