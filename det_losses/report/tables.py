"""Tables of differences: other metrics, all pairs, the grid of two factors."""

import math

from det_losses.report.formats import difference, p_value, points, spread
from det_losses.report.section import Part, Section, Table
from det_losses.report.study import Study
from det_losses.report.words import shown_order, too_low
from det_losses.statistics import Verdict

OTHERS = ("AP", "AP50", "AP75", "AP90", "APs", "APm", "APl")


def other_metrics(study: Study) -> Part | None:
    """Return the metrics beside the primary one, with unadjusted intervals."""
    if not study.comparable:
        return None
    names = [name for name in OTHERS if name != study.metric]
    verdicts = {name: study.verdict(name) for name in names}
    means = {
        name: {summary.label: summary.mean for summary in verdict.summaries}
        for name, verdict in verdicts.items()
    }
    rows = []
    for label in shown_order(study):
        cells = [
            f"{points(means[name][label])}\n{against_baseline(verdicts[name], label)}"
            for name in names
        ]
        rows.append([label, *(cell.strip() for cell in cells)])
    text = (
        "Exploratory: mean over seeds, and below it the difference to the baseline with a 95% "
        "interval that is not adjusted for the number of variants and metrics. Some of these "
        "intervals will exclude zero by accident."
    )
    table = Table(["variant", *names], rows, _no_boxes(study, verdicts))
    return Part(Section("Other metrics", text, tables=(table,)))


def against_baseline(verdict: Verdict, label: str) -> str:
    """Return a variant's difference to the baseline with its interval; "" of the baseline."""
    for found in verdict.against_baseline:
        if found.first == label:
            return difference(found.value, found.low, found.high)
    return ""


def pairs(study: Study) -> Part | None:
    """Return the differences of all pairs; nothing where no ranking should be read."""
    if not study.comparable or len(study.compared) < 2 or too_low(study):
        return None
    rows = [
        [
            d.first,
            d.second,
            str(d.seeds),
            difference(d.value, d.low, d.high),
            p_value(d.p),
            p_value(d.p_holm),
            points(d.detectable),
        ]
        for d in study.verdict().pairs
    ]
    headers = ["higher", "lower", "seeds", "difference [95% interval]"]
    table = Table([*headers, "p", "p (Holm, all pairs)", "detectable"], rows)
    text = (
        f"Differences of {study.metric} in points. The interval and p are of the pair alone; "
        "p (Holm) is adjusted for all pairs. Detectable is the true difference that a test of "
        "the pair alone would find with 80% power."
    )
    return Part(Section("All pairs", text, tables=(table,)), folded=True)


def factor_grid(study: Study) -> Part | None:
    """Return the two-way table, where the variants are a grid of two slots."""
    factors = {label: study.meta["variants"][label].get("factors") or {} for label in study.labels}
    slots = list(dict.fromkeys(slot for levels in factors.values() for slot in levels))
    if len(slots) != 2 or not study.comparable:
        return None
    verdict = study.verdict()
    cells = {
        tuple(factors[s.label][slot] for slot in slots): (
            f"{spread(s.mean, s.sd)}\n{against_baseline(verdict, s.label)}".strip()
        )
        for s in verdict.summaries
        if len(factors[s.label]) == 2
    }
    first, second = (list(dict.fromkeys(key[i] for key in _levels(factors, slots))) for i in (0, 1))
    rows = [[level, *(cells.get((level, other), "") for other in second)] for level in first]
    text = (
        f"{slots[0]} down, {slots[1]} across: {study.metric}, mean ± standard deviation over "
        f"seeds, and the difference to {study.baseline}."
    )
    table = Table([f"{slots[0]} \\ {slots[1]}", *second], rows)
    return Part(Section("Grid of two losses", text, tables=(table,)))


def _levels(factors: dict[str, dict[str, str]], slots: list[str]) -> list[tuple[str, ...]]:
    return [tuple(own[slot] for slot in slots) for own in factors.values() if len(own) == 2]


def _no_boxes(study: Study, verdicts: dict[str, Verdict]) -> str:
    empty = [n for n, verdict in verdicts.items() if math.isnan(verdict.summaries[0].mean)]
    return (
        f"n/a: no boxes of that size in the evaluated images ({', '.join(empty)})." if empty else ""
    )
