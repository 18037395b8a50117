"""What a matching of loss weights came to, and its place in JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class MatchedLoss:
    """The weight of a loss that pulls as hard as the baseline.

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
