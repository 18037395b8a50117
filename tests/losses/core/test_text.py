"""The grammar of losses and values as text."""

import pytest
from mmengine.config import ConfigDict

from det_losses.losses import GIoULoss
from det_losses.losses.core.text import loss_text, parse_loss, parse_value, split_arguments


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-1e-3", -0.001),
        ("1/9", 1 / 9),
        ("(1, 2)", (1, 2)),
        ("{'a': [true, none]}", {"a": [True, None]}),
        ("dict(gamma=0.5, loss=dict(type=L1Loss))", {"gamma": 0.5, "loss": {"type": "L1Loss"}}),
        ("False", False),
        ("mean", "mean"),
        ("'3'", "3"),
        ("work_dirs/2024", "work_dirs/2024"),
        ("1/0", "1/0"),
        ("../x y.json", "../x y.json"),
        ("__import__('os')", "__import__('os')"),
        ("dict(**x)", "dict(**x)"),
        ("{**x}", "{**x}"),
        ("GIoULoss(eps=1e-6)", "GIoULoss(eps=1e-6)"),  # not parsed as a loss here
    ],
)
def test_a_value_is_a_python_literal_or_the_text_itself(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "config"),
    [
        (" mmdet.GIoULoss ", {"type": "mmdet.GIoULoss"}),
        ("GIoULoss()", {"type": "GIoULoss"}),
        ("SmoothL1Loss(beta=1/9)", {"type": "SmoothL1Loss", "beta": 1 / 9}),
        ("IoULoss(mode=linear)", {"type": "IoULoss", "mode": "linear"}),
        (
            "CrossEntropyLoss(class_weight=[1, 2], use_sigmoid=true)",
            {"type": "CrossEntropyLoss", "class_weight": [1, 2], "use_sigmoid": True},
        ),
        (
            "InnerIoU(FocalIoU(CIoULoss), ratio=0.75)",
            {
                "type": "InnerIoU",
                "loss": {"type": "FocalIoU", "loss": {"type": "CIoULoss"}},
                "ratio": 0.75,
            },
        ),
        ("InnerIoU(loss=CIoULoss)", {"type": "InnerIoU", "loss": {"type": "CIoULoss"}}),
        (
            "My(other=CIoULoss(eps=1e-6))",
            {"type": "My", "other": {"type": "CIoULoss", "eps": 1e-6}},
        ),
        ("My(a=dict(b=1))", {"type": "My", "a": {"b": 1}}),
        ("SumLoss(L1Loss)", {"type": "SumLoss", "losses": [{"type": "L1Loss"}]}),
        (
            "SumLoss(losses=[L1Loss, GIoULoss(loss_weight=2.0)])",
            {
                "type": "SumLoss",
                "losses": [{"type": "L1Loss"}, {"type": "GIoULoss", "loss_weight": 2.0}],
            },
        ),
    ],
)
def test_a_loss_can_be_parsed_and_written(text, config):
    assert parse_loss(text) == config
    assert parse_loss(loss_text(config)) == config
    assert loss_text(ConfigDict(config)) == loss_text(config)


def test_a_class_as_type_is_written_as_its_name():
    assert loss_text({"type": GIoULoss, "eps": 1e-6}) == "GIoULoss(eps=1e-06)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "GIoULoss:loss_weight=5,eps=1e-6",
            r"in parentheses: 'GIoULoss\(loss_weight=5,eps=1e-6\)'",
        ),
        ("GIoULoss:", "in parentheses: 'GIoULoss'"),
        ("InnerIoU(CIoULoss", r"loss 'InnerIoU\(CIoULoss': .*never closed"),
        ("", "expected a name, or a call"),
        ("1 + 1", "'1 \\+ 1' is not the name of a loss"),
        ("SmoothL1Loss(0.1)", "'0.1' is not the name of a loss"),
        ("L1Loss(**x)", "given twice or has no name"),
        ("InnerIoU(CIoULoss, loss=DIoULoss)", "given twice"),
        ("L1Loss(a=b + c)", "'b \\+ c' is neither a value nor a loss"),
        ("InnerIoU(" * 400 + ")" * 400, r"loss 'InnerIoU\(.{,200} \.\.\.': too many nested"),
    ],
)
def test_the_error_for_an_invalid_loss_quotes_and_explains_it(text, message):
    with pytest.raises(ValueError, match=message):
        parse_loss(text)


def test_arguments_are_split_at_top_level_commas():
    text = "loss_bbox=SumLoss(L1Loss, GIoULoss(eps=1e-6)), name='a, b',x=[1, 2],"
    assert split_arguments(text, "") == [
        ("loss_bbox", "SumLoss(L1Loss, GIoULoss(eps=1e-6))"),
        ("name", "'a, b'"),
        ("x", "[1, 2]"),
    ]
    assert split_arguments("", "") == []


@pytest.mark.parametrize("text", ["beta", "a=1,a=2", "a=1, a=2", "=3", "a=1,b"])
def test_an_invalid_argument_list_is_refused(text):
    with pytest.raises(ValueError, match="--option: expected KEY=VALUE,KEY=VALUE"):
        split_arguments(text, "--option")
