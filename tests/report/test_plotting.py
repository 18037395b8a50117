import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from svg_checks import check_figures, texts_of

from det_losses.report.plotting import INK, PAPER, Intervals, chart, clean, styles
from det_losses.statistics import Difference

LABELS = (
    "<script>alert('x')</script>",
    "_underscore",
    "$x^2$ & $\\oops$",
    'a"b" id="c" url(#d)',
    "\N{CJK UNIFIED IDEOGRAPH-640D}\N{CJK UNIFIED IDEOGRAPH-5931}",
    "FocalL1Loss(alpha=0.5, gamma=1.5, beta=2.0, loss_weight=10.0, reduction=mean)",
)


def lines(values, legend=(), **options):
    def paint(axes):
        for style, row in zip(legend, values, strict=True):
            axes.plot(row, color=style.colour, linestyle=style.dash, marker=style.marker)

    return chart(paint, "test", "alternative", x="steps", y="AP", legend=legend, **options)


def some_styles(labels=LABELS):
    return list(styles(labels, labels[0]).values())


def test_charts_can_share_a_page():
    legend = some_styles()
    values = np.random.default_rng(0).normal(size=(2, len(LABELS), 20))
    figures = [lines(part, legend) for part in values]

    elements = check_figures(figures)

    assert any(element.get("id", "").startswith("test-") for element in elements)
    assert {e.tag.rpartition("}")[2] for e in elements} >= {"svg", "path", "use", "clipPath"}


def test_labels_are_shown_unchanged():
    shown = texts_of(lines(np.ones((6, 3)), some_styles()))

    for label in (*LABELS[:3], LABELS[4]):
        assert label in shown
    assert 'a"b" id="c" url(#d)' in shown
    (cut,) = (text for text in shown if "\N{HORIZONTAL ELLIPSIS}" in text)
    assert cut.startswith("FocalL1Loss(") and cut.endswith("reduction=mean)"[-10:])


def test_labels_that_would_be_shortened_to_the_same_text_stay_whole():
    labels = [f"CIoULoss(a_long_arg={n}, another_argument=2)" for n in range(7)]

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


def test_figures_are_deterministic_and_leave_no_global_state():
    before = dict(matplotlib.rcParams)
    first, second = (lines(np.ones((6, 3)), some_styles()) for _ in range(2))

    assert first == second
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("values", [np.full((1, 4), np.nan), np.empty((1, 0)), np.ones((1, 1))])
def test_data_with_gaps(values):
    check_figures([lines(values, some_styles(["A"]))])


def test_ten_variants_differ_with_and_without_colour():
    drawn = styles([str(number) for number in range(10)], baseline="3")

    assert drawn["3"].colour == "#808080" and next(iter(drawn)) == "3"
    assert len({style.colour for style in drawn.values()}) == 10
    assert len({style.marker for style in drawn.values()}) == 10
    assert len({str(style.dash) for style in list(drawn.values())[:5]}) == 5


def difference(value, low, high):
    return Difference("a", "b", value, 0.01, 5.0, low, high, 0.1, 0.1, 0.01, 0.01, 3, 0.03)


def segments(svg):
    """Return x0, y0, x1, y1 of the lines, and the position of the dot, in SVG units."""
    paths = re.findall(r'<path d="M ([\d.]+) ([\d.]+) L ([\d.]+) ([\d.]+)"', svg)
    return [tuple(map(float, found)) for found in paths]


def test_intervals_are_drawn_to_scale():
    """From -2 to 5 points over 7% to 93% of 208 units: zero at 208 (.07 + .86 * 2 / 7)."""
    found = difference(0.02, -0.01, 0.05)
    scale = Intervals.of([found, difference(0.0, -0.02, 0.02)])
    assert (scale.low, scale.high, scale.ticks) == (-2.0, 5.0, (-2.0, 0.0, 2.0, 4.0))
    drawn = scale.plot(found, "#123456", True)
    x = {points: 208 * (0.07 + 0.86 * (points + 2) / 7) for points in (-1, 0, 2, 5)}
    zero, interval, low, high = segments(drawn)
    assert zero == pytest.approx((x[0], 34, x[0], 0), abs=0.02)
    assert interval == pytest.approx((x[-1], 17, x[5], 17), abs=0.02)
    assert low == pytest.approx((x[-1], 21, x[-1], 13), abs=0.02)
    assert high == pytest.approx((x[5], 21, x[5], 13), abs=0.02)
    (dot,) = ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}use")
    at = [float(dot.get(key)) for key in "xy"]
    assert at == pytest.approx([x[2], 17], abs=0.02)
    assert "fill:#123456" in dot.get("style")
    assert 'aria-label="+2.0 [-1.0, 5.0]"' in drawn
    open_dot = scale.plot(found, "#123456", False)
    assert "fill:var(--paper)" in open_dot and PAPER not in open_dot
    assert texts_of(scale.axis()) == ["-2", "0", "+2", "+4"]
    check_figures([drawn, open_dot, scale.axis()])


@pytest.mark.parametrize("end", [1e-5, 3e-4, 0.0139, 0.087, 0.9])
@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
def test_every_scale_has_its_zero_and_few_round_ticks(end, part):
    scale = Intervals.of([difference(0.0, -part * end, end)])
    assert min(map(abs, scale.ticks)) < 1e-12
    assert 3 <= len(scale.ticks) <= 6
    assert scale.low - 1e-9 <= scale.ticks[0] < scale.ticks[-1] <= scale.high + 1e-9
    assert "0" in texts_of(scale.axis())


def test_a_scale_without_differences():
    nothing = difference(float("nan"), float("nan"), float("nan"))
    scale = Intervals.of([nothing])
    assert (scale.low, scale.high) == (-1.0, 1.0)
    assert len(segments(scale.plot(nothing, "#000000", False))) == 1  # zero
