"""A page about the data of a training: figures, coverage by anchors, images as trained."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from PIL import Image
from torch import Tensor

from det_losses.data.box_faults import STRONG
from det_losses.data.box_table import BoxTable
from det_losses.errors import agreed, counted
from det_losses.files import write_text
from det_losses.report.photos import DrawnBox, Panel, side_by_side
from det_losses.report.plotting import Style, chart, clean, styles
from det_losses.report.section import Figure, Section, Table
from det_losses.report.write import render

DATA_FILE = "data.html"

_MOST_BINS = 24
_MOST_CLASSES = 20
_ROW = 17  # units of height of a class in a bar chart
_NO_LIMIT = 1e9  # pixels
_LONGEST, _QUALITY = 480, 80  # side in pixels and JPEG quality of a picture

Shares = Sequence[tuple[str, int, float]]  # name, number of boxes, share with an anchor


@dataclass(frozen=True)
class TrainedImage:
    """An image as the detector gets it, without normalisation.

    Attributes:
        jpeg: the image, which may be smaller than ``size``.
        size: width and height, pixels.
        boxes: x, y, width, height in such pixels, the class, and whether the box has an anchor.
        title: its file and size.
    """

    jpeg: bytes
    size: tuple[int, int]
    boxes: Sequence[tuple[tuple[float, float, float, float], str, bool]]
    title: str


def trained_image(
    image: Tensor,
    size: tuple[int, int],
    boxes: np.ndarray,
    names: Sequence[str],
    covered: np.ndarray | None,
    image_id: int,
) -> TrainedImage:
    """Return an image for the page, resized as the detector does.

    Args:
        image: uint8 [3, H, W].
        size: width and height after the resize.
        boxes: ``[n, 4]`` xyxy, pixels of the resized image.
        names: classes of the boxes.
        covered: ``[n]``, whether a box has an anchor; None if unknown.
        image_id: of the json.
    """
    picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size, Image.BILINEAR)
    picture.thumbnail((_LONGEST, _LONGEST))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    flags = [True] * len(names) if covered is None else covered.tolist()
    drawn = [
        ((x1, y1, x2 - x1, y2 - y1), name, flag)
        for (x1, y1, x2, y2), name, flag in zip(boxes.tolist(), names, flags, strict=True)
    ]
    missing = f", {flags.count(False)} not covered" if False in flags else ""
    title = f"image {image_id}, {size[0]} x {size[1]}, {counted(len(drawn), 'box')}{missing}"
    return TrainedImage(buffer.getvalue(), size, drawn, title)


@dataclass(frozen=True)
class CoverageNumbers:
    """Shares of boxes that have an anchor.

    Attributes:
        what: what a box is counted for, in words.
        classes: by class.
        sizes: by the side of the box in the resized image.
    """

    what: str
    classes: Shares
    sizes: Shares


@dataclass(frozen=True)
class DataPage:
    """The contents of the page, as the template uses them."""

    title: str
    headline: str
    subtitle: str
    cautions: Sequence[str]
    sections: Sequence[Section]
    next_step: None = None  # of the template, like refresh: this page has none, nor reloads itself
    refresh: int = 0


def write_data_page(
    out: Path,
    title: str,
    tables: Mapping[str, BoxTable],
    notes: Mapping[str, Sequence[str]],
    coverage: CoverageNumbers | None,
    images: Sequence[TrainedImage],
) -> Path:
    """Write one self-contained page and return its path.

    Args:
        out: a folder, which is created if missing.
        title: what the data are for.
        tables: ``"training"`` and ``"validation"`` -> boxes.
        notes: what was dropped, changed or is suspected, by split.
        coverage: shares of boxes with an anchor, if a detector is known.
        images: for the contact sheet.
    """
    every = [note for own in notes.values() for note in own]
    every.sort(key=lambda note: STRONG not in note)
    text = "; ".join(
        f"{counted(len(t.files), f'{name} image')} with {counted(len(t.boxes), 'box')}"
        for name, t in tables.items()
    )
    page = DataPage(
        title,
        _headline(every),
        f"{text}; {counted(len(next(iter(tables.values())).classes), 'class')}",
        every,
        [
            _overview(tables),
            *([_coverage_section(coverage)] if coverage else []),
            *([_sheet(images, coverage is not None)] if images else []),
        ],
    )
    write_text(Path(out) / DATA_FILE, render("data_page.html", document=page))
    return Path(out) / DATA_FILE


def _headline(notes: Sequence[str]) -> str:
    if not notes:
        return "Nothing looks wrong"
    if STRONG in notes[0]:
        return "The boxes are probably wrong"
    return f"{counted(len(notes), 'remark')} on the data"


def _overview(tables: Mapping[str, BoxTable]) -> Section:
    rows = [[name, *_numbers(table)] for name, table in tables.items()]
    headers = ["", "images", "boxes", "without a box", "boxes an image", "image size", "box size"]
    note = (
        "Median, and in brackets the 5th and 95th percentile, in pixels of the files. The size of "
        "a box is the square root of its area."
    )
    return Section("Figures", "", tuple(_figures(tables)), (Table(headers, rows, note),))


def _numbers(table: BoxTable) -> list[str]:
    sizes = " x ".join(f"{side:.0f}" for side in np.median(table.sizes, axis=0))
    return [
        str(len(table.files)),
        str(len(table.boxes)),
        str(int((table.counts == 0).sum())),
        _middle(table.counts),
        sizes,
        _middle(_scale(table)) if len(table.boxes) else "-",
    ]


def _middle(values: np.ndarray) -> str:
    low, middle, high = np.percentile(values, [5, 50, 95])
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"


def _scale(table: BoxTable) -> np.ndarray:
    return np.sqrt(table.sides.prod(axis=1))


def _figures(tables: Mapping[str, BoxTable]) -> list[Figure]:
    style = _styles(tables)
    legend = [style[name] for name in tables] if len(tables) > 1 else []
    known = {name: table for name, table in tables.items() if len(table.boxes)}

    def lines(values: Callable[[BoxTable], np.ndarray], low: float, high: float) -> list:
        return [(style[n], np.clip(values(t), low, high)) for n, t in known.items()]

    sizes = lines(_scale, 1, _NO_LIMIT)
    ratios = lines(lambda t: t.sides[:, 1] / t.sides[:, 0], 1 / 16, 16)
    counts = [(style[name], table.counts) for name, table in tables.items()]
    return [
        _figure(
            lambda axes: _distribution(axes, sizes),
            "Sizes of the boxes, in pixels of the files.",
            x="square root of the area (px)",
            legend=legend,
        ),
        _figure(
            lambda axes: _distribution(axes, ratios),
            "Shapes of the boxes. 2: twice as high as wide; 0.5: twice as wide as high.",
            x="height / width",
            legend=legend,
        ),
        _figure(
            lambda axes: _histogram(axes, counts),
            "Numbers of boxes an image; the last column has all larger numbers.",
            x="boxes an image",
            y="% of images",
            legend=legend,
        ),
        _class_figure(tables, style, legend),
    ]


def _styles(names: Iterable[str]) -> dict[str, Style]:
    """Return styles that differ in colour only."""
    found = styles(["", *names], "")
    return {name: replace(found[name], dash="solid") for name in names}


def _figure(
    paint: Callable[[Axes], None],
    caption: str,
    *,
    x: str,
    y: str = "% of boxes",
    legend: Sequence[Style] = (),
    height: float = 250,
    grid: str = "both",
) -> Figure:
    svg = chart(paint, "data", caption, x=x, y=y, height=height, grid=grid, legend=legend)
    return Figure(svg, caption)


def _distribution(axes: Axes, lines: Sequence[tuple[Style, np.ndarray]]) -> None:
    """Draw histograms with a logarithmic axis of values above 0."""
    every = np.concatenate([values for _, values in lines])
    low, high = every.min(), max(every.max(), 1.05 * every.min())
    bins = int(np.clip(2 * len(every) ** (1 / 3), 6, _MOST_BINS))
    edges = np.geomspace(low, high * 1.0001, bins + 1)
    for style, values in lines:
        share = 100 * np.histogram(values, edges)[0] / len(values)
        axes.stairs(share, edges, color=style.colour, linewidth=1.8, linestyle=style.dash)
    axes.set_xscale("log")
    steps = np.array([1, 2, 5])
    ticks = np.concatenate([steps * 10.0**power for power in range(-2, 6)])
    shown = ticks[(ticks >= low) & (ticks <= high)]
    axes.xaxis.set_major_locator(FixedLocator(shown if len(shown) > 1 else [low, high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.set_ylim(0, None)


def _histogram(axes: Axes, lines: Sequence[tuple[Style, np.ndarray]]) -> None:
    """Draw histograms of whole numbers."""
    most = max(10, int(np.percentile(np.concatenate([v for _, v in lines]), 98)))
    width = -(-(most + 1) // 40)  # at most 40 columns
    edges = np.arange(-0.5, most + width, width)
    for style, values in lines:
        share = 100 * np.histogram(np.minimum(values, edges[-1] - 0.5), edges)[0] / len(values)
        axes.stairs(share, edges, color=style.colour, linewidth=1.8, linestyle=style.dash)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, None)


def _class_figure(
    tables: Mapping[str, BoxTable], style: Mapping[str, Style], legend: Sequence[Style]
) -> Figure:
    first = next(iter(tables.values()))
    counts = np.bincount(first.labels, minlength=len(first.classes))
    names = [first.classes[label] for label in np.argsort(-counts, kind="stable")][:_MOST_CLASSES]

    def paint(axes: Axes) -> None:
        for index, (name, table) in enumerate(tables.items()):
            own = np.bincount(table.labels, minlength=len(table.classes))
            of = dict(zip(table.classes, (100 * own / max(1, own.sum())).tolist(), strict=True))
            height = 0.7 / len(tables)
            places = np.arange(len(names)) + height * (index - (len(tables) - 1) / 2)
            axes.barh(places, [of.get(c, 0) for c in names], height, color=style[name].colour)
        _name_rows(axes, names)

    rest = len(first.classes) - len(names)
    rarer = f"; {rest} more {agreed(rest, 'are')} rarer" if rest else ""
    caption = f"Classes, most frequent first{rarer}."
    return _figure(
        paint,
        caption,
        x="% of boxes",
        y="",
        legend=legend,
        height=max(110, 55 + _ROW * len(names)),
        grid="x",
    )


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [clean(name, 24) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _coverage_section(coverage: CoverageNumbers) -> Section:
    text = (
        f"Training boxes with {coverage.what}. A box without one can hardly be learned. The "
        "numbers are those of the config's detector, after its resize."
    )
    poorest = sorted(coverage.classes, key=lambda each: each[2])[:_MOST_CLASSES]
    return Section(
        "Coverage by the detector",
        text,
        (
            _share_figure(coverage.sizes, "By size: side of the box in the resized image."),
            _share_figure(poorest, "By class, the worst first."),
        ),
    )


def _share_figure(shares: Shares, caption: str) -> Figure:
    colour = _styles(["covered"])["covered"].colour

    def paint(axes: Axes) -> None:
        axes.barh(range(len(shares)), [100 * s for _, _, s in shares], 0.7, color=colour)
        axes.set_xlim(0, 100)
        for row, (_, count, share) in enumerate(shares):
            inside = share > 0.75
            axes.text(
                100 * share + (-1 if inside else 1),
                row,
                f"{100 * share:.0f}% of {count}",
                va="center",
                ha="right" if inside else "left",
                fontsize=10,
                color="#ffffff" if inside else axes.xaxis.label.get_color(),
            )
        _name_rows(axes, [name for name, _, _ in shares])

    height = max(110, 55 + _ROW * len(shares))
    return _figure(paint, caption, x="% of these boxes", y="", height=height, grid="x")


def _sheet(images: Sequence[TrainedImage], with_coverage: bool) -> Section:
    text = "Training images with their boxes."
    if with_coverage:
        text = (
            "Training images after the transforms of the config and the detector's resize, as the "
            "detector sees them. Orange, dashed boxes are not covered."
        )
    cells = [
        side_by_side(
            image.jpeg,
            image.size,
            [Panel("", [DrawnBox(b, n, "truth" if c else "wrong") for b, n, c in image.boxes])],
            [image.title],
            "sheet",
        )
        for image in images
    ]
    kept = "".join(f'<div style="break-inside:avoid">{cell}</div>' for cell in cells)
    columns = f'<div style="columns:210px;column-gap:14px">{kept}</div>'
    return Section("Images as trained", text, (Figure(columns, ""),))
