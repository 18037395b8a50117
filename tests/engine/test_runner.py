"""mmengine's messages in the units of this package."""

import logging

import pytest

from det_losses.engine.runner import best_in_points

BEST = "The best checkpoint with {} is saved to best.pth."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (BEST.format("0.3932 AP at 3 epoch"), BEST.format("39.3 AP at 3 epoch")),
        (BEST.format("0.3932 AP/cat at 3 epoch"), BEST.format("39.3 AP/cat at 3 epoch")),
        (BEST.format("0.3932 loss at 3 epoch"), BEST.format("0.3932 loss at 3 epoch")),
        (ValueError("broken"), "broken"),
    ],
)
def test_the_best_checkpoint_has_its_ap_in_points(text, shown):
    record = logging.LogRecord("name", logging.INFO, "file.py", 1, text, None, None)
    assert best_in_points(record)
    assert record.getMessage() == shown
