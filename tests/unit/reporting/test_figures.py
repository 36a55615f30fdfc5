"""Figures: what they show, and that their bytes are reproducible."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from matplotlib.figure import Figure as Drawing
from PIL import Image

from robustviews.reporting import figures, results
from robustviews.reporting.figures.style import BARS, COLOURS
from robustviews.reporting.tables import row_values
from robustviews.study.schema import Figure
from robustviews.tasks.protocol import VOID
from tests.unit.results_tree import COLUMNS, ROWS, small_study


def points(axis):
    """Return (x, y) of every marker: filled ones are ours, white ones published."""
    ours, published = set(), set()
    for line in axis.lines:
        if line.get_marker() in ("", "x", "None", None) or line.get_linestyle() == ":":
            continue
        place = (round(line.get_xdata()[0], 2), round(line.get_ydata()[0], 2))
        (published if line.get_markerfacecolor() == "white" else ours).add(place)
    return ours, published


def texts(axis):
    return [text.get_text() for text in axis.texts]


def figure_of(kind):
    if kind != "factor":
        return Figure("A title", COLUMNS, ROWS, kind=kind)
    leveled = zip(ROWS.items(), (100.0, 200.0, 100.0), ("a", "a", "b"), strict=False)
    rows = {
        name: dataclasses.replace(row, level=level, group=group)
        for (name, row), level, group in leveled
    }
    return Figure("A title", ("digits/pgd20/retained",), rows, kind=kind)


@pytest.mark.parametrize("kind", figures.FIGURES)
def test_every_kind_is_drawn_to_the_same_bytes_each_time(kind, study, frame):
    figure = figure_of(kind)
    first, second = (figures.draw(study, figure, frame) for _ in range(2))
    assert figures.to_svg(first) == figures.to_svg(second)
    assert figures.to_png(first) == figures.to_png(second)
    assert b"<dc:date>" not in figures.to_svg(first)


def test_the_last_bit_of_a_position_changes_no_byte_of_a_drawing():
    drawings = [Drawing(), Drawing()]
    for drawing, left in zip(drawings, (0.1, np.nextafter(0.1, 1)), strict=True):
        axis = drawing.add_axes((left, 0.1, 0.8, 0.8))
        axis.plot([0, 1], marker="o")
        axis.bar([0, 1], [1, 2], hatch="/")
    first, second = map(figures.to_svg, drawings)
    assert first == second


@pytest.mark.parametrize("kind", figures.FIGURES)
def test_every_kind_can_be_drawn_before_anything_has_run(kind, study):
    drawing = figures.draw(study, figure_of(kind), [])
    assert figures.to_png(drawing)


def test_a_factor_is_drawn_over_log2_of_its_level_one_line_per_group(study, frame):
    (axis,) = figures.draw(study, figure_of("factor"), frame).axes
    values = row_values(study, figure_of("factor"), frame)
    lines = [line for line in axis.lines if line.get_linestyle() == "-"]
    first, second, third = (100 * row.cells[0].ours for row in values[:3])
    assert lines[0].get_xydata().tolist() == [[np.log2(100), first], [np.log2(200), second]]
    assert lines[1].get_xydata().tolist() == [[np.log2(100), third]]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["100", "200"]


def test_bars_have_the_length_of_the_accuracies_and_the_ends_of_their_intervals(study, frame):
    (axis,) = figures.draw(study, study.figures["bars"], frame).axes
    lengths = [patch.get_width() for patch in axis.patches]
    means = []
    for eps in (0, 4, 8):
        for entry in ("emp-free3", "simclr-pgd5", "supervised-free3"):
            rows = [
                row["accuracy"]
                for row in frame
                if (row["entry"], row["attack"], row["eps"]) == (entry, "pgd20", eps)
            ]
            means.append(100 * sum(rows) / len(rows))
    assert lengths == pytest.approx(means)
    errors = [collection.get_segments()[0] for collection in axis.collections]
    clean = row_values(study, study.figures["bars"], frame)[1].cells[0]
    assert sorted(errors[1][:, 0]) == pytest.approx([100 * clean.low, 100 * clean.high])


def test_bars_show_published_values_hollow_and_leave_out_unavailable_ones(study, frame):
    (axis,) = figures.draw(study, study.figures["bars"], frame).axes
    _, published = points(axis)
    assert sorted(x for x, _ in published) == [47.98, 55.97, 72.86, 75.88]


def test_bars_mark_what_was_not_run(study, frame):
    partial = [row for row in frame if row["entry"] != "simclr-pgd5"]
    (axis,) = figures.draw(study, study.figures["bars"], partial).axes
    assert texts(axis).count("not run") == 3
    assert len(axis.patches) == 6


def test_bars_have_a_panel_per_data_set_and_a_label_per_row(study, frame):
    drawing = figures.draw(study, study.figures["bars"], frame)
    assert [axis.get_title(loc="left") for axis in drawing.axes] == ["digits"]
    labels = [label.get_text() for label in drawing.axes[0].get_yticklabels()]
    assert labels == ["CF-AMC-SSL", "SimCLR | PGD_5", "supervised-free3"]


def test_a_figure_of_radii_has_a_line_per_row_from_clean_accuracy_and_a_band(study, frame):
    columns = ("digits/pgd20/8", "digits/clean", "digits/pgd20/4")
    figure = Figure("T", columns, ROWS, kind="radius")
    drawing = figures.draw(study, figure, frame)
    (axis,) = drawing.axes
    bounds = []
    for _ in range(2):
        drawing.draw_without_rendering()
        bounds.append(axis.get_position().bounds)
    assert bounds[0] == bounds[1], "a line without points takes no room"
    row = row_values(study, figure, frame)[1]
    by_radius = [row.cells[1], row.cells[2], row.cells[0]]
    lines = [line for line in axis.lines if line.get_linestyle() == "-"]
    assert len(lines) == len(axis.collections) == len(ROWS)
    assert list(lines[1].get_xdata()) == [0, 4, 8]
    assert list(lines[1].get_ydata()) == pytest.approx([100 * cell.ours for cell in by_radius])
    band = axis.collections[1].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(100 * min(cell.low for cell in by_radius))
    assert band[:, 1].max() == pytest.approx(100 * max(cell.high for cell in by_radius))
    published = [line for line in axis.lines if line.get_linestyle() == ":"]
    assert list(published[0].get_xdata()) == [0, 8]
    assert [tuple(line.get_ydata()) for line in published] == [(55.97, 75.88), (47.98, 72.86), ()]
    assert axis.get_xscale() == "symlog"
    assert axis.get_xlabel() == "radius (1/255)"
    assert axis.get_ylabel() == "accuracy (%)"
    dense = [dict(result, metric="mIoU") for result in frame]
    assert figures.draw(study, figure, dense).axes[0].get_ylabel() == "mIoU (%)"
    with pytest.raises(ValueError, match="at two radii"):
        figures.draw(study, Figure("T", columns[:1], ROWS, kind="radius"), frame)


def test_rows_with_the_same_label_are_distinguished_by_their_probe(study, frame):
    rows = {name: dataclasses.replace(row, label="same") for name, row in ROWS.items()}
    drawing = figures.draw(study, Figure("T", COLUMNS, rows), frame)
    labels = [label.get_text() for label in drawing.axes[0].get_yticklabels()]
    assert labels == ["same (rle)", "same (rle)", "same (own)"]


def test_tradeoff_puts_clean_accuracy_on_x_and_robust_on_y(study, frame):
    first, second = figures.draw(study, study.figures["tradeoff"], frame).axes
    assert first.get_title(loc="left") == "digits, pgd20 4/255"
    own = {row["eps"]: row["accuracy"] for row in frame if row["entry"] == "supervised-free3"}
    ours, published = points(first)
    assert (round(100 * own[0], 2), round(100 * own[4], 2)) in ours
    assert published == {(75.88, 55.97), (72.86, 47.98)}
    assert points(second)[1] == set()


def test_cost_puts_minutes_on_a_logarithmic_x(study, frame):
    axis = figures.draw(study, study.figures["cost"], frame).axes[0]
    assert axis.get_xscale() == "log"
    ours, published = points(axis)
    assert {x for x, _ in ours} == {3.1, 6.0, 2.0}
    assert published == {(97, 55.97), (934, 47.98)}


def test_a_figure_without_a_needed_column_is_refused_with_its_name(study, frame):
    figure = Figure("T", ("digits/pgd20/8",), {"a": next(iter(ROWS.values()))}, kind="tradeoff")
    figure = dataclasses.replace(figure, rows={"a": dataclasses.replace(ROWS["pgd"], published=())})
    with pytest.raises(ValueError, match="needs the columns digits/clean and digits/<attack>"):
        figures.draw(study, figure, frame)


def struck(frame):
    return [
        {**row, "sanity": "AS9"} if row["entry"] == "simclr-pgd5" and row["eps"] else row
        for row in frame
    ]


def test_a_number_whose_attack_is_not_established_is_a_hollow_crossed_out_marker(study, frame):
    before = figures.draw(study, study.figures["tradeoff"], frame)
    after = figures.draw(study, study.figures["tradeoff"], struck(frame))
    (ours, published), (left, hollow) = points(before.axes[1]), points(after.axes[1])
    (moved,) = ours - left
    assert hollow - published == {moved}
    crosses = [line for line in after.axes[1].lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == pytest.approx([moved[0]], abs=0.01)
    labels = [text.get_text() for text in after.legends[0].get_texts()]
    assert "attack not established" in labels
    assert not any(line.get_marker() == "x" for line in before.axes[1].lines)


def test_a_bar_whose_attack_is_not_established_is_hollow_without_interval(study, frame):
    (before,) = figures.draw(study, study.figures["bars"], frame).axes
    (after,) = figures.draw(study, study.figures["bars"], struck(frame)).axes
    faces = [patch.get_facecolor() for patch in after.patches]
    assert faces.count((1.0, 1.0, 1.0, 1.0)) == 2
    assert len(before.collections) - len(after.collections) == 2


def test_a_demonstration_says_so_on_the_figure(frame):
    study = small_study(demonstration="Demonstration only.")
    drawing = figures.draw(study, study.figures["bars"], frame)
    assert drawing.get_supxlabel() == "Demonstration only."


def test_training_curves_have_a_panel_per_method_and_a_line_per_run_and_seed(study, tree):
    curves = results.histories(study, tree)
    drawing = figures.training_curves(study, curves)
    panels = {axis.get_title(loc="left"): axis for axis in drawing.axes if axis.get_visible()}
    assert list(panels) == ["emp_ssl", "simclr", "supervised"]
    assert [len(axis.lines) for axis in panels.values()] == [3, 1, 1]
    line = panels["simclr"].lines[0]
    assert list(line.get_ydata()) == [row["loss"] for row in curves["simclr-pgd5-digits-s0"]]
    seeds = panels["emp_ssl"].lines
    assert len({line.get_linestyle() for line in seeds}) == 3
    assert len({line.get_color() for line in seeds}) == 1
    labels = [text.get_text() for text in panels["emp_ssl"].get_legend().get_texts()]
    assert labels == ["CF-AMC-SSL"], "one entry per run"
    assert figures.to_svg(drawing) == figures.to_svg(figures.training_curves(study, curves))


def test_training_curves_without_trainings_are_an_empty_drawing(study):
    assert figures.to_svg(figures.training_curves(study, {}))


def test_example_views_show_the_perturbation_amplified_on_grey():
    images = np.full((2, 3, 4, 4), 0.5)
    views = np.stack([images, images])
    perturbed = views.copy()
    perturbed[0, 0, :, 0, 0] += 8 / 255
    drawing = figures.example_views(images, views, perturbed, labels=["cat", "dog"])
    shown = [np.asarray(axis.images[0].get_array()) for axis in _axes(drawing) if axis.images]
    assert len(shown) == 2 * (1 + 3 * 2)
    amplified = shown[5]
    assert amplified[0, 0] == pytest.approx([1.0, 1.0, 1.0])
    assert amplified[1, 1] == pytest.approx([0.5, 0.5, 0.5])
    assert Image.open(io.BytesIO(figures.to_png(drawing))).width > 100


def test_at_most_the_first_six_views_are_drawn():
    views = np.random.default_rng(0).random((16, 1, 3, 4, 4))
    drawing = figures.example_views(views[0], views, views)
    shown = [axis.images[0].get_array() for axis in _axes(drawing) if axis.images]
    assert len(shown) == 1 + 3 * 6


def test_adversarial_images_have_a_line_per_classifier_and_mark_wrong_predictions():
    clean, adversarial = np.full((3, 4, 4), 0.5), np.full((3, 4, 4), 0.5)
    adversarial[:, 0, 0] += 4 / 255
    fooled = figures.Attacked(3, (clean, adversarial), ((3, 0.9), (5, 0.6)))
    held = figures.Attacked(7, (clean, clean), ((7, 0.8), (7, 0.7)))
    drawing = figures.adversarial_images({"one": [fooled, held], "two": [held, held]}, title="PGD")
    axes = drawing.axes
    assert len(axes) == 2 * 2 * 3
    titles = [axis.get_title() for axis in axes[:6]]
    assert titles == ["3: 90%", "\N{BALLOT X} 5: 60%", "", "7: 80%", "7: 70%", ""]
    added = np.asarray(axes[2].images[0].get_array())
    assert added[0, 0] == pytest.approx([0.5 + 10 * 4 / 255] * 3)
    assert added[1, 1] == pytest.approx([0.5] * 3)
    assert [axis.get_ylabel() for axis in axes[::6]] == ["one", "two"]


def test_dense_images_give_each_class_a_colour_and_cut_the_padding():
    classes = 11
    image, mask = np.zeros((3, 8, 12)), np.full((8, 12), VOID, np.uint8)
    image[:, :6], mask[:6, :classes] = 0.5, np.arange(classes)
    shown = figures.Shown((image, image), mask, (mask, mask))
    names = [f"class {number}" for number in range(classes)]
    drawing = figures.dense_images({"one": [shown]}, names, title="PGD")
    labelled = drawing.axes[0]
    pixels = np.asarray(labelled.images[0].get_array())[0]
    assert len(np.unique(pixels.round(3), axis=0)) == classes + 1, "each class, and void"
    assert labelled.get_ylim() == (5.5, -0.5)
    entries = drawing.legends[0].get_patches()
    assert [entry.get_label() for entry in entries] == [*names, "void"]
    for place, entry in enumerate(entries):
        drawn = 0.4 * 0.5 + 0.6 * np.array(entry.get_facecolor()[:3])
        assert pixels[place] == pytest.approx(drawn), entry.get_label()


def test_boxes_have_the_colours_of_the_classes_that_occur():
    boxes = np.array([[1, 1, 3, 3, 19], [2, 2, 4, 4, 7]], np.float32)
    found = np.insert(boxes[:1], 4, 0.9, axis=1)  # with a score
    shown = figures.Shown((np.ones((3, 8, 8)),) * 2, boxes, (found, found[:0]))
    drawing = figures.dense_images({"one": [shown]}, list(map(str, range(20))), title="PGD")
    legend = {
        patch.get_label(): patch.get_facecolor() for patch in drawing.legends[0].get_patches()
    }
    assert list(legend) == ["7", "19"]
    drawn = [[patch.get_edgecolor() for patch in axis.patches] for axis in drawing.axes]
    assert drawn == [[legend["19"], legend["7"]], [legend["19"]], [], []]


def test_example_views_without_a_perturbation_are_grey():
    images = np.zeros((1, 3, 4, 4))
    drawing = figures.example_views(images, images[None], images[None])
    last = np.asarray(_axes(drawing)[-1].images[0].get_array())
    assert last[0, 0] == pytest.approx([0.5, 0.5, 0.5])


def test_bars_differ_in_hatch_wherever_their_grey_is_close():
    def grey(colour):
        red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    for number, (colour, hatch) in enumerate(BARS):
        for other, pattern in BARS[:number]:
            assert hatch != pattern or abs(grey(colour) - grey(other)) > 0.3
    assert len(set(COLOURS)) == len(COLOURS)


def _axes(drawing):
    return [axis for block in drawing.subfigs for axis in block.axes]
