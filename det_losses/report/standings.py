"""The table of variants: rank, score, difference to the baseline, groups, runs, loss weight."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from det_losses.report.formats import NONE, difference, p_value, spread
from det_losses.report.section import Table
from det_losses.report.study import Study
from det_losses.report.words import shown_order, too_low
from det_losses.statistics import Difference, Verdict


@dataclass(frozen=True)
class Standing:
    """One variant's row.

    Attributes:
        rank: place by the mean; "" where no ranking should be read.
        label: the variant.
        colour: its colour in all plots.
        mean: mean and standard deviation over seeds, in points.
        difference: to the baseline; None of the baseline, and of what is not compared.
        significant: whether that difference holds within its family of tests.
        p: its p-value by Holm.
        letters: the groups.
        runs: done of planned, and what became of the others.
        weight: the loss weight.
    """

    rank: str
    label: str
    colour: str
    mean: str
    difference: Difference | None
    significant: bool
    p: str
    letters: str
    runs: str
    weight: str

    @property
    def difference_text(self) -> str:
        """The difference with its interval."""
        d = self.difference
        return "" if d is None else difference(d.value, d.low, d.high)


@dataclass(frozen=True)
class Standings:
    """The table of variants, best first.

    Attributes:
        metric: the primary metric.
        baseline: label of the baseline.
        ranked: whether a ranking may be read from it.
        weighted: whether loss weights are known.
        rows: the variants; those without a score come last.
    """

    metric: str
    baseline: str
    ranked: bool
    weighted: bool
    rows: tuple[Standing, ...]

    @property
    def table(self) -> Table:
        """The same as texts."""
        columns: list[tuple[str, bool, list[str]]] = [
            ("#", self.ranked, [row.rank for row in self.rows]),
            ("variant", True, [row.label for row in self.rows]),
            (self.metric, True, [row.mean for row in self.rows]),
            ("difference [95% interval]", True, [self.difference_text(row) for row in self.rows]),
            ("p (Holm)", self.ranked, [row.p or NONE for row in self.rows]),
            ("groups", self.ranked, [row.letters or NONE for row in self.rows]),
            ("runs", True, [row.runs for row in self.rows]),
            ("loss weight", self.weighted, [row.weight or NONE for row in self.rows]),
        ]
        shown = [(header, cells) for header, is_shown, cells in columns if is_shown]
        rows = [list(cells) for cells in zip(*(cells for _, cells in shown), strict=True)]
        note = (
            f"{self.metric} in points, mean ± standard deviation over seeds; the difference to "
            f"{self.baseline} with its 95% interval."
        )
        if self.ranked:
            note += " Variants that share a letter cannot be told apart from each other."
        return Table([header for header, _ in shown], rows, note)

    def difference_text(self, row: Standing) -> str:
        """Return what the table says of a row's difference."""
        if row.difference is not None:
            return row.difference_text
        return "baseline" if row.label == self.baseline else NONE


def standings(study: Study) -> Standings:
    """Return the table of variants."""
    verdict = study.verdict() if study.comparable else None
    ranked = verdict is not None and too_low(study) is None
    order = shown_order(study)
    order += [label for label in study.labels if label not in order]
    rows = [_row(study, verdict, label, order.index(label), ranked) for label in order]
    weighted = any(row.weight for row in rows)
    return Standings(study.metric, study.baseline, ranked, weighted, tuple(rows))


def loss_weight(variant: dict[str, Any]) -> str:
    """Return the loss weight of a variant; of several slots, each with its name."""
    weights = {
        key.rpartition(".")[2]: f"{config.get('loss_weight', 1.0):.4g}"
        for key, config in (variant.get("changes") or {}).items()
        if isinstance(config, dict) and "type" in config
    }
    if len(weights) == 1:
        return next(iter(weights.values()))
    return ", ".join(f"{slot} {weight}" for slot, weight in weights.items())


def _row(study: Study, verdict: Verdict | None, label: str, place: int, ranked: bool) -> Standing:
    summary = next((s for s in verdict.summaries if s.label == label), None) if verdict else None
    against = {d.first: d for d in verdict.against_baseline} if verdict else {}
    d = against.get(label)
    return Standing(
        rank=str(place + 1) if ranked and summary and verdict.letters[label] else "",
        label=label,
        colour=study.colour(label),
        mean=spread(summary.mean, summary.sd) if summary else _recorded(study, label),
        difference=d,
        significant=ranked and d is not None and verdict.differs(d),
        p=p_value(d.p_holm) if ranked and d else "",
        letters=verdict.letters[label] if ranked and summary else "",
        runs=_runs(study.of(label)),
        weight=loss_weight(study.meta["variants"][label]),
    )


def _recorded(study: Study, label: str) -> str:
    """Return what the runs recorded, of a variant that is not compared."""
    values = [
        (run.get("metrics") or {}).get(study.metric) for run in study.of(label) if _is_done(run)
    ]
    known = [value for value in values if value is not None]
    if not known:
        return "n/a"
    return spread(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None)


def _runs(runs: list[dict[str, Any]]) -> str:
    counts = Counter(run["status"] for run in runs if not _is_done(run))
    done = sum(map(_is_done, runs))
    others = "".join(f", {count} {status}" for status, count in counts.items())
    return f"{done}/{len(runs)}{others}"


def _is_done(run: dict[str, Any]) -> bool:
    return run["status"] == "done"
