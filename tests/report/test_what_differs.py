from det_losses.report.study import Study
from det_losses.report.variants import what_differs


def test_a_loss_that_holds_others_is_one_expression(make_comparison):
    focal = {"type": "FocalIoU", "gamma": 0.5, "loss": {"type": "CIoULoss"}}
    inner = {"type": "InnerIoU", "ratio": 0.75, "loss": focal, "loss_weight": 2.5}
    root = make_comparison(noise={"base": 0.1, "inner": 0.1}, seeds=(0,))
    study = Study.load([root])
    study.meta["variants"]["inner"]["changes"] = {"model.loss_bbox": inner}
    (table, *_) = what_differs(study).section.tables
    (row,) = [row for row in table.rows if row[0] == "inner"]
    cells = dict(zip(table.headers, row, strict=True))
    assert cells["model.loss_bbox.loss"] == "FocalIoU(CIoULoss, gamma=0.5)"
    assert cells["model.loss_bbox.ratio"] == "0.75"
