import pytest

from det_losses.report import records
from det_losses.report.study import Study

TWO = {"base": 0.1, "new": 0.05}


@pytest.fixture
def study(make_comparison):
    return Study.load([make_comparison(noise=TWO, seeds=(0,), images=8)])


def rows_of(table):
    return {row[0]: dict(zip(table.headers, row, strict=True)) for row in table.rows}


def test_only_keys_that_differ_are_shown(study):
    study.meta["variants"]["base"]["changes"] = {
        "model.loss_bbox": {"type": "L1Loss", "loss_weight": 2.5}
    }
    study.meta["variants"]["new"]["changes"] = {
        "model.loss_bbox": {"type": "GIoULoss", "loss_weight": 2.5, "eps": 1e-6},
        "train_cfg.max_epochs": 24,
    }
    section = records.what_differs(study)
    (table,) = section.tables
    names = ["model.loss_bbox.type", "model.loss_bbox.eps", "train_cfg.max_epochs"]
    assert table.headers == ["variant", *names]  # the loss weight is the same
    assert table.rows == [["base", "L1Loss", "-", "-"], ["new", "GIoULoss", "1e-06", "24"]]
    assert "all variants have equal initial weights" in section.text


def test_a_loss_that_contains_others_is_one_expression(study):
    focal = {"type": "FocalIoU", "gamma": 0.5, "loss": {"type": "CIoULoss"}}
    inner = {"type": "InnerIoU", "ratio": 0.75, "loss": focal, "loss_weight": 2.5}
    study.meta["variants"]["new"]["changes"] = {"model.loss_bbox": inner}
    cells = rows_of(records.what_differs(study).tables[0])["new"]
    assert cells["model.loss_bbox.loss"] == "FocalIoU(CIoULoss, gamma=0.5)"
    assert cells["model.loss_bbox.ratio"] == "0.75"


def test_initial_weights_that_differ_are_shown(study):
    study.runs_of("new")[0]["initial_weights"] = "f" * 64
    section = records.what_differs(study)
    assert section.tables[-1].rows == [["0", "0" * 12, "base"], ["0", "f" * 12, "new"]]
    assert "Initial weights differ in seed 0." in section.text
    assert "a softmax loss has one more channel" in section.text


def test_loss_weights_without_columns_of_unknown_values(study):
    weight = {"how": "matched", "multiple": 1.0, "gradient_norm": 0.12345}
    study.meta["variants"]["new"]["weight"] = weight
    (table,) = records.loss_weights(study).tables
    assert table.headers == [
        *("variant", "loss_weight", "how chosen", "gradient norm", "AP"),
        "source of weight and parameters",
    ]
    cells = rows_of(table)["new"]
    assert cells["how chosen"] == "gradient norm matched to the baseline's"
    assert (cells["loss_weight"], cells["gradient norm"]) == ("1", "0.123")


@pytest.mark.parametrize(
    ("entry", "gradient"),
    [
        ({"gradient": True}, "yes"),
        ({"gradient": False}, "no"),
        ({"hash": "0" * 64, "probe": {"start": 1e-7, "end": None}}, "yes"),  # of earlier versions
        ({"hash": "0" * 64, "probe": {"start": None, "end": None}}, "no"),
    ],
)
def test_losses_that_ran_from_new_and_old_records(study, entry, gradient):
    (base,), (new,) = study.runs_of("base"), study.runs_of("new")
    base["proof"] = {}
    new["proof"] = {"loss_bbox": {"loss": "GIoULoss(eps=1e-07)", "calls": 80, **entry}}
    (table,) = records.losses_that_ran(study).tables
    assert table.rows == [["new", "0", "loss_bbox", "GIoULoss(eps=1e-07)", "80", gradient]]


def test_failed_runs_show_their_error(make_comparison):
    root = make_comparison(noise=TWO, seeds=(0,), images=4, unfinished={("new", 0): "failed"})
    section = records.runs(Study.load([root]))
    assert section.codes == ("new seed 0 failed:\nexit status 1\nValueError: broken",)
    assert [row[:3] for row in section.tables[0].rows] == [
        ["base", "0", "done"],
        ["new", "0", "failed"],
    ]


def test_data_and_commands(study):
    section = records.data(study)
    boxes = [a for a in study.coco["annotations"] if not a["iscrowd"]]
    cats = sum(box["category_id"] == 3 for box in boxes)
    assert section.text.startswith(
        f"100 training images. 8 evaluated images with {len(boxes)} boxes"
    )
    assert section.tables[0].rows[0] == ["cat", str(cats)]
    assert records.reproduction(study).codes == (study.meta["command"],)


def test_what_the_data_drops_is_recorded(study, monkeypatch):
    notes = {"train": ["a.json: 3 of 9 boxes are outside"], "both": ["1 of 2 images"]}
    monkeypatch.setitem(study.meta, "data_notes", notes)
    assert records.data(study).tables[0].rows == [
        ["training", "a.json: 3 of 9 boxes are outside"],
        ["both", "1 of 2 images"],
    ]


def test_what_the_runs_started_from_is_shown(study):
    assert records.pretrained_weights(study) is None  # from scratch
    record = dict(source="a.pth", sha256="ab" * 32, layout="torchvision", tensors=9, loaded=7)
    record |= dict(anew=2, anew_names=["x", "y"], unused=1, unused_names=["z"], notes=[])
    record["class_layer"] = "class layer (cls_logits): made anew"
    study.runs_of("base")[0]["weights"] = study.runs_of("new")[0]["weights"] = record
    section = records.pretrained_weights(study)
    assert section.text.startswith("All runs started from the weights")
    assert section.tables[0].rows == [
        [
            *("all", "a.pth", "abababababab", "torchvision", "7 of 9 tensors", "2 (x, y)"),
            *("1 (z)", "class layer (cls_logits): made anew"),
        ]
    ]
    study.runs_of("new")[0]["weights"] = None
    rows = rows_of(records.pretrained_weights(study).tables[0])
    assert rows["base"]["file"] == "a.pth" and rows["new"]["file"] == "-"


def test_costs_are_shown_for_the_losses_that_have_them(study):
    assert records.costs(study) is None  # a comparison of an earlier version
    study.meta["costs"] = {"new": {"microseconds": 180.4, "bytes": 16000}}
    (table,) = records.costs(study).tables
    assert table.rows == [["new", "180", "15.6"]]
