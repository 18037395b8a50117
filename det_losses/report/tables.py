"""Tables of scores and differences: the standings, other metrics, pairs, the grid of two losses."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from det_losses.report.answer import supports_ranking
from det_losses.report.formats import (
    NO_INTERVAL,
    NONE,
    OF_TRAINER,
    at_most,
    difference,
    no_interval,
    p_value,
    points,
    spread,
)
from det_losses.report.runs import Runs
from det_losses.report.section import Section, Table
from det_losses.statistics import Difference, Verdict

# in the table of other metrics
_SHOWN_METRICS = ("AP", "AP50", "AP75", "AP90", "APs", "APm", "APl")


@dataclass(frozen=True)
class Standing:
    """A variant's row in the standings.

    Attributes:
        rank: place by the mean; empty without tests.
        label: the variant.
        mean: mean and standard deviation over seeds, in points.
        difference: to the baseline; None for the baseline and for what is not compared.
        significant: whether that difference is significant among all differences to the baseline.
        p: its p-value, adjusted for all differences to the baseline.
        candidate: "no", or "yes" with what choosing this variant costs at most; empty if untested.
        runs: finished of planned runs, and the status of the others.
        weight: the loss weight.
    """

    rank: str
    label: str
    mean: str
    difference: Difference | None
    significant: bool
    p: str
    candidate: str
    runs: str
    weight: str


@dataclass(frozen=True)
class Standings:
    """The table of variants, best first.

    Attributes:
        metric: the primary metric.
        baseline: label of the baseline.
        tested: whether the comparison supports a ranking: the AP is not too low, and there are
            tests, which need two seeds.
        coverage: of the intervals, such as "95%".
        weighted: whether loss weights are known.
        order: all labels in the order of the plan, which determines their colours.
        rows: the variants; those without a score come last.
    """

    metric: str
    baseline: str
    tested: bool
    coverage: str
    weighted: bool
    order: tuple[str, ...]
    rows: tuple[Standing, ...]

    @property
    def several(self) -> bool:
        """Whether there is a variant to compare with the baseline."""
        return len(self.rows) > 1

    @property
    def table(self) -> Table:
        """The standings as a table of texts."""
        columns: list[tuple[str, bool, list[str]]] = [
            ("#", self.tested, [row.rank for row in self.rows]),
            ("variant", True, [row.label for row in self.rows]),
            (self.metric, True, [row.mean for row in self.rows]),
            (
                f"difference [{self.coverage} interval]",
                self.several,
                [self.difference_text(row) for row in self.rows],
            ),
            ("p", self.tested, [row.p or NONE for row in self.rows]),
            ("may be best", self.tested, [row.candidate or NONE for row in self.rows]),
            ("runs", True, [row.runs for row in self.rows]),
            ("loss weight", self.weighted, [row.weight or NONE for row in self.rows]),
        ]
        shown = [(header, cells) for header, is_shown, cells in columns if is_shown]
        rows = [list(cells) for cells in zip(*(cells for _, cells in shown), strict=True)]
        return Table([header for header, _ in shown], rows, self.note)

    @property
    def note(self) -> str:
        """What the columns are."""
        several = any("±" in row.mean for row in self.rows)
        over = ", mean ± standard deviation over seeds," if several else ""
        text = f"{self.metric} in points{over}"
        if self.several:
            text += f" and the difference to {self.baseline} with its {self.coverage} interval"
        text += "."
        known = [row.difference for row in self.rows if row.difference is not None]
        if any(no_interval(found.low, found.high) for found in known):
            text += f" {NO_INTERVAL}"
        if self.tested:
            text += (
                " May be best: whether this may be the best variant, and what choosing it costs "
                "at most, in points."
            )
        return text

    def difference_text(self, row: Standing) -> str:
        """Return the text of a row's difference."""
        if row.difference is not None:
            return difference(row.difference.value, row.difference.low, row.difference.high)
        return "baseline" if row.label == self.baseline else NONE


def standings(study: Runs) -> Standings:
    """Return the table of variants."""
    verdict = study.verdict() if study.comparable else None
    ranked = supports_ranking(study)
    error = verdict.error if verdict else 0.05
    order = shown_order(study)
    order += [label for label in study.labels if label not in order]
    rows = tuple(_standing(study, verdict, order, label, ranked) for label in order)
    return Standings(
        metric=study.metric,
        baseline=study.baseline,
        tested=ranked and verdict.tested,
        coverage=f"{100 * (1 - error):.3g}%",
        weighted=any(row.weight for row in rows),
        order=tuple(study.labels),
        rows=rows,
    )


def shown_order(study: Runs) -> list[str]:
    """Return the compared variants, best first; without a ranking, in the order of the plan."""
    if not supports_ranking(study):
        return study.compared
    return [summary.label for summary in study.verdict().summaries]


def loss_weight(variant: Mapping[str, Any]) -> str:
    """Return the loss weight of a variant; with several slots, a weight per slot."""
    how = (variant.get("weight") or {}).get("how")
    weights = {
        key.rpartition(".")[2]: f"{config.get('loss_weight', 1.0):.4g}"
        for key, config in (variant.get("changes") or {}).items()
        if isinstance(config, dict) and "type" in config
        if "loss_weight" in config or how != OF_TRAINER
    }
    if len(weights) == 1:
        return next(iter(weights.values()))
    return ", ".join(f"{slot} {weight}" for slot, weight in weights.items())


def _standing(
    study: Runs, verdict: Verdict | None, order: list[str], label: str, ranked: bool
) -> Standing:
    summaries = {s.label: s for s in verdict.summaries} if verdict else {}
    against = {d.first: d for d in verdict.against_baseline} if verdict else {}
    summary, found = summaries.get(label), against.get(label)
    tested = ranked and verdict.tested and summary is not None and not math.isnan(summary.mean)
    return Standing(
        rank=str(order.index(label) + 1) if tested else "",
        label=label,
        mean=spread(summary.mean, summary.sd) if summary else _recorded(study, label),
        difference=found,
        significant=ranked and found is not None and verdict.differs(found),
        p=p_value(found.p) if ranked and found else "",
        candidate=_candidate(verdict, label) if tested else "",
        runs=_runs(study.runs_of(label)),
        weight=loss_weight(study.meta["variants"][label]),
    )


def _candidate(verdict: Verdict, label: str) -> str:
    """Return whether a variant may be the best, and what choosing it costs at most."""
    if label not in verdict.regrets:
        return "no"
    cost = verdict.regrets[label]
    if cost == 0:
        return "yes"
    return f"yes, costs ≤ {at_most(cost)}" if cost < 1 else "yes"


def _recorded(study: Runs, label: str) -> str:
    """Return the recorded scores of a variant that is not compared."""
    done = [run for run in study.runs_of(label) if run["status"] == "done"]
    values = [(run.get("metrics") or {}).get(study.metric) for run in done]
    known = [value for value in values if value is not None]
    if not known:
        return "n/a"
    return spread(float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None)


def _runs(runs: list[dict[str, Any]]) -> str:
    counts = Counter(run["status"] for run in runs)
    done = counts.pop("done", 0)
    return f"{done}/{len(runs)}" + "".join(f", {n} {status}" for status, n in counts.items())


def other_metrics(study: Runs) -> Section | None:
    """Return the metrics other than the primary one, with unadjusted intervals."""
    if not study.comparable:
        return None
    names = [name for name in _SHOWN_METRICS if name != study.metric]
    verdicts = {name: study.verdict(name) for name in names}
    means = {name: {s.label: s.mean for s in verdicts[name].summaries} for name in names}
    rows = []
    for label in shown_order(study):
        cells = [f"{points(means[n][label])}\n{_against(verdicts[n], label)}" for n in names]
        rows.append([label, *(cell.strip() for cell in cells)])
    text = "Mean over seeds." if study.several_seeds else ""
    if len(rows) > 1:
        above = "mean over seeds, and below it" if study.several_seeds else "below each value,"
        text = (
            f"Exploratory: {above} the difference to the baseline with its 95% interval, which is "
            "adjusted for the number of variants but not of metrics. Some of these intervals will "
            "exclude zero by chance."
        )
    empty = [n for n, verdict in verdicts.items() if math.isnan(verdict.summaries[0].mean)]
    note = f"n/a: no boxes of that size in the evaluated images ({', '.join(empty)})."
    notes = [note] if empty else []
    every = [d for verdict in verdicts.values() for d in verdict.against_baseline]
    notes += [NO_INTERVAL] if any(no_interval(d.low, d.high) for d in every) else []
    table = Table(["variant", *names], rows, " ".join(notes))
    return Section("Other metrics", text, tables=(table,))


def pairs(study: Runs) -> Section | None:
    """Return the groups and the differences of all pairs; None if no ranking is supported."""
    if len(study.compared) < 2 or not supports_ranking(study):
        return None
    verdict = study.verdict()
    rows = [
        [
            d.first,
            d.second,
            str(d.seeds),
            difference(d.value, d.low, d.high),
            p_value(d.p),
            points(d.detectable),
        ]
        for d in verdict.pairs
    ]
    headers = [
        "higher",
        "lower",
        "seeds",
        f"difference [{100 * (1 - verdict.error):.3g}% interval]",
    ]
    table = Table([*headers, "p", "detectable"], rows)
    text = f"Differences of {study.metric} in points. "
    if not verdict.tested:
        text += "The intervals are for other images with the same trained models."
        return Section("All pairs", text, tables=(table,), folded=True)
    text += (
        "Intervals and p are adjusted for all pairs. Detectable: the true difference that such a "
        "test would detect with 80% power. Between variants that share a letter, no difference "
        "was detected; that does not show that they are equal."
    )
    groups = [[s.label, verdict.letters[s.label] or NONE] for s in verdict.summaries]
    return Section(
        "All pairs", text, tables=(Table(["variant", "groups"], groups), table), folded=True
    )


def factor_grid(study: Runs) -> Section | None:
    """Return the two-way table of variants that combine the losses of two slots."""
    factors = {label: study.meta["variants"][label].get("factors") or {} for label in study.labels}
    slots = list(dict.fromkeys(slot for levels in factors.values() for slot in levels))
    if len(slots) != 2 or not study.comparable:
        return None
    verdict = study.verdict()
    first, second = (
        list(dict.fromkeys(own[slot] for own in factors.values() if len(own) == 2))
        for slot in slots
    )
    cells = {
        tuple(factors[s.label][slot] for slot in slots): (
            f"{spread(s.mean, s.sd)}\n{_against(verdict, s.label)}".strip()
        )
        for s in verdict.summaries
        if len(factors[s.label]) == 2
    }
    rows = [[level, *(cells.get((level, other), "") for other in second)] for level in first]
    text = (
        f"Rows: {slots[0]}; columns: {slots[1]}. {study.metric}"
        f"{', mean ± standard deviation over seeds,' if study.several_seeds else ''} and the "
        f"difference to {study.baseline}."
    )
    table = Table([f"{slots[0]} \\ {slots[1]}", *second], rows)
    return Section("Grid of two losses", text, tables=(table,))


def _against(verdict: Verdict, label: str) -> str:
    """Return a variant's difference to the baseline with its interval; empty for the baseline."""
    for found in verdict.against_baseline:
        if found.first == label:
            return difference(found.value, found.low, found.high)
    return ""
