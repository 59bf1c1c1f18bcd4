"""matplotlib as all plots here use it: colours, sizes and grid, and how a plot becomes a file.

Colours are Okabe and Ito's, told apart by everyone (https://jfly.uni-koeln.de/color/); marker
shapes and dashes tell more than eight apart.

Figures are made without pyplot, which would keep each of them until it is closed: these need no
display and are freed like any other object.
"""

import io
import math
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .errors import ZooError
from .paths import write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILLION, PURPLE, BLACK = "#0072B2", "#D55E00", "#CC79A7", "#000000"
AREAS = (BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE, YELLOW, "#4D4D4D")
LINES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)  # yellow is too light for a line
DASHES = ("-", (0, (5, 2)), (0, (1, 1.4)))
MARKERS = {"o": math.pi / 4, "s": 1.0, "D": 1.0, "^": 0.5, "v": 0.5}  # areas at side 1
INK, FAINT, GRID = "#222222", "#5F5F5F", "#DDDDDD"

DPI = 100  # pixels in an inch of the layout
SMALL, TEXT, TITLE = 8, 9.5, 14  # points

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "zoo",  # the same plot is the same file
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": TEXT,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
}

P = ParamSpec("P")
T = TypeVar("T")


def need_matplotlib() -> None:
    """Do nothing where matplotlib is installed.

    Raises:
      ZooError: it is not.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ZooError("pictures need matplotlib: pip install matplotlib") from None


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Make a function draw in `STYLE`; without matplotlib it raises a ZooError."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        need_matplotlib()
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def figure(width: float, height: float) -> "Figure":
    """An empty white figure of that many inches, with a canvas that measures text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    empty = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(empty)
    return empty


def tidy(axes: "Axes") -> None:
    """Give axes a light grid behind what is drawn, and no frame at the top and on the right."""
    axes.grid(color=GRID, lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def log_scale(axes: "Axes") -> None:
    """Make the y axis logarithmic, with plain numbers at some of 1, 2, 5, 10, ..."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    wide = high > 100 * low
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 3, 5, 7), numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def encode(figure: "Figure", form: str, **settings: Any) -> bytes:
    """The file of a plot; the same plot gives the same bytes.

    Letters that the font lacks become boxes, without a warning.

    Args:
      figure: the plot.
      form: "png" or "svg".
      settings: for `Figure.savefig`.
    """
    import matplotlib

    data = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else {"Software": None}
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(data, format=form, metadata=metadata, **settings)
    return data.getvalue()


def save(figure: "Figure", path: Path, form: str = "png", **settings: Any) -> None:
    """Write the file of a plot, whole or not at all; otherwise like `encode`.

    Raises:
      OSError: the file cannot be written.
    """
    write(path, encode(figure, form, **settings))
