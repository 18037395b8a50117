import numpy as np

from det_losses.report import text
from det_losses.report.study import Study

TWO = {"base": 0.1, "new": 0.05}


def test_seed_variance_and_power_by_their_definition(planted):
    verdict = planted.verdict()
    sds = [np.std(own.full, ddof=1) for own in planted.scores("AP").values()]
    found = text.power(planted).text
    assert f"is {100 * np.sqrt(np.mean(np.square(sds))):.1f} points (pooled;" in found
    least, median, most = sorted(100 * d.detectable for d in verdict.against_baseline)
    assert f"{median:.1f} points is detected with 80% power (median of the variants; " in found
    assert f"; {least:.1f} to {most:.1f})" in found
    shares = [d.seed_se**2 / (d.seed_se**2 + d.image_se**2) for d in verdict.against_baseline]
    assert f"On average, {np.mean(shares):.0%} of the variance" in found
    assert "No number of seeds would detect 1 AP on so few images." in found


def test_seeds_that_would_detect_the_margin(planted_root):
    study = Study.load([planted_root], within=0.1)
    seeds = study.verdict().seeds_needed(0.1)
    assert f"To detect 10 AP, {seeds} seeds of each variant would be needed." in (
        text.power(study).text
    )


def test_without_tests_there_is_no_power(make_comparison):
    unfinished = {("base", 0): "failed"}
    root = make_comparison(seeds=(0,), noise=TWO, unfinished=unfinished)
    assert text.power(Study.load([root])) is None
