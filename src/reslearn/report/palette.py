"""Colors and marks of the series, for the page (light and dark) and for the PNG.

Eight colors in the spirit of Okabe and Ito (told apart with the common color blindnesses), darkened for white paper and
lightened for dark; each keeps a contrast of at least 3 to its ground. Every color comes with a marker of its own, and the
kinds of error differ by weight and dash, so that no reader depends on color.
"""

from __future__ import annotations

LIGHT_GROUND = "#fdfcfa"
DARK_GROUND = "#14171c"

LIGHT = ("#0068a8", "#c84e00", "#00805f", "#a23b86", "#8a6a00", "#3f8fc4", "#5c5c5c", "#8a2f2f")
DARK = ("#5cb0f2", "#ff9350", "#3ecb9c", "#e88fd0", "#dcbc4c", "#a6d8f7", "#b8bcc2", "#f08a8a")

# Marker shapes around (0, 0) as SVG paths, and matplotlib's name for the same shape.
MARKS = (
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


def mark_of(group: int) -> tuple[str, str, str]:
    """The marker of the group with this number; together with its color no other of the first 64 groups has it."""
    return MARKS[(group + group // NUM_COLORS) % len(MARKS)]


def contrast(one: str, other: str) -> float:
    """WCAG contrast of two "#rrggbb" colors, 1..21."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    channels = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
