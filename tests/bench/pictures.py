"""Bar charts as SVG, without a library: readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH = 760
_LABEL = 170
_VALUE = 90
_BAR = 16
_STEP = 22
_TITLE = 34
_STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 13px }
.bar { fill: #8c959f }
.ours { fill: #0969da }
.spread { stroke: #24292f; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .bar { fill: #6e7681 }
  .ours { fill: #4493f8 }
  .spread { stroke: #e6edf3 }
}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One server in one chart."""

    label: str
    value: float
    low: float
    high: float
    """The range over the rounds."""
    shown: str
    ours: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars that begin at zero and share a scale."""

    title: str
    bars: Sequence[Bar]


def svg(charts: Sequence[Chart], describes: str) -> str:
    """Draw the charts below each other.

    Bars of more than four times the median value are cut, with a sign that says so: one slow server would otherwise
    leave nothing to see of the others.
    """
    parts: list[str] = []
    top = 0
    for chart in charts:
        parts.append(f'<text class="title" x="0" y="{top + 20}">{escape(chart.title)}</text>')
        top += _TITLE
        values = sorted(bar.value for bar in chart.bars)
        scale_end = min(values[-1], 4 * values[len(values) // 2]) if values else 1.0
        for bar in chart.bars:
            parts += _bar(bar, top, (_WIDTH - _LABEL - _VALUE) / (scale_end or 1.0), scale_end)
            top += _STEP
        top += _STEP // 2
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}" role="img">'
    return "\n".join([head, f"<title>{escape(describes)}</title>", f"<style>\n{_STYLE}</style>", *parts, "</svg>", ""])


def _bar(bar: Bar, top: int, scale: float, scale_end: float) -> list[str]:
    cut = bar.value > scale_end
    width = min(bar.value, scale_end) * scale
    middle = top + _BAR / 2
    parts = [
        f'<text x="{_LABEL - 8}" y="{top + 13}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{"ours" if bar.ours else "bar"}" x="{_LABEL}" y="{top}" width="{width:.1f}" height="{_BAR}"/>',
    ]
    if not cut:
        low, high = (_LABEL + min(value, scale_end) * scale for value in (bar.low, bar.high))
        parts.append(f'<line class="spread" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>')
    shown = f"{bar.shown} ▸" if cut else bar.shown
    edge = _LABEL + width if cut else max(_LABEL + width, _LABEL + min(bar.high, scale_end) * scale)
    parts.append(f'<text x="{edge + 6:.1f}" y="{top + 13}">{escape(shown)}</text>')
    return parts
