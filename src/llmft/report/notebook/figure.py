"""Loss and learning rate of a run as one matplotlib figure, which a notebook shows without pyplot."""

import io
import warnings
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from llmft.report.figures import ON_SLIDE, SIZE, rc_params
from llmft.report.html import run_curves
from llmft.runs import read
from llmft.utils.errors import UserError

SHOWN = ("loss", "lr")
DPI = 144  # of the image in a notebook, which shows it at half that size


class Plot(Figure):
    """A matplotlib figure that is also shown by a notebook where pyplot was never imported."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """PNG and its width in a notebook."""
        out = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that this font lacks
            self.savefig(out, format="png", dpi=DPI)
        return out.getvalue(), {"width": int(self.get_figwidth() * DPI / 2)}


def plot(run: Path) -> Plot:
    """Draw the curves of the report: training and validation loss with the best step, and the learning rate.

    Args:
        run: The run directory.

    Raises:
        UserError: The run has logged neither, or its files cannot be read.
    """
    _, _, drawn = run_curves(run, read.load(run))
    shown = [figure for figure in drawn if figure.name in SHOWN]
    if not shown:
        raise UserError(f"{run}: nothing to plot; metrics.csv has no loss and no learning rate")
    heights = [figure.size[1] for figure in shown]
    with mpl.rc_context(rc_params(ON_SLIDE, "curves")):
        made = Plot(figsize=(1.4 * SIZE[0], sum(heights)), layout="constrained", facecolor="white")
        axes = made.subplots(len(shown), squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for figure, ax in zip(shown, axes, strict=True):
            figure.draw_on(ax, ON_SLIDE)
            ax.set_title(figure.title, loc="left")
    return made
