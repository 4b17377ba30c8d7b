"""Drawings say what the networks are."""

import re

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trecx.errors import TrecxError
from trecx.models.build import build, tap_shapes
from trecx.models.cost import measure
from trecx.report.diagram import draw_exit_block, draw_network
from trecx.tasks import TASKS

NESTED = [("kws", None), ("ic", (0.5, 0.75)), ("vww", None), ("kws", (0.25, 0.5, 0.75))]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize(("task", "narrow"), NESTED)
def test_the_channels_that_the_steps_add_make_up_the_backbone(task: str, narrow: tuple[float, ...] | None) -> None:
    network, shape = build(task, "nested", narrow=narrow), TASKS[task].input_shape
    drawn = texts(draw_network(network, shape))
    cells = [re.fullmatch(r"(?:\+ )?(\d+)×(\d+)×(\d+)", text) for text in drawn]
    maps = [tuple(map(int, found.groups())) for found in cells if found]
    height = len(maps) // network.num_exits
    rows = list(zip(*(maps[k : k + height] for k in range(0, len(maps), height)), strict=True))
    whole = [(sum(channels for channels, _, _ in row), *row[0][1:]) for row in rows]
    plain = tap_shapes(build(task, "baseline").backbone, shape)
    last = list(plain.values())[-1]
    assert whole[:-1] == (list(dict.fromkeys(plain.values())) if len(plain) > 6 else list(plain.values()))
    assert whole[-1] == (last[0], 1, 1)  # pooled
    named = " ".join(drawn)
    assert all(name in named for name in list(plain)[:1] + list(plain)[-1:])


def test_a_nested_network_is_drawn_with_the_cost_of_each_step() -> None:
    network = build("kws", "nested", narrow=(0.25, 0.5))
    drawn = texts(draw_network(network, (1, 49, 10)))
    flops = [value / 1e6 for value in measure(network, (1, 49, 10)).flops]
    assert [text for text in drawn if "MFLOPs" in text] == [f"{value:.2f} MFLOPs" for value in flops]
    assert [text for text in drawn if text.startswith("dense")] == [f"dense {k} → 12" for k in (16, 32, 64)]
    assert [text for text in drawn if "exit" in text] == ["exit 1", "exit 2", "final exit"]


@pytest.mark.parametrize(("task", "narrow"), NESTED)
def test_no_text_leaves_the_sheet_of_a_nested_network(task: str, narrow: tuple[float, ...] | None) -> None:
    figure = draw_network(build(task, "nested", narrow=narrow), TASKS[task].input_shape)
    renderer = FigureCanvasAgg(figure).get_renderer()
    for text in figure.axes[0].texts:
        box = text.get_window_extent(renderer)
        assert figure.bbox.x0 <= box.x0, text.get_text()
        assert box.x1 <= figure.bbox.x1, text.get_text()


def test_two_resolutions_are_drawn_with_the_maps_of_both() -> None:
    drawn = texts(draw_network(build("vww", "two_resolutions"), (3, 96, 96)))
    maps = [text for text in drawn if re.fullmatch(r"\d+×\d+×\d+", text)]
    half = len(maps) // 2
    small, full = ([text.split("×") for text in column] for column in (maps[:half], maps[half:]))
    assert (small[0], full[0]) == (["3", "64", "64"], ["3", "96", "96"])
    assert (small[-1], full[-1]) == (["256", "1", "1"],) * 2
    for a, b in zip(small[:-1], full[:-1], strict=True):
        assert a[0] == b[0]
        assert int(a[1]) == pytest.approx(2 / 3 * int(b[1]), abs=0.5)


def test_a_nested_network_has_no_exit_block() -> None:
    with pytest.raises(TrecxError, match="has no exit block: use draw_network"):
        draw_exit_block(build("kws", "nested"), (1, 49, 10))
