"""The plots of a comparison: accuracy, parameters by kind and by depth, receptive fields."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import plotting
from ..plotting import (
    BLACK,
    BLUE,
    DPI,
    FAINT,
    GREEN,
    INK,
    MARKERS,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    STYLE,
    TEXT,
    TITLE,
    VERMILLION,
    styled,
)
from .count import KINDS
from .curves import (
    fields,
    fields_by_depth,
    frontier,
    parameters_by_depth,
    parameters_by_kind,
    representatives,
)
from .labels import Box, Placed, Point, apart, place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .compare import Entry

Draw = Callable[["Sequence[Entry]"], "Figure"]

WIDTH = 12.0  # inches: 1200 pixels at DPI
BARS = 40  # networks in a plot of bars, at most
CURVES = 12  # and of lines
KIND_COLOURS = dict(
    zip(KINDS, (PURPLE, BLUE, ORANGE, SKY, VERMILLION, GREEN, "#999999"), strict=True)
)
DARK = ("convolution", "fully connected", "batch norm")  # the kinds with white numbers on them


# --- the plots -----------------------------------------------------------------------------------


@styled
def bubble(entries: "Sequence[Entry]") -> "Figure":
    """Top-1 accuracy against MACs; the area of a bubble is the number of parameters."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

    shown = [(e, e.count.macs / 1e9, e.top1) for e in entries if e.top1 is not None]
    left_out = len(entries) - len(shown)
    notes = [
        "Top-1 of each network's default weights as their source states it, at its own recipe and"
        " input size; MACs at the published input size."
    ]
    if left_out:
        notes.append(f"{_networks(left_out)} without a published ImageNet accuracy left out.")
    few = len(shown) <= 8
    families = len({e.variant.family for e, _, _ in shown})
    full = max(7.4, 3.7 + 0.16 * families)  # inches: the legend has a line for each
    figure = _figure(_height(len(shown), full), "Accuracy, computation and size", notes)
    axes = _axes(figure, left=0.75, right=2.35)
    axes.set(xscale="log", xlabel="multiply-accumulates for one image (G), log scale")
    axes.set_ylabel("top-1 accuracy (%)")
    xs = [x for _, x, _ in shown] or [0.1, 10]
    ys = [y for _, _, y in shown] or [50, 90]
    spread = max((max(xs) / min(xs)) ** 0.07, 2.5 if few else 1.3)
    axes.set_xlim(min(xs) / spread, max(xs) * spread)
    margin = max(0.08 * (max(ys) - min(ys)), 2.5 if few else 0.5)
    axes.set_ylim(min(ys) - margin, min(max(ys) + margin, 100))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=30))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(LogLocator(subs=()))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))

    largest = max((e.count.params for e, _, _ in shown), default=1)
    per_parameter = 1500 / largest  # square points
    styles = family_styles(entries)  # the page's, too
    best = frontier([(x, y) for _, x, y in shown])
    if len(best) > 2:
        line = [shown[i] for i in best]
        axes.plot([x for _, x, _ in line], [y for *_, y in line], color="#9A9A9A", lw=0.8, zorder=1)
    for e, x, y in sorted(shown, key=lambda item: -item[0].count.params):  # small ones on top
        marker, colour = styles[e.variant.family]
        axes.scatter(
            x,
            y,
            s=e.count.params * per_parameter / MARKERS[marker],
            marker=marker,
            facecolors="#FFFFFFB0" if e.extra_data else colour + "B8",
            edgecolors=colour if e.extra_data else INK,
            linewidths=1.6 if e.extra_data else 0.5,
            zorder=2,
        )

    anchors = []
    for e, x, y in shown:
        radius = math.sqrt(e.count.params * per_parameter / math.pi) * DPI / 72
        anchors.append((*axes.transData.transform((x, y)), radius + 1))
    first = sorted(range(len(shown)), key=lambda i: (i not in best, -shown[i][0].count.params))
    frame = axes.get_window_extent()
    size = TEXT if few else SMALL
    labels = [shown[i][0].name for i in first]
    placed = place(
        [[anchors[i]] for i in first],
        [_extent(figure, label, size) for label in labels],
        Box(frame.x0 + 2, frame.y0 + 2, frame.x1 - 2, frame.y1 - 2),
        anchors,
    )
    _draw_labels(figure, labels, placed, [INK] * len(labels), size)

    # what the marks mean, right of the axes
    side = (WIDTH - 2.2) / WIDTH
    handles = [
        Line2D([], [], ls="", marker=marker, ms=7, mfc=colour, mec=INK, mew=0.5, label=family)
        for family, (marker, colour) in styles.items()
        if not few and any(e.variant.family == family for e, _, _ in shown)  # of few names say it
    ]
    if any(e.extra_data for e, _, _ in shown):
        handles.append(
            Line2D(
                [],
                [],
                ls="",
                marker="o",
                ms=7,
                mfc="white",
                mec=FAINT,
                mew=1.6,
                label="hollow: more data\nthan ImageNet-1k",
            )
        )
    if len(best) > 2:
        handles.append(Line2D([], [], color="#9A9A9A", lw=0.8, label="none better\nfor fewer MACs"))
    top = frame.y1 / figure.bbox.height
    if handles:
        legend = figure.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(side, top + 0.012), frameon=False,
            fontsize=SMALL, title="" if few else "family", title_fontsize=TEXT, alignment="left",
            labelspacing=0.32, borderaxespad=0,
        )  # fmt: skip
        legend.get_title().set_color(INK)
    _size_legend(figure, side, frame.y0 / figure.bbox.height, largest, per_parameter)
    return figure


@styled
def kinds(entries: "Sequence[Entry]") -> "Figure":
    """Where the parameters are: their share by kind of layer, a bar a network."""
    from matplotlib.patches import Patch
    from matplotlib.ticker import PercentFormatter

    shown, rule = representatives(entries, BARS, parameters_by_kind)
    bar = 0.28 if len(shown) > 6 else 0.42  # inches
    notes = ["Right of the bars: trainable parameters, head included, auxiliary heads not.", *rule]
    height = 1.75 + 0.16 * len(notes) + bar * len(shown)
    figure = _figure(height, "Parameters by kind of layer", notes)
    wide = max(_extent(figure, e.name, TEXT)[0] for e in shown) / DPI
    axes = _axes(figure, left=wide + 0.35, right=1.1, top=0.95)
    starts = np.zeros(len(shown))
    rows = np.arange(len(shown))
    used = []
    for kind in KINDS:
        shares = np.array([100 * e.count.by_kind.get(kind, 0) / e.count.params for e in shown])
        if not shares.any():
            continue
        used.append(kind)
        colour = KIND_COLOURS[kind]
        axes.barh(rows, shares, left=starts, height=0.78, color=colour, ec="white", lw=0.6)
        for row, (start, share) in enumerate(zip(starts, shares, strict=True)):
            if share >= 4:
                axes.text(
                    start + share / 2, row, f"{share:.0f}", ha="center", va="center",
                    fontsize=SMALL, color="white" if kind in DARK else BLACK,
                )  # fmt: skip
        starts += shares
    for row, e in enumerate(shown):
        axes.text(101, row, _millions(e.count.params), va="center", fontsize=TEXT, color=INK)
    axes.set_yticks(rows, [e.name for e in shown], color=INK)
    axes.set(xlim=(0, 100), ylim=(len(shown) - 0.5, -0.5))
    axes.set_xlabel("share of the trainable parameters (%)")
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0, symbol=""))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    figure.legend(
        handles=[Patch(fc=KIND_COLOURS[kind], label=kind) for kind in used],
        loc="lower left", bbox_to_anchor=((wide + 0.35) / WIDTH, 1 - 0.9 / height),
        ncols=len(used), frameon=False, borderaxespad=0, borderpad=0, handlelength=1.0,
        handletextpad=0.5, columnspacing=1.5,
    )  # fmt: skip
    return figure


@styled
def depth(entries: "Sequence[Entry]") -> "Figure":
    """How parameters pile up from the first layer to the last, a line a network."""
    shown, rule = representatives(entries, CURVES, parameters_by_depth)
    notes = [
        "Convolutions and fully connected layers in the order of computation, each with its norm.",
        *rule,
    ]
    figure = _figure(_height(len(shown), 6.9), "Parameters by depth", notes)
    axes = _axes(figure, left=0.75, right=0.35)
    axes.set(xlim=(0, 100), ylim=(0, 102))
    axes.set_xlabel("depth: share of the layers passed (%)")
    axes.set_ylabel("share of the parameters so far (%)")
    names, colours, curves = [], [], []
    for i, e in enumerate(shown):
        points = 100 * parameters_by_depth(e)
        colour, dash = _line_style(i)
        axes.plot(*points.T, color=colour, ls=dash, lw=1.8)
        names.append(e.name)
        colours.append(colour)
        curves.append(_along(axes.transData.transform(points), step=5))
    frame = axes.get_window_extent()
    bounds = Box(frame.x0 + 3, frame.y0 + 3, frame.x1 - 3, frame.y1 - 3)
    # a label stands beside its own line where that line is farthest from all others
    anchors = []
    for i, curve in enumerate(curves):
        others = [c for j, c in enumerate(curves) if j != i]
        gaps = [
            min((np.hypot(*(c - point).T).min() for c in others), default=1e3) for point in curve
        ]
        order = sorted(range(len(curve)), key=lambda k: -min(gaps[k], 40))
        alone = [k for k in order if gaps[k] > 8] or order[:1]  # elsewhere it may be another's
        anchors.append([(*curve[k], 2.0) for k in alone[::3]])
    blocked = [(x, y, 2.0) for curve in curves for x, y in curve.tolist()]
    sizes = [_extent(figure, name, TEXT) for name in names]
    _draw_labels(figure, names, place(anchors, sizes, bounds, blocked, all_of_them=True), colours)
    return figure


@styled
def receptive_field(entries: "Sequence[Entry]") -> "Figure":
    """What one position of each stage sees of the input, a line a network."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    bounded = [e for e in entries if len(fields(e)) > 1]
    shown, rule = representatives(bounded, CURVES, fields_by_depth)
    notes = [
        "Stages before global pooling, after which every position sees the whole image;"
        " squeeze-and-excite gates left out."
    ]
    if len(bounded) < len(entries):
        notes[0] += (
            f" {_networks(len(entries) - len(bounded))} with fewer than two such stages left out."
        )
    height = _height(len(shown), 6.9)
    figure = _figure(height, "Receptive field by stage", [*notes, *rule])
    names = [e.name for e in shown]
    room = max((_extent(figure, name, TEXT)[0] for name in names), default=0) / DPI
    axes = _axes(figure, left=0.85, right=room + 0.75)
    axes.set(xlim=(0, 100), yscale="log")
    axes.set_xlabel("depth: share of these stages passed (%)")
    axes.set_ylabel("receptive field, side (pixels), log scale")
    top = 1.0
    for i, e in enumerate(shown):
        points = fields(e)
        colour, dash = _line_style(i)
        axes.plot(*points.T, color=colour, ls=dash, lw=1.8, marker="o", ms=4, clip_on=False)
        top = max(top, points[:, 1].max())
    inputs = Counter(e.count.input_size for e in shown)
    low = min((fields(e)[0, 1] for e in shown), default=1)
    axes.set_ylim(max(low / 1.4, 1), max(top, *inputs, 2) * 1.35)
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=30))
    axes.yaxis.set_minor_locator(LogLocator(subs=()))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    marked: list[int] = []
    for size, _ in inputs.most_common():  # the usual ones, where their words have room
        if len(marked) < 4 and all(max(size, s) > 1.15 * min(size, s) for s in marked):
            marked.append(size)
    for size in marked:
        axes.axhline(size, color=FAINT, lw=1, ls=(0, (6, 3)), zorder=1)
        axes.text(
            0.6, size * 1.02, f"input, {size} px", fontsize=SMALL, color=FAINT, va="bottom",
            bbox=dict(fc="white", ec="none", pad=0.6, alpha=0.8),
        )  # fmt: skip
    # names at the ends of the lines, moved apart
    ends = [axes.transData.transform(fields(e)[-1]) for e in shown]
    frame = axes.get_window_extent()
    heights = apart([y for _, y in ends], 15, frame.y0, frame.y1 + 10)
    for i, (name, (x, y), height) in enumerate(zip(names, ends, heights, strict=True)):
        colour, _ = _line_style(i)
        _segment(figure, (x + 4, y), (frame.x1 + 22, height), colour)
        _words(figure, name, frame.x1 + 26, height, colour, ha="left")
    return figure


PLOTS: dict[str, Draw] = {
    "bubble": bubble,
    "kinds": kinds,
    "depth": depth,
    "receptive_field": receptive_field,
}


# --- what the plots share -------------------------------------------------------------------------


def _figure(height: float, title: str, notes: Sequence[str]) -> "Figure":
    """An empty figure of `height` inches with its title, and notes at its foot."""
    figure = plotting.figure(WIDTH, height)
    figure.text(0.2 / WIDTH, 1 - 0.2 / height, title, fontsize=TITLE, weight="bold", va="top")
    figure.text(
        0.2 / WIDTH, 0.12 / height, "\n".join(notes), fontsize=SMALL, color=FAINT, va="bottom",
        linespacing=1.35,
    )  # fmt: skip
    figure.notes_height = 0.17 * len(notes)  # type: ignore[attr-defined]
    return figure


def _height(networks: int, full: float) -> float:
    """Inches: less for a few networks."""
    return full if networks > 3 else 5.2


def _axes(figure: "Figure", left: float, right: float, top: float = 0.65) -> "Axes":
    """Axes with margins in inches, above the notes."""
    height = figure.get_figheight()
    bottom = 0.72 + figure.notes_height  # type: ignore[attr-defined]
    size = (WIDTH - left - right) / WIDTH, (height - bottom - top) / height
    axes: Axes = figure.add_axes((left / WIDTH, bottom / height, *size))
    plotting.tidy(axes)
    return axes


def family_styles(entries: "Sequence[Entry]") -> dict[str, tuple[str, str]]:
    """Marker and colour of each family, in order of appearance, in all pictures of a comparison."""
    families = list(dict.fromkeys(e.variant.family for e in entries))
    markers = list(MARKERS)
    colours = plotting.AREAS
    return {
        family: (markers[i // len(colours) % len(markers)], colours[i % len(colours)])
        for i, family in enumerate(families)
    }


def _line_style(i: int) -> tuple[str, Any]:
    lines, dashes = plotting.LINES, plotting.DASHES
    return lines[i % len(lines)], dashes[i // len(lines) % len(dashes)]


def _size_legend(
    figure: "Figure", left: float, bottom: float, largest: int, per_parameter: float
) -> None:
    """Bubbles of round numbers of parameters, one below the other."""
    nice = [m * 10**k for k in range(3, 10) for m in (1, 2, 5)]
    top = max((n for n in nice if n <= largest), default=nice[0])
    sizes = [top, top / 5, top / 20]
    height = figure.get_figheight() * 72  # points
    y = bottom * height
    x = left * WIDTH * 72
    widest = math.sqrt(sizes[0] * per_parameter / math.pi)
    from matplotlib.lines import Line2D

    for size in reversed(sizes):
        radius = math.sqrt(size * per_parameter / math.pi)
        y += max(radius, 6)
        dot = Line2D(
            [(x + widest) / (WIDTH * 72)], [y / height], marker="o", ms=2 * radius, mfc="#DDDDDD",
            mec=INK, mew=0.5, transform=figure.transFigure,
        )  # fmt: skip
        figure.add_artist(dot)
        figure.text(
            (x + 2 * widest + 6) / (WIDTH * 72), y / height, _millions(size), va="center",
            fontsize=SMALL,
        )  # fmt: skip
        y += max(radius, 6) + 2
    figure.text(x / (WIDTH * 72), (y + 3) / height, "parameters", va="bottom", fontsize=TEXT)


def _draw_labels(
    figure: "Figure",
    labels: Sequence[str],
    placed: Sequence[Placed | None],
    colours: Sequence[str],
    size: float = TEXT,
) -> None:
    for label, spot, colour in zip(labels, placed, colours, strict=True):
        if spot is None:
            continue
        if spot.leader:
            _segment(figure, *spot.leader, "#777777" if colour == INK else colour)
        box = spot.box
        _words(figure, label, (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, colour, size)


def _words(
    figure: "Figure",
    text: str,
    x: float,
    y: float,
    colour: str,
    size: float = TEXT,
    ha: str = "center",
) -> None:
    figure.text(
        x / figure.bbox.width, y / figure.bbox.height, text, ha=ha, va="center", fontsize=size,
        color=colour,
    )  # fmt: skip


def _segment(figure: "Figure", a: Point, b: Point, colour: str) -> None:
    from matplotlib.lines import Line2D

    xs = [a[0] / figure.bbox.width, b[0] / figure.bbox.width]
    ys = [a[1] / figure.bbox.height, b[1] / figure.bbox.height]
    figure.add_artist(Line2D(xs, ys, color=colour, lw=0.6, transform=figure.transFigure))


def _extent(figure: "Figure", text: str, size: float) -> tuple[float, float]:
    """Width and height of a line of text in pixels at DPI, with a little air."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family=STYLE["font.family"], size=size)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    width, _, _ = renderer.get_text_width_height_descent(text, font, False)
    return width + 4, size * DPI / 72 * 1.15


def _along(line: np.ndarray, step: float) -> np.ndarray:
    """Points [M, 2] every `step` along a line [N, 2]."""
    lengths = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    at = np.arange(0, lengths[-1], step)
    return np.stack([np.interp(at, lengths, line[:, i]) for i in (0, 1)], axis=1)


def _millions(params: float) -> str:
    return f"{params / 1e6:,.1f} M" if params >= 1e5 and params < 1e7 else (
        f"{params / 1e6:,.0f} M" if params >= 1e7 else f"{params / 1e3:,.0f} k"
    )  # fmt: skip


def _networks(n: int) -> str:
    return f"{n} network{'s' * (n != 1)}"
