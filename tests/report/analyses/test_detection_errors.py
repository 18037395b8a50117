import numpy as np
import pytest

from det_losses.report.analyses.detection_errors import (
    error_section,
    fraction_above,
    localisation_section,
)
from det_losses.report.analyses.detection_stats import ERROR_TYPES


def test_fraction_above_by_hand():
    ious = np.array([0.9, 0.5, 0.75, 0.6])
    levels = np.array([0.5, 0.6, 0.75, 0.76, 0.95])

    np.testing.assert_allclose(fraction_above(ious, levels), [1, 0.75, 0.5, 0.25, 0], rtol=1e-12)
    # Of eight objects in all, half of which were not found.
    np.testing.assert_allclose(
        fraction_above(ious, levels, 8), [0.5, 0.375, 0.25, 0.125, 0], rtol=1e-12
    )
    assert np.isnan(fraction_above(np.empty(0), levels)).all()


def test_table_by_an_independent_computation(planted):
    rows = {row[0]: row[1:] for row in localisation_section(planted).tables[0].rows}
    ious = [run.ious for run in planted.detection_stats["EIoULoss"]]
    boxes = sum(not a["iscrowd"] for a in planted.study.coco["annotations"])
    means = [found.mean() for found in ious]
    found = [100 * len(part) / boxes for part in ious]
    close = [100 * (part >= 0.9).mean() for part in ious]

    assert rows["EIoULoss"][0] == f"{np.mean([len(part) for part in ious]):.0f}"
    assert rows["EIoULoss"][1] == f"{np.mean(found):.1f} ± {np.std(found, ddof=1):.1f} %"
    assert rows["EIoULoss"][2] == f"{np.mean(means):.3f} ± {np.std(means, ddof=1):.3f}"
    assert rows["EIoULoss"][4] == f"{np.mean(close):.1f} ± {np.std(close, ddof=1):.1f} %"
    # The planted order of localisation errors: EIoULoss below SmoothL1Loss below L1Loss.
    order = [float(rows[label][2][:5]) for label in ("EIoULoss", "SmoothL1Loss", "L1Loss")]
    assert order == sorted(order, reverse=True)


def test_error_table_has_the_mean_over_seeds(planted):
    table, meanings = error_section(planted).tables
    gains = [100 * run.errors["Loc"] for run in planted.detection_stats["L1Loss"]]
    rows = {row[0]: dict(zip(table.headers, row, strict=True)) for row in table.rows}

    expected = f"{np.mean(gains):.1f} ± {np.std(gains, ddof=1):.1f}"
    assert rows["L1Loss"]["localisation"] == expected
    assert len(meanings.rows) == len(ERROR_TYPES)


@pytest.mark.parametrize("build", [localisation_section, error_section])
def test_a_run_that_found_nothing(make_context, build):
    context = make_context(images=6, seeds=(0,), noise={"A": 0.1, "B": 0.1})
    (run,) = context.study.runs_of("B")
    with open(f"{run['directory']}/detections.json", "w") as file:
        file.write("[]")

    rows = {row[0]: row[1:] for row in build(context).tables[0].rows}

    if build is localisation_section:
        assert rows["B"] == ["0", "0.0 %", "n/a", "n/a", "n/a"]
    else:
        assert rows["B"][ERROR_TYPES.index("Loc")] == "0.0"
