"""Reading a comparison, and the rank correlation of simulation and training."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from det_losses.errors import InputError, MissingFileError
from det_losses.files import write_json
from det_losses.simulation.training import conclusion, rank_correlation, read_comparison


def comparison(folder: Path, scores: dict[str, list[float]]) -> Path:
    changes = {
        name: {"changes": {"model.loss_bbox": {"type": name, "loss_weight": 2.5}}}
        for name in scores
    }
    runs = [
        {"variant": name, "seed": seed, "status": "done", "metrics": {"AP": score}}
        for name, values in scores.items()
        for seed, score in enumerate(values)
    ]
    runs.append({"variant": "GIoULoss", "seed": 9, "status": "failed", "metrics": {}})
    write_json(
        folder / "results.json", {"meta": {"metric": "AP", "variants": changes}, "runs": runs}
    )
    return folder


def test_a_comparison_is_read_with_pooled_intervals(tmp_path: Path) -> None:
    scores = {"GIoULoss": [0.30, 0.32], "EIoULoss": [0.40, 0.44], "FocalLoss": [0.1, 0.2]}
    trained, metric = read_comparison(comparison(tmp_path, scores))
    assert metric == "AP"
    assert [each.loss for each in trained] == ["GIoULoss", "EIoULoss"]  # not a classification loss
    assert [each.ap for each in trained] == pytest.approx([31, 42])
    # variances 2 and 8, pooled 5 with 2 degrees of freedom; t = 4.303; n = 2
    assert trained[0].half_width == pytest.approx(4.303 * math.sqrt(5 / 2), rel=1e-3)


def test_unusable_comparisons_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no results\.json"):
        read_comparison(tmp_path)
    with pytest.raises(InputError, match="fewer than two"):
        read_comparison(comparison(tmp_path, {"GIoULoss": [0.3]}))


def test_the_correlation_is_scipys_and_the_p_value_counts_orders() -> None:
    rng = np.random.default_rng(0)
    errors, scores = rng.random((2, 6))
    found = rank_correlation(errors, scores)
    assert found.rho == pytest.approx(spearmanr(errors, scores).statistic)
    assert found.low <= found.rho <= found.high
    # a perfect order of 5 losses: it and its reverse, of 120 orders
    assert rank_correlation([1, 2, 3, 4, 5], [9, 8, 7, 6, 5]).p == pytest.approx(2 / 120)


@pytest.mark.parametrize(
    ("errors", "scores", "sentence"),
    [
        ([1, 2, 3], [3, 2, 1], "3 losses cannot answer the question"),
        ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1], "train to a higher score here"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], "train to a lower score here"),
        ([1, 2, 3, 4, 5], [3, 1, 4, 5, 2], "does not predict"),
    ],
)
def test_the_conclusion_follows_from_the_test(
    errors: list[float], scores: list[float], sentence: str
) -> None:
    assert sentence in conclusion(rank_correlation(errors, scores), 50, "AP")
