"""The plan of a comparison, which lists its runs, and what is stored of each."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from det_losses.comparison.fork import FORK_FILE, Fork
from det_losses.comparison.trainer import DETECTIONS_FILE, detector_of, is_foreign
from det_losses.comparison.variants import Variant
from det_losses.config_diff import describe, differences, plain
from det_losses.engine.config import entries, select_fold
from det_losses.engine.run import is_finished, read_metrics
from det_losses.errors import InputError
from det_losses.evaluation.metrics import LOGGED_METRICS
from det_losses.files import (
    PLAN_FILE,
    RESULTS_FILE,
    read_whole_json,
    write_json,
)

STATUS_FILE = "status.json"
_RECORDED = (
    "train_seconds",
    "seconds_per_iteration",
    "peak_memory_mb",
    "peak_memory_kind",
    "proof",
    "initial_weights",
    "weights",
)


@dataclass(frozen=True)
class PlannedRun:
    """One training of a comparison, in its own directory.

    Attributes:
        variant: what it trains.
        seed: its seed.
        work_dir: its directory.
        fork: where the runs of the comparison fork; None if all of them train from scratch.
        start: the checkpoint from which this run starts; None: from scratch.
        foreign: whether another program trains it, which cannot show which losses it called.
    """

    variant: Variant
    seed: int
    work_dir: Path
    fork: Fork | None = None
    start: Path | None = None
    foreign: bool = False

    @property
    def title(self) -> str:
        """The name of the run in messages."""
        return f"{self.variant.label} seed {self.seed}"

    @property
    def share(self) -> float:
        """The fraction of a whole training that this run trains."""
        return self.fork.share if self.start else 1.0

    def config(self, cfg: Config) -> Config:
        """Return the shared config with the changes, seed, fold and result file of this run."""
        own = self.variant.apply(cfg)
        select_fold(own, self.seed)
        own.randomness = ConfigDict({**(own.get("randomness") or {}), "seed": self.seed})
        for key in () if self.foreign else ("val_evaluator", "test_evaluator"):
            for evaluator in entries(own.get(key)):
                if str(evaluator.get("type", "")).split(".")[-1] == "CocoMetric":
                    evaluator.out_file = DETECTIONS_FILE
        if self.fork and not self.start:
            keep = dict(type="ForkHook", epoch=self.fork.epoch, filename=FORK_FILE)
            own.custom_hooks = [*(own.get("custom_hooks") or []), keep]
        return own

    def set_status(self, status: str, error: str | None = None) -> None:
        """Store how an unfinished run ended: ``"failed"`` or ``"interrupted"``."""
        write_json(self.work_dir / STATUS_FILE, {"status": status, "error": error}, indent=2)

    def row(self, root: Path) -> dict[str, Any]:
        """Return the run's row; status is done, failed, interrupted or pending.

        A run whose record does not show that it called the variant's losses is failed, whatever its
        AP. A run in which a loss had no gradient is done, because its data may have no boxes; the
        report has a caution.
        """
        record = read_metrics(self.work_dir)
        error = self._record_error(record) if record else None
        stored = {} if record else read_whole_json(self.work_dir / STATUS_FILE) or {}
        status = ("failed" if error else "done") if record else stored.get("status", "pending")
        return {
            "variant": self.variant.label,
            "seed": self.seed,
            "status": status,
            "error": error or stored.get("error"),
            "metrics": record.get("metrics", dict.fromkeys(LOGGED_METRICS)),
            **{key: record.get(key) for key in _RECORDED},
            "built": record.get("losses"),
            "work_dir": str(self.work_dir.relative_to(root)),
            "detections": [record.get("detections", DETECTIONS_FILE)],
            "history": "history.jsonl",
        }

    def _record_error(self, record: dict[str, Any]) -> str | None:
        if self.foreign:
            return None
        return record_error(record, self.variant) or self._fork_error(record)

    def _fork_error(self, record: dict[str, Any]) -> str | None:
        """Return why a finished run did not start where it should."""
        wanted = self.fork.epoch if self.start else None
        found = (record.get("fork") or {}).get("epoch")
        if found == wanted:
            return None
        places = ["from scratch" if e is None else f"after epoch {e}" for e in (found, wanted)]
        return f"started {places[0]}, not {places[1]} as planned"


def record_error(record: dict[str, Any], variant: Variant) -> str | None:
    """Return why a finished run's record does not show that it trained the variant's losses."""
    for key, config in variant.changes.items():
        slot = key.removeprefix("model.")
        if not slot.startswith("loss_") or not isinstance(config, dict):
            continue
        proof = (record.get("proof") or {}).get(slot)
        if not proof:
            return f"metrics.json has no proof that {slot} was {config['type']}"
        name = config["type"].split(".")[-1]
        if not proof["loss"].startswith(f"{name}("):
            return f"{slot} was {proof['loss']}, not {config['type']} as planned"
        # Runs of earlier versions recorded the difference from the gradient of the named loss.
        errors = [value for value in proof.get("probe", {}).values() if value is not None]
        if not proof["calls"] or max(errors, default=0.0) > 1e-4:
            return f"{slot} did not train with {config['type']}: {proof}"
    return None


@dataclass
class Plan:
    """What a comparison trains.

    Attributes:
        components: the slots whose losses change, such as ``["loss_bbox"]``; empty if all
            variants are given by config keys.
        detector: registered name of the detector; or the description of another trainer.
        config: the config that all runs share, as plain values, without the components and the
            seed.
        variants: the variants in the given order.
        seeds: the seeds.
        own_seeds: label -> its seeds, of the variants that do not have all of ``seeds``.
        fork: where the runs fork; None if all of them train from scratch.
    """

    components: list[str]
    detector: str
    config: dict[str, Any]
    variants: list[Variant] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    own_seeds: dict[str, list[int]] = field(default_factory=dict)
    fork: Fork | None = None

    @classmethod
    def of(
        cls,
        cfg: Config,
        components: Sequence[str],
        variants: Sequence[Variant],
        seeds: Sequence[int],
        fork: Fork | None = None,
    ) -> "Plan":
        """Return the plan of a command.

        Raises:
            InputError: a variant or a seed is given twice.
        """
        labels = [variant.label for variant in variants]
        for name, values in (("the comparison", labels), ("--seeds", seeds)):
            twice = dict.fromkeys(value for value in values if list(values).count(value) > 1)
            if twice:
                raise InputError(f"{name} contains {', '.join(map(str, twice))} twice")
        without = [f"model.{component}" for component in components]
        shared = plain(cfg, without=[*without, "randomness.seed"])
        parts = list(components), detector_of(cfg), shared, list(variants), list(seeds)
        return cls(*parts, fork=fork)

    @property
    def hash(self) -> str:
        """SHA-256 of what all runs share."""
        shared = [self.components, self.detector, self.config]
        shared += [asdict(self.fork)] if self.fork else []
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()

    @property
    def foreign(self) -> bool:
        """Whether another program trains the runs."""
        return is_foreign(self.config)

    def seeds_of(self, label: str) -> list[int]:
        """Return the seeds of a variant."""
        return self.own_seeds.get(label, self.seeds)

    def runs(self, root: Path) -> list[PlannedRun]:
        """Return all runs, each seed with all variants that have it before the next seed."""
        return [
            self._run(variant, seed, root)
            for seed in self.seeds
            for variant in self.variants
            if seed in self.seeds_of(variant.label)
        ]

    def _run(self, variant: Variant, seed: int, root: Path) -> PlannedRun:
        def folder(label: str) -> Path:
            return root / "runs" / _folder(label) / f"seed_{seed}"

        forked = self.fork and variant.label != self.fork.baseline
        start = folder(self.fork.baseline) / FORK_FILE if forked else None
        return PlannedRun(variant, seed, folder(variant.label), self.fork, start, self.foreign)

    def unfinished(self, root: Path, seed: int) -> float:
        """Return the number of unfinished runs of a seed; a forked run counts for its part."""
        runs = replace(self, seeds=[seed]).runs(root)
        return sum(run.share for run in runs if not is_finished(run.work_dir))

    def seconds_per_run(self, root: Path) -> float | None:
        """Return the mean time of a whole training, of the finished runs; None without them."""
        known = [
            record["train_seconds"] / run.share
            for run in self.runs(root)
            if (record := read_metrics(run.work_dir)).get("train_seconds")
        ]
        return sum(known) / len(known) if known else None

    def bytes_per_run(self, root: Path) -> int:
        """Return the mean size of the files of the finished runs, in bytes."""
        folders = [run.work_dir for run in self.runs(root) if is_finished(run.work_dir)]
        sizes = [
            file.stat().st_size for each in folders for file in each.rglob("*") if file.is_file()
        ]
        return sum(sizes) // max(1, len(folders))

    def added_to(self, stored: "Plan", root: Path) -> "Plan":
        """Return the plan stored in ``root``, extended by the variants and seeds of this plan.

        A variant has the seeds that either plan gives it, and no others.

        Raises:
            InputError: the stored plan has a different config, or a different variant with the same
                label.
        """
        old, new = (
            {"components": p.components, **plain(p.config), "--fork-at": p.fork and asdict(p.fork)}
            for p in (stored, self)
        )
        lines = differences(old, new)
        if lines:
            changed = all(line.startswith("model.weights.sha256") for line in lines)
            advice = "the file of the weights was changed: restore it, or " if changed else ""
            raise InputError(
                f"{root} contains a comparison with a different config ({describe(lines)}); "
                f"{advice}give another --work-dir"
            )
        known = {variant.label: variant for variant in stored.variants}
        for variant in self.variants:
            before = known.get(variant.label, variant)
            lines = differences(before.changes, variant.changes)
            if lines:
                raise InputError(
                    f"{root} contains a comparison with a different {variant.label} "
                    f"({describe(lines)}); give another --work-dir"
                )
        variants = stored.variants + [v for v in self.variants if v.label not in known]
        seeds = list(dict.fromkeys([*stored.seeds, *self.seeds]))
        own_seeds = {}
        for variant in variants:
            own = {
                seed
                for plan in (stored, self)
                if variant.label in {each.label for each in plan.variants}
                for seed in plan.seeds_of(variant.label)
            }
            if own != set(seeds):
                own_seeds[variant.label] = [seed for seed in seeds if seed in own]
        return replace(self, variants=variants, seeds=seeds, own_seeds=own_seeds)

    def save(self, root: Path) -> None:
        """Write ``plan.json``, without ``own_seeds`` and ``fork`` if there are none."""
        content = {**asdict(self), "hash": self.hash}
        for key in ("own_seeds", "fork"):
            if not content[key]:
                del content[key]
        write_json(root / PLAN_FILE, content, indent=2)

    @classmethod
    def load(cls, root: Path) -> "Plan | None":
        """Return the plan stored in a directory, or None if its file is missing or damaged.

        Raises:
            InputError: the plan was written by a version that cannot be read.
        """
        stored = read_whole_json(root / PLAN_FILE)
        if not isinstance(stored, dict):
            return None
        if "variants" not in stored:
            raise InputError(
                f"{root / PLAN_FILE} was written by an older version; give another --work-dir"
            )
        stored.pop("hash")
        variants = [Variant(**variant) for variant in stored.pop("variants")]
        fork = Fork(**stored.pop("fork")) if "fork" in stored else None
        return cls(variants=variants, fork=fork, **stored)

    def known(self, root: Path) -> "Plan | None":
        """Return the plan of the comparison in a directory, or None if there is none.

        If plan.json is missing or damaged, its variants and seeds are those of results.json, and
        the config is that of this plan: results.json has its hash.

        Raises:
            InputError: plan.json is missing or damaged, and the comparison has another config.
        """
        stored = Plan.load(root)
        meta, rows = stored_results(root)
        if stored or not meta:
            return stored
        if meta.get("hash") != self.hash:
            raise InputError(
                f"{root} contains a comparison with a different config, which cannot be shown "
                f"because {PLAN_FILE} is missing or damaged; give another --work-dir"
            )
        variants = [Variant(label, **entries) for label, entries in meta["variants"].items()]
        own = {v.label: [r["seed"] for r in rows if r["variant"] == v.label] for v in variants}
        own = {label: seeds for label, seeds in own.items() if set(seeds) != set(meta["seeds"])}
        return replace(self, variants=variants, seeds=meta["seeds"], own_seeds=own)


def _folder(label: str) -> str:
    """Return a directory name for a label: the label itself if safe, else with a short hash."""
    if re.fullmatch(r"[\w.]+", label):
        return label
    digest = hashlib.sha256(label.encode()).hexdigest()[:6]
    readable = re.sub(r"[^\w.=-]+", "-", label)[:60]
    return f"{readable}-{digest}"


def stored_results(root: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the metadata and rows of results.json; both are empty if it is missing or damaged."""
    content = read_whole_json(root / RESULTS_FILE)
    if not isinstance(content, dict) or not {"meta", "runs"} <= content.keys():
        return {}, []
    return content["meta"], content["runs"]
