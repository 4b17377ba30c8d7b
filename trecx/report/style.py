"""The looks of the book's figures, and the set-up of a notebook."""

from typing import Any

from matplotlib.axes import Axes

from trecx.errors import TrecxError

# T-RecX, networks without an early exit, and the best of all ways that go beyond the paper.
OURS, PLAIN, BEYOND = "#0072B2", "#000000", "#A3123A"

# Colour, line and marker of each method, the same in every figure. T-RecX is blue, its controls green and purple, its
# rivals orange and ochre (after Okabe and Ito, darkened until they keep 3:1 against white). Colour-blind readers tell
# these apart; line and marker differ too, so that no figure needs colour alone.
STYLES: dict[str, dict[str, Any]] = {
    "baseline": {"color": PLAIN, "linestyle": "-", "marker": "s"},
    "baseline_mlperf": {"color": PLAIN, "linestyle": ":", "marker": "D"},
    "baseline_ee": {"color": "#767676", "linestyle": "--", "marker": "x"},
    "trecx_ev": {"color": OURS, "linestyle": "-", "marker": "o"},
    "trecx_no_ev": {"color": "#00865F", "linestyle": "--", "marker": "v"},
    "trecx_no_transfer": {"color": "#A0437D", "linestyle": "-.", "marker": "^"},
    "trecx_concat": {"color": "#6F6A00", "linestyle": ":", "marker": "P"},
    "trecx_stride_first": {"color": "#5A3E9B", "linestyle": "-", "marker": "d"},
    "branchynet": {"color": "#C44E00", "linestyle": "-", "marker": "<"},
    "branchynet_fair": {"color": "#C44E00", "linestyle": "--", "marker": "<"},
    "sdn": {"color": "#A97400", "linestyle": "-.", "marker": ">"},
    "sdn_fair": {"color": "#A97400", "linestyle": ":", "marker": ">"},
    "two_resolutions": {"color": "#A3123A", "linestyle": "--", "marker": "d"},
    "nested": {"color": "#A3123A", "linestyle": "-.", "marker": "^"},
}

# The same for the ways of answering early that are held against each other beyond the paper.
WAYS: dict[str, dict[str, Any]] = {
    "trecx": STYLES["trecx_ev"],
    "exits": {"color": "#A97400", "linestyle": "--", "marker": ">"},
    "cascade": {"color": "#C44E00", "linestyle": "-", "marker": "D"},
    "nested": STYLES["nested"],
}

COLOURS = {name: style["color"] for name, style in STYLES.items()}


def setup() -> None:
    """Set the figure style, and let a TrecxError end a notebook with its one sentence instead of a traceback."""
    import matplotlib as mpl
    from cycler import cycler

    _setup_shell()
    mpl.rcParams.update(
        {
            # 5.4 inches at 12 points: the text stays readable where a phone scales the figure down.
            "figure.figsize": (5.4, 3.6),
            "font.size": 12,
            "axes.labelsize": 12,
            "axes.titlesize": 13,
            "legend.fontsize": 10.5,
            "xtick.labelsize": 11,
            "ytick.labelsize": 11,
            # Opaque white, so that the black axes stay visible on a dark page.
            "figure.facecolor": "white",
            "axes.facecolor": "white",
            "savefig.facecolor": "white",
            "savefig.transparent": False,
            "savefig.bbox": "tight",
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#dddddd",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "lines.linewidth": 1.8,
            "lines.markersize": 5,
            "legend.frameon": False,
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": cycler(color=list(dict.fromkeys(COLOURS.values()))),
            "svg.hashsalt": "trecx",  # with no date, the same numbers give the same file
        }
    )


def _setup_shell() -> None:
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    shell = get_ipython()
    if shell is None:
        return
    shell.run_line_magic("matplotlib", "inline")  # also where MPLBACKEND asks for another backend
    set_matplotlib_formats("svg", metadata={"Date": None})
    shell.set_custom_exc((TrecxError,), _show_error)


def _show_error(shell: Any, kind: type[BaseException], value: BaseException, tb: Any, tb_offset: Any = None) -> None:
    shell._showtraceback(kind, value, [f"{kind.__name__}: {value}"])


def style(method: str) -> dict[str, Any]:
    """Keyword arguments for `ax.plot` that give a method its colour, line, marker and label everywhere.

    A variant ('trecx_concat, w = 0.3') has its method's colour and marker, the marker hollow and the line its own.
    """
    from trecx.models.methods import label_of, method_of

    name = method_of(method).name
    variant = {} if method == name else {"linestyle": (0, (6, 1, 1, 1)), "markerfacecolor": "white"}
    return {**STYLES[name], **variant, "label": label_of(method)}


def labelled(*axes: Axes) -> dict[str, Any]:
    """What a common legend of panels holds: label -> handle, each label once."""
    handles: dict[str, Any] = {}
    for ax in axes:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    return handles
