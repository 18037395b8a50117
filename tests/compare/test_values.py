import pytest

from det_losses.compare.values import parse_arguments, parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-1e-3", -0.001),
        ("1/9", 1 / 9),
        ("(1, 2)", (1, 2)),
        ("{'a': [true, none]}", {"a": [True, None]}),
        ("False", False),
        ("mean", "mean"),
        ("'3'", "3"),
        ("work_dirs/2024", "work_dirs/2024"),
        ("1/0", "1/0"),
        ("../x y.json", "../x y.json"),
        ("__import__('os')", "__import__('os')"),
        ("dict(**x)", "dict(**x)"),
        ("{**x}", "{**x}"),
    ],
)
def test_a_value_is_python_or_itself(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_arguments_nest():
    text = "gamma=0.5,loss=dict(type=GIoULoss,eps=1e-6)"
    assert parse_arguments(text) == {"gamma": 0.5, "loss": {"type": "GIoULoss", "eps": 1e-6}}
    assert parse_arguments("") == {}


@pytest.mark.parametrize("text", ["beta", "beta=", "a=1 b=2", "a=1,a=2", "=3", "beta=open('x')"])
def test_what_is_no_argument_is_refused(text):
    with pytest.raises(ValueError, match="expected key=value,key=value, got"):
        parse_arguments(text)
