"""A figure on its way to the page: the theme it is drawn in, and its forms as SVG, as PNG and inside the page.

Colours are named once, in `THEMES`. Figures are drawn without pyplot, in the light theme; `inline_svg` turns each
colour into the CSS variable of its name, so that a page can show them in either theme, and each arm's marks into a
class that a legend can switch.
"""

import base64
import io
import logging
import re
import struct
import textwrap
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal, get_args

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Figure
from numpy.typing import NDArray

Array = NDArray[Any]
Draw = Callable[[], Figure]
Form = Literal["svg", "png", "pdf"]
FORMS: tuple[Form, ...] = get_args(Form)

# At INFO, Hydra's level, it logs every table of every font that a PDF embeds: thousands of lines per report.
logging.getLogger("fontTools").setLevel(logging.WARNING)

# Distinct in pairs under deuteranopia, protanopia and tritanopia, 3:1 or better against the paper: tests check both.

THEMES = {
    "light": {
        "ink": "#1b1f24",
        "muted": "#5b6470",
        "grid": "#e1e5ea",
        "paper": "#ffffff",
        "arm0": "#1b1f25",
        "arm1": "#0d69a6",
        "arm2": "#f73202",
        "arm3": "#0e9347",
        "arm4": "#c2679a",
        "arm5": "#7b952b",
        "arm6": "#3c99e5",
        "arm7": "#882255",
    },
    "dark": {
        "ink": "#e8eaed",
        "muted": "#a4adb8",
        "grid": "#343a42",
        "paper": "#14171b",
        "arm0": "#e8eaee",
        "arm1": "#5876bc",
        "arm2": "#e76b4a",
        "arm3": "#1bea97",
        "arm4": "#c97e9c",
        "arm5": "#fbd31c",
        "arm6": "#9fc8fc",
        "arm7": "#9865ff",
    },
}
LIGHT = THEMES["light"]
N_COLOURS = 8
DASHES: tuple[Any, ...] = (
    "solid",
    "solid",
    (0, (5, 1.6)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (3, 1.2)),
    (0, (8, 2)),
    (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 6,
    "axes.titley": 1.0,  # no ticks are above, so none have to be measured
    "axes.labelcolor": LIGHT["ink"],
    "axes.titlecolor": LIGHT["ink"],
    "axes.edgecolor": LIGHT["muted"],
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LIGHT["grid"],
    "grid.linewidth": 0.7,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,  # an arm may have a $ in its name
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.labelcolor": LIGHT["ink"],
    "lines.linewidth": 1.3,
    "figure.facecolor": LIGHT["paper"],
    "savefig.facecolor": LIGHT["paper"],
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "reg_sweep",
}
HEAT = LinearSegmentedColormap.from_list("heat", ["#0b2a4a", "#2566a0", "#7fb2d6", "#e6eef4"])
WIDTH, HEIGHT = 3.3, 2.3  # inches: a paper's column, where no text is below 7 points
_STYLE = re.compile(r' style="([^"]*:[^"]*;[^"]*)"')  # with more than one property, which no `<svg>` here has
_OPENS_GROUP = re.compile(r"<g(?: [^>]*(?<!/))?>")
PAGE_WIDTH = 7.0  # inches: both columns, for what is `wide`
PRINT_WIDTH = 6.3  # inches: A4 and Letter between margins of an inch
PNG_DPI = 300  # what printers ask for


@dataclass(frozen=True)
class Picture:
    """A figure on its way to the page: its name on disk, what it shows in words, how it is drawn, its caption.

    `draw` makes the figure. That takes most of the time and memory, so it is called once, when the picture is rendered.
    `id` is unique on the page; a `wide` picture needs the page's width.
    """

    name: str
    alt: str
    draw: Draw
    id: str
    caption: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Rendered:
    """A picture as the content of its files, and as the SVG inside the page."""

    files: dict[Form, bytes]
    inline: str


def colour(slot: int | None) -> str:
    """The light theme's colour of a coloured arm; grey for every other arm."""
    return LIGHT["muted"] if slot is None else LIGHT[f"arm{slot}"]


def new_figure(width: float = WIDTH, height: float = HEIGHT, **grid: Any) -> tuple[Figure, Any]:
    """A figure in inches and its axes, one or an array of them as `grid` asks."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(**grid)


def heading(title: str, figure: Figure) -> str:
    """A title as up to three lines that the figure is wide enough for."""
    return folded(title, round(figure.get_figwidth() * 10))


def folded(label: str, width: int, n_lines: int = 3) -> str:
    """A label as lines of up to `width` characters, broken between its parts where possible; '…' replaces the rest."""
    lines = [""]
    for part in label.split(" · "):
        joined = f"{lines[-1]} · {part}" if lines[-1] else part
        if len(joined) <= width:
            lines[-1] = joined
        else:
            lines += textwrap.wrap(part, width)
    lines = [line for line in lines if line]
    if len(lines) > n_lines:
        lines = [*lines[: n_lines - 1], lines[n_lines - 1][: width - 2] + " …"]
    return "\n".join(lines)


def place_legend(figure: Figure, *axes: Axes) -> None:
    """One legend of all `axes` below them, where it covers nothing."""
    handles = [handle for ax in axes for handle in ax.get_legend_handles_labels()[0]]
    if handles:
        labels = [folded(str(handle.get_label()), 44, 2) for handle in handles]
        ncols = _legend_columns(figure.get_figwidth(), labels)
        figure.legend(
            handles=handles,
            labels=labels,
            loc="outside lower center",
            ncols=ncols,
            fontsize=7,
            handletextpad=0.4,
            columnspacing=1.2,
        )


def legend_height(labels: Sequence[str], width: float = WIDTH) -> float:
    """Inches that a legend of these labels needs below a figure of that width."""
    lines = -(-len(labels) // _legend_columns(width, labels)) if labels else 0
    return 0.15 * lines + 0.08


def _legend_columns(width: float, labels: Sequence[str]) -> int:
    longest = max(len(line) for label in labels for line in folded(label, 44, 2).splitlines())
    return max(1, min(4, len(labels), int(width / (0.062 * longest + 0.5))))


def rendered(picture: Picture, forms: Sequence[Form] = FORMS) -> Rendered:
    """A picture drawn in these forms, which look the same; the page needs its SVG in any case."""
    figure = picture.draw()
    wanted: list[Form] = ["svg", *(form for form in forms if form != "svg")]
    drawn = {form: io.BytesIO() for form in wanted}
    with matplotlib.rc_context(STYLE):
        _lay_out(figure)
        for form, file in drawn.items():
            figure.savefig(
                file, format=form, dpi=PNG_DPI if form == "png" else "figure", metadata=_metadata(form, picture)
            )
    files = {form: file.getvalue() for form, file in drawn.items()}
    return Rendered(files, inline_svg(files["svg"].decode(), picture.alt, picture.id))


def _lay_out(figure: Figure) -> None:
    """Places the axes once, by the widths of an SVG's text; savefig would draw all of it a second time to do so."""
    engine = figure.get_layout_engine()
    if engine is not None:
        FigureCanvasSVG(figure)
        figure.set_dpi(72)  # an SVG's
        engine.execute(figure)
        figure.set_layout_engine(None)


def _metadata(form: Form, picture: Picture) -> dict[str, str | None] | None:
    """The file's metadata: the alt text, if the format allows, and no date, so the same runs give the same file."""
    dated = {"svg": "Date", "png": None, "pdf": "CreationDate"}[form]
    return None if dated is None else {dated: None, "Title": picture.alt}


def inline_svg(svg: str, alt: str, prefix: str) -> str:
    """A matplotlib SVG for the inside of a page: themed colours, the page's font, unique ids, alt text, arm classes."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = re.sub(r"<title>.*?</title>", "", body, count=1, flags=re.S)
    body = re.sub(r"<style type=.*?</style>", "", body, flags=re.S)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.S)
    box = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', body)
    assert box is not None
    opening = (
        f'<svg class="figure" role="img" aria-label="{escape(alt)}" {box[0]} '
        f'style="max-width: {2.1 * float(box[1]):.0f}px" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    body = re.sub(r"<svg[^>]*>", lambda _: opening, body, count=1)
    body = re.sub(r'id="[a-z]+-arm-(\d+)"', r'class="arm arm-\1"', body)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    body = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r"font: ([^;\"]*?)(\d[\d.]*px) [^;\"]*", r"font-size: \2; \1", body)
    body = re.sub(r"base64,[^\"]*", lambda data: "".join(data[0].split()), body)
    for name, value in LIGHT.items():
        body = body.replace(value, f"var(--{name})")
    return _smaller(body, prefix)


def _smaller(body: str, prefix: str) -> str:
    """The same picture in half of the bytes: a page may hold hundreds."""
    # A hundredth of a point is finer than any screen; text keeps its digits.
    body = re.sub(r' (?:d|x|y)="[^"]*"', lambda numbers: re.sub(r"(\.\d\d)\d+", r"\1", numbers[0]), body)
    body = re.sub(r' d="[^"]*"', lambda path: _shorter_path(path[0]), body)
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    used = set(re.findall(r"#([^)\"]+)", body))
    body = re.sub(rf' id="({prefix}-[^"]+)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r'style="[^"]*"', lambda style: style[0].replace(": ", ":").replace("; ", ";"), body)
    body = re.sub(r'<path d="[^"]*" style="fill:none"/>', "", body)  # neither filled nor drawn
    return _ungrouped(re.sub(r">\s+<", "><", re.sub(r"\s*\n\s*", " ", body)))


def _shorter_path(path: str) -> str:
    """Without spaces that no reader needs, and without zeros at the ends of numbers."""
    path = re.sub(r"(\.\d*?)0+(?=[ \"])", r"\1", path)
    path = re.sub(r"\.(?=[ \"])", "", path)
    return re.sub(r" ?([MLQCz])\s*", r"\1", path).replace(' "', '"')


def _ungrouped(body: str) -> str:
    """Without the groups that have no attribute."""
    parts, opened = [], []
    for part in re.split(rf"({_OPENS_GROUP.pattern}|</g>)", body):
        if _OPENS_GROUP.fullmatch(part):
            opened.append(part)
        elif part == "</g>":
            part = "" if opened.pop() == "<g>" else part
        parts.append("" if part == "<g>" else part)
    return "".join(parts)


def shared_styles(svgs: dict[str, str]) -> tuple[dict[str, str], str]:
    """The same SVGs with a class in place of each frequent style, and the style sheet of these classes."""
    counts = Counter(style for svg in svgs.values() for style in _STYLE.findall(svg))
    often = [style for style, n in counts.most_common() if n >= 4]
    classes = {style: f"s{number}" for number, style in enumerate(often)}

    def shared(svg: str) -> str:
        return _STYLE.sub(lambda at: f' class="{classes[at[1]]}"' if at[1] in classes else at[0], svg)

    sheet = "\n".join(f".figure .{name}{{{style}}}" for style, name in classes.items())
    return {name: shared(svg) for name, svg in svgs.items()}, sheet


def sprite_sheet(images: Array, n_columns: int) -> str:
    """Images (n, H, W) or (n, H, W, 3) uint8, `n_columns` in a row, as the data: address of one PNG."""
    n, h, w, *channels = images.shape
    n_rows = -(-n // n_columns)
    padded = np.zeros((n_rows * n_columns, h, w, *channels), np.uint8)
    padded[:n] = images
    grid = padded.reshape(n_rows, n_columns, h, w, *channels).swapaxes(1, 2)  # (rows, H, columns, W, ...)
    sheet = grid.reshape(n_rows * h, n_columns * w, *channels)
    return "data:image/png;base64," + base64.b64encode(_png(sheet)).decode()


def _png(pixels: Array) -> bytes:
    """A PNG, grey (H, W) or RGB (H, W, 3): signature, header, one deflated stream of unfiltered rows, end."""
    h, w = pixels.shape[:2]
    kind_of_pixel = 0 if pixels.ndim == 2 else 2
    rows = np.concatenate([np.zeros((h, 1), np.uint8), pixels.reshape(h, -1)], axis=1).tobytes()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, kind_of_pixel, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
