import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from svg_checks import check_figures, texts_of

from det_losses.report.plotting import chart, clean, styles
from det_losses.report.svg import INK

LABELS = (
    "<script>alert('x')</script>",
    "_underscore",
    "$x^2$ & $\\oops$",
    'a"b" id="c" url(#d)',
    "\N{CJK UNIFIED IDEOGRAPH-640D}\N{CJK UNIFIED IDEOGRAPH-5931}",
    "FocalL1Loss:alpha=0.5,gamma=1.5,beta=2.0,loss_weight=10.0,reduction=mean",
)


def lines(values, legend=(), **options):
    def paint(axes):
        for style, row in zip(legend, values, strict=True):
            axes.plot(row, color=style.colour, linestyle=style.dash, marker=style.marker)

    return chart(paint, "test", "alternative", x="steps", y="AP", legend=legend, **options)


def some_styles(labels=LABELS):
    return list(styles(labels, lambda label: "#0072b2").values())


def test_charts_can_stand_in_one_page():
    legend = some_styles()
    values = np.random.default_rng(0).normal(size=(2, len(LABELS), 20))
    figures = [lines(part, legend) for part in values]

    elements = check_figures(figures)

    assert any(element.get("id", "").startswith("test-") for element in elements)
    assert {e.tag.rpartition("}")[2] for e in elements} >= {"svg", "path", "use", "clipPath"}


def test_labels_are_shown_as_they_are():
    shown = texts_of(lines(np.ones((6, 3)), some_styles()))

    for label in (*LABELS[:3], LABELS[4]):
        assert label in shown
    assert 'a"b" id="c" url(#d)' in shown
    (cut,) = (text for text in shown if "\N{HORIZONTAL ELLIPSIS}" in text)
    assert cut.startswith("FocalL1Loss:") and cut.endswith("reduction=mean"[-10:])


def test_labels_that_would_be_cut_alike_stay_whole():
    labels = [f"CIoULoss:a_long_argument={n},another_argument=2" for n in range(7)]

    assert (
        len(
            {text for text in texts_of(lines(np.ones((7, 2)), some_styles(labels)))}
            & set(clean(label, 44) for label in labels)
        )
        == 7
    )


def test_colour_font_and_size_come_from_the_page():
    picture = lines(np.ones((6, 3)), some_styles())
    root = ElementTree.fromstring(picture)

    assert INK not in picture and "#000000" not in picture and "#ffffff" not in picture
    assert "currentColor" in picture and "DejaVu Sans'," not in re.sub(r"<svg[^>]*>", "", picture)
    assert root.get("width") is None and root.get("height") is None
    assert "width:100%" in root.get("style")
    assert root.get("aria-label") == "alternative" and root.get("role") == "img"


def test_texts_keep_a_readable_size():
    """On a phone a figure is about 360 px wide, of 460 units: 11 units are 8.6 px."""
    picture = lines(np.ones((6, 3)), some_styles())
    width = float(ElementTree.fromstring(picture).get("viewBox").split()[2])
    sizes = [float(size) for size in re.findall(r"font-size:([\d.]+)px", picture)]

    assert len(sizes) > 10 and min(sizes) * 360 / width > 8.5


def test_the_same_data_give_the_same_bytes_and_no_global_state():
    before = dict(matplotlib.rcParams)
    first, second = (lines(np.ones((6, 3)), some_styles()) for _ in range(2))

    assert first == second
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("values", [np.full((1, 4), np.nan), np.empty((1, 0)), np.ones((1, 1))])
def test_data_with_gaps(values):
    check_figures([lines(values, some_styles(["A"]))])


def test_ten_variants_differ_without_colour():
    drawn = some_styles([str(number) for number in range(10)])

    assert len({style.marker for style in drawn}) == 10
    assert len({str(style.dash) for style in drawn[:5]}) == 5
