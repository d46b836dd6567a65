"""Colors and markers of series, for the page (light and dark) and for PNG files.

The eight colors follow Okabe and Ito, who chose colors that remain distinct under common color
blindness. They are darker for light pages and lighter for dark pages. Each color has a contrast of
at least 3 to its background. Each color also has its own marker, and training and test error
differ by line weight and dashes, so that no reader depends on color.
"""

from __future__ import annotations

LIGHT_GROUND = "#fdfcfa"
DARK_GROUND = "#14171c"

LIGHT = ("#0068a8", "#c84e00", "#00805f", "#a23b86", "#8a6a00", "#3f8fc4", "#5c5c5c", "#8a2f2f")
DARK = ("#5cb0f2", "#ff9350", "#3ecb9c", "#e88fd0", "#dcbc4c", "#a6d8f7", "#b8bcc2", "#f08a8a")

INK = "#22262b"
"""Color of text and axes in PNG files."""
GRID = "#e4e2dc"
"""Color of grid lines and of shaded margins in PNG files."""

# Marker shapes around (0, 0): name, SVG path, and matplotlib's name for the same shape.
MARKERS = (
    ("circle", "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0z", "o"),
    ("square", "M-3.1 -3.1h6.2v6.2h-6.2z", "s"),
    ("triangle", "M0 -4.2L4 3H-4z", "^"),
    ("diamond", "M0 -4.4L4.4 0L0 4.4L-4.4 0z", "D"),
    ("down", "M0 4.2L4 -3H-4z", "v"),
    ("plus", "M-1.2 -4h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8v-2.4h2.8z", "P"),
    ("bar", "M-1.6 -4.2h3.2v8.4h-3.2z", "|"),
    ("wide", "M-4.2 -1.6h8.4v3.2h-8.4z", "_"),
)

NUM_COLORS = len(LIGHT)


def marker_of(group: int) -> tuple[str, str, str]:
    """Return the marker of a group, given its index.

    The pair of color and marker is unique among the first 64 groups.
    """
    return MARKERS[(group + group // NUM_COLORS) % len(MARKERS)]


def contrast(first: str, second: str) -> float:
    """Return the WCAG contrast of two "#rrggbb" colors, from 1 to 21."""
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    red, green, blue = (_linear_channel(color[start : start + 2]) for start in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear_channel(hexadecimal: str) -> float:
    value = int(hexadecimal, 16) / 255
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
