"""Draw figures with matplotlib: SVG in the page's CSS colors, and PNG for slides."""

import io
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmft.report.best_step import BestStep
from llmft.report.curves import Series, perplexity, smoothed, thinned
from llmft.utils.files import atomic_open

# On the page, placeholder colors are replaced by CSS variables, so that a figure is readable in light and dark mode.
ROLES: tuple[str, ...] = ("ink", "muted", "grid", "first", "second", "third")
ON_PAGE = {role: f"#0a0b{10 + i:02d}" for i, role in enumerate(ROLES)}
ON_SLIDE: dict[str, str] = dict(
    zip(ROLES, ("#1b1f24", "#59636e", "#d1d9e0", "#0b63ce", "#c2410c", "#6e7781"), strict=True)
)
SIZE = (5.2, 3.1)  # inches; 374 points wide, the width of a phone's screen
FLAT = (5.2, 2.3)
Draw = Callable[[Any, Mapping[str, str]], None]


class Figure:
    """A figure.

    Args:
        name: File name without suffix.
        title: Caption.
        alt: Text alternative for screen readers.
        draw: Draws onto matplotlib axes with the given colors.
        size: Width and height in inches.
    """

    def __init__(self, name: str, title: str, alt: str, draw: Draw, size: tuple[float, float] = SIZE) -> None:
        self.name, self.title, self.alt, self.draw, self.size = name, title, alt, draw, size

    def svg(self) -> str:
        """SVG without scripts, sized by its viewBox, with text as text elements."""
        out = io.StringIO()
        self._save(out, ON_PAGE, transparent=True, format="svg", metadata={"Date": None, "Creator": None})
        text = out.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(
            r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
        )
        for role, color in ON_PAGE.items():
            text = text.replace(color, f"var(--{role})")
        return re.sub(r"<svg ", '<svg aria-hidden="true" focusable="false" ', text, count=1)

    def png(self, file: Path) -> None:
        """Write a PNG at 300 dpi (1,560 pixels wide by default) on white."""
        with atomic_open(file, "wb") as out:
            self._save(out, ON_SLIDE, transparent=False, format="png", dpi=300)

    def _save(self, to: Any, colors: Mapping[str, str], *, transparent: bool, **options: Any) -> None:
        import matplotlib as mpl
        from matplotlib.figure import Figure as Canvas

        with mpl.rc_context(rc_params(colors, self.name)), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that this font lacks
            canvas = Canvas(figsize=self.size, layout="constrained")
            canvas.patch.set_alpha(0 if transparent else 1)
            self.draw_on(canvas.subplots(), colors)
            canvas.savefig(to, **options)

    def draw_on(self, axes: Any, colors: Mapping[str, str]) -> None:
        """Draw onto matplotlib axes, with the grid; the caller sets ``rc_params``."""
        axes.patch.set_alpha(0)
        axes.grid(visible=True, linewidth=0.6)
        axes.set_axisbelow(True)
        self.draw(axes, colors)


def rc_params(colors: Mapping[str, str], name: str) -> dict[Any, Any]:
    """Settings of matplotlib for a figure of this name."""
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": ["DejaVu Sans"],
        "font.size": 10.5,
        "text.parse_math": False,  # a name may hold $
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": colors["grid"],
        "axes.labelcolor": colors["muted"],
        "xtick.color": colors["muted"],
        "ytick.color": colors["muted"],
        "text.color": colors["ink"],
        "grid.color": colors["grid"],
        "legend.frameon": False,
    }


def curves(found: Mapping[str, Series], published: Mapping[str, Series], best: BestStep | None = None) -> list[Figure]:
    """Loss, perplexity, learning rate, gradient norm and throughput, if logged.

    Training curves are drawn raw (thin) and smoothed, published curves dashed; the best step of the validation is marked.
    """
    plans = [
        ("loss", "Loss (nats per token)", ("train/loss", "val/loss"), False),
        ("perplexity", "Perplexity (exp of the loss)", ("train/perplexity", "val/perplexity"), True),
        ("lr", "Learning rate", ("train/lr",), False),
        ("grad_norm", "Gradient norm before clipping", ("train/grad_norm",), False),
        ("throughput", "Supervised tokens per second", ("train/tokens_per_second",), False),
    ]
    figures = []
    for name, title, columns, log_scale in plans:
        extra = [column for column in found if re.fullmatch(rf"val/.+/{name}", column)]  # data.extra_val
        shown = {column: found[column] for column in (*columns, *extra) if column in found}
        dashed = {f"published {column}": published[column] for column in columns if column in published}
        if shown:
            mark = best if "val/loss" in columns or "val/perplexity" in columns else None
            alt = _described(title, shown) + (f"; {mark.sentence}" if mark else "")
            average = {column: line for column in shown if (line := _average(found, column))}
            draw = _lines(shown, average, dashed, best=mark, log_scale=log_scale)
            figures.append(Figure(name, title, alt, draw, SIZE if name == "loss" else FLAT))
    return figures


def _average(found: Mapping[str, Series], column: str) -> Series | None:
    """The smoothed curve of a training metric; of the perplexity, exp of the smoothed loss."""
    if not column.startswith("train/") or column == "train/lr":
        return None
    if column == "train/perplexity":
        loss = smoothed(found["train/loss"]) if "train/loss" in found else None
        return loss and loss._replace(values=[perplexity(value) for value in loss.values])
    return smoothed(found[column])


def _lines(
    shown: Mapping[str, Series],
    average: Mapping[str, Series],
    dashed: Mapping[str, Series],
    *,
    best: BestStep | None,
    log_scale: bool,
) -> Draw:
    def draw(axes: Any, colors: Mapping[str, str]) -> None:
        from matplotlib.ticker import MaxNLocator

        markers = iter("s^Dv*")
        for name, series in shown.items():
            validated, further = name.startswith("val/"), name.count("/") > 1
            color = "third" if further else "second" if validated else "first"
            style = {"color": colors[color], "linewidth": 1.6, "label": name}
            marker = next(markers, "x") if further else "o"
            style |= {"marker": marker, "markersize": 5} if validated or len(series.steps) < 3 else {}
            if name in average:
                line = thinned(average[name])
                axes.plot(line.steps, line.values, **style | {"label": f"{name}, smoothed (thin: raw)"})
                style |= {"linewidth": 0.8, "alpha": 0.45, "label": None}
            raw = thinned(series)
            axes.plot(raw.steps, raw.values, **style)
        for name, series in dashed.items():
            color = colors["second" if "val/" in name else "first"]
            axes.plot(series.steps, series.values, label=name, color=color, linewidth=1.2, linestyle="--", alpha=0.7)
        if log_scale and min(min(s.values) for s in shown.values()) > 0:
            to_log_scale(axes, _ratio(shown))
        if best:
            label = f"best {best.metric}: step {best.step}"
            axes.axvline(best.step, color=colors["muted"], linewidth=1.2, linestyle=":", label=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("optimizer step")
        if len(shown) + len(dashed) + bool(best) > 1:
            axes.legend(fontsize=9.5)

    return draw


def to_log_scale(axes: Any, ratio: float) -> None:
    """A logarithmic axis whose labels neither overlap (100, 200, ... 900) nor are missing (110 to 190).

    Args:
        axes: To be scaled.
        ratio: Of the largest value to the smallest.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, ScalarFormatter

    axes.set_yscale("log")
    if ratio < 100:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if ratio > 4 else MaxNLocator(5))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _ratio(shown: Mapping[str, Series]) -> float:
    values = [value for series in shown.values() for value in series.values]
    return max(values) / min(values)


def _described(title: str, shown: Mapping[str, Series]) -> str:
    ranges = [f"{name} from {series.values[0]:.4g} to {series.values[-1]:.4g}" for name, series in shown.items()]
    return f"{title} over optimizer steps: {'; '.join(ranges)}"


def lengths(histogram: Mapping[str, Any]) -> Figure:
    """Histogram of prompt and answer lengths.

    Args:
        histogram: ``edges`` in tokens, [bins + 1], and counts of rows for ``prompt`` and ``answer``, [bins].
    """
    edges, width = histogram["edges"], histogram["edges"][1] - histogram["edges"][0]

    def draw(axes: Any, colors: Mapping[str, str]) -> None:
        for shift, (name, color) in enumerate((("prompt", "first"), ("answer", "second"))):
            places = [edge + (0.05 + 0.45 * shift) * width for edge in edges[:-1]]
            axes.bar(places, histogram[name], width=0.45 * width, align="edge", color=colors[color], label=f"{name}s")
        axes.set_xlabel("tokens")
        axes.set_ylabel("rows")
        axes.legend(fontsize=9.5)

    alt = f"Lengths of prompts and answers in tokens, up to {edges[-1]:.0f}"
    return Figure("lengths", "Lengths of prompts and answers", alt, draw)


def differences(scores: Mapping[str, Any]) -> Figure | None:
    """Difference (tuned minus base) of each score in per cent, with its interval; None if there are no intervals."""
    shown = {
        n: e for n, e in scores.items() if e.get("difference_interval") and n not in ("loss", "perplexity", "words")
    }
    if not shown:
        return None

    def draw(axes: Any, colors: Mapping[str, str]) -> None:
        names = list(shown)[::-1]
        for y, name in enumerate(names):
            low, high = shown[name]["difference_interval"]
            color = colors[{"better": "first", "worse": "second"}.get(shown[name]["verdict"], "third")]
            axes.plot([low, high], [y, y], color=color, linewidth=2.4, solid_capstyle="round")
            axes.plot([shown[name]["difference"]], [y], marker="o", markersize=6, color=color)
        axes.axvline(0, color=colors["muted"], linewidth=1)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("tuned - base, points; 95 % interval")
        axes.grid(visible=False, axis="y")

    values = "; ".join(f"{n} {e['difference']:+.1f} ({e['verdict']})" for n, e in shown.items())
    size = (SIZE[0], 1.0 + 0.42 * len(shown))
    return Figure("differences", "Tuned against base", f"Differences of scores: {values}", draw, size)
