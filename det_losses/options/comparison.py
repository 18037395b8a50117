"""The options of a comparison: their names, defaults and checks, for Python and command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from det_losses.options.call import Kind, one, several, switch
from det_losses.options.checks import (
    RESAMPLES,
    SEED,
    above_zero,
    at_least_zero,
    duration,
    fraction,
    one_of,
    whole_number,
)


@dataclass(frozen=True, kw_only=True)
class ComparisonOptions:
    """The options of one comparison, in the order of the command.

    ``det_losses.compare`` documents each for Python, ``cli/compare_losses.py`` for the command
    line. Both read defaults and checks from here.
    """

    config: str | None = field(default=None, metadata={"kind": Kind()})
    work_dir: str | None = one()
    cfg_options: Sequence[str] = several()
    device: str | None = one()
    modules: Sequence[str] = several(flag="--import")
    losses: Sequence[str] = several()
    component: str = one("loss_bbox")
    cross: Sequence[str] = several()
    variant: Sequence[str] = several()
    baseline: str | None = one()
    metric: str = one("AP")
    match_weights: str | None = one(check=one_of("gradient"))
    weights: Sequence[float] = several(check=above_zero)
    seeds: Sequence[int] | None = several(None, SEED)
    jobs: int | None = one(None, whole_number(1))
    executor: str = one("local", one_of("local", "ray"))
    address: str | None = one()
    cpus_per_run: float = one(1.0, above_zero)
    gpus_per_run: float | None = one(check=at_least_zero)
    budget: float | None = one(check=duration)  # seconds
    until_decided: bool = switch()
    within: float = one(1.0, above_zero)
    screen: bool = switch()
    fork_at: float | None = one(check=fraction)
    resamples: int = one(1000, RESAMPLES)
    command: str | None = one()
    detections_file: str = one("predictions.json")
    amp: bool = switch()
    weights_from: str | None = one()
    fit_anchors: bool = switch()
    tensorboard: bool = switch()
    dry_run: bool = switch()
    data: str | None = one()
    train_ann: Sequence[str] | None = several(None)
    train_images: Sequence[str] | None = several(None)
    val_ann: Sequence[str] | None = several(None)
    val_images: Sequence[str] | None = several(None)
    skip_broken: bool = switch()
    classes: Sequence[str] | None = several(None)
    allow_outside: bool = switch()
    folds: int | None = one(check=whole_number(2))
    fold_key: str | None = one()

    @property
    def root(self) -> Path:
        """The directory of the comparison."""
        components = [self.component, *self.cross[:1]] if self.losses else ["variants"]
        default = f"work_dirs/{Path(self.config or 'command').stem}_{'_'.join(components)}"
        return Path(self.work_dir or default)


KINDS: dict[str, Kind] = {each.name: each.metadata["kind"] for each in fields(ComparisonOptions)}
DEFAULTS = {each.name: each.default for each in fields(ComparisonOptions)}
