"""Pictures of insights: small, readable on light and on dark ground, for colour-blind people too."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours (2008) keep apart for every kind of colour vision; grey text reads on both grounds.
BLUE, ORANGE, GREEN, INK = "#0072B2", "#E69F00", "#009E73", "#767676"
INCHES = (8.0, 4.2)
DOTS_PER_INCH = 80


def new_figure(*, panels: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with *panels* beside each other, and their axes."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second that few processes need

    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    axes = [figure.add_subplot(1, panels, place + 1) for place in range(panels)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=INK, labelsize=8)
        axis.grid(axis="y", color=INK, alpha=0.25, linewidth=0.6)
        for spine in axis.spines.values():
            spine.set_color(INK)
    return figure, axes


def label(axis: Axes, title: str, *, y: str, x: str = "") -> None:
    """Give an axis its words."""
    axis.set_title(title, fontsize=10, loc="left", color=INK)
    axis.set_ylabel(y, fontsize=8, color=INK)
    axis.set_xlabel(x, fontsize=8, color=INK)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, frameon=False, labelcolor=INK)


def say_empty(axis: Axes) -> None:
    """Say that there is nothing to show yet."""
    axis.text(0.5, 0.5, "nothing yet", transform=axis.transAxes, ha="center", color=INK)


def week_of(moments: pd.Series[pd.Timestamp]) -> pd.Series[pd.Timestamp]:
    """Return the Monday, in UTC, of the week of each instant."""
    return moments.dt.tz_localize(None).dt.to_period("W").dt.start_time


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG without a ground of its own."""
    file = io.BytesIO()
    figure.savefig(file, format="png", transparent=True)
    return file.getvalue()
