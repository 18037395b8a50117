"""Forked comparisons: one run per seed trains the first part, and all variants go on from there."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from mmengine.config import Config

from det_losses.comparison.preflight import check_runner
from det_losses.comparison.variants import Variant, slots_of
from det_losses.errors import InputError

FORK_FILE = "fork.checkpoint"  # in the directory of the run that trained the first part


@dataclass(frozen=True)
class Fork:
    """Where the runs of a comparison fork.

    Attributes:
        at: the requested fraction of the training.
        epoch: the epoch after which the other variants start from the baseline's checkpoint.
        epochs: epochs of a whole training.
        baseline: label of the variant that trains from the first epoch.
    """

    at: float
    epoch: int
    epochs: int
    baseline: str

    @property
    def share(self) -> float:
        """The fraction of a whole training that a forked run trains."""
        return 1 - self.epoch / self.epochs


def fork_of(cfg: Config, at: float, baseline: str) -> Fork:
    """Return the fork after a fraction of the epochs, at least one and not all of them.

    Raises:
        InputError: the config trains by iterations, or for one epoch.
    """
    train = cfg.train_cfg
    if not train.get("by_epoch") or train.max_epochs < 2:
        raise InputError(
            "--fork-at requires a training of at least 2 epochs (train_cfg.by_epoch, max_epochs)"
        )
    epoch = min(max(int(at * train.max_epochs + 0.5), 1), train.max_epochs - 1)
    return Fork(at, epoch, train.max_epochs, baseline)


def check_fork(cfg: Config, variants: Sequence[Variant], baseline: Variant) -> None:
    """Check that every variant can continue the baseline's training.

    Raises:
        InputError: a variant changes more than losses, its model has other parameters or buffers
            than the baseline's, or a loss has parameters.
        UserError: a model cannot be built.
    """
    slots = slots_of(cfg)
    for variant in variants:
        others = [key for key in variant.changes if not _is_in(slots, key)]
        if others:
            raise InputError(
                f"--fork-at: {variant.label} changes {others[0]}, but only losses can change in "
                "the middle of a training; compare it without --fork-at"
            )
    expected = check_runner(cfg, baseline)
    for variant in variants:
        found = expected if variant == baseline else check_runner(cfg, variant)
        trained = next((name for name in found if name.startswith("losses.")), None)
        if trained:
            raise InputError(
                f"--fork-at: {variant.label} has the parameter {trained} in a loss, which the "
                "first part of the training would not train; compare it without --fork-at"
            )
        name = next((n for n in {**expected, **found} if found.get(n) != expected.get(n)), None)
        if name:
            raise InputError(
                f"--fork-at: {variant.label} cannot continue the training of {baseline.label}: "
                f"{name} is {_shape(found.get(name))} in the model of the first and "
                f"{_shape(expected.get(name))} in that of the second; compare them without "
                "--fork-at"
            )


def _is_in(slots: Container[str], key: str) -> bool:
    part, _, rest = key.partition(".")
    return part == "model" and rest.split(".")[0] in slots


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape)) or "a scalar"
