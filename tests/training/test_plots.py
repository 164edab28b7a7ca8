"""The plots of the report: well-formed SVG that takes its colours from the page."""

import re
from xml.etree import ElementTree

import numpy as np

from tests.training.example_results import CURVE, EPOCHS
from training.export import plots

HOSTILE = ('<img src=x onerror="alert(1)"> & $x^2$', "](javascript:1) '\"> 柴犬 שיבא")


def drawn() -> dict[str, str]:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 60)
    return {
        "reliability": plots.reliability(confidence, random.random(60) < confidence),
        "classes": plots.class_bars(
            [plots.ClassRates(name, 0.8, (0.6, 0.9), 0, (0, 1)) for name in HOSTILE]
        ),
        "tuning": plots.tuning_curves(EPOCHS),
        "learning": plots.learning_curve(CURVE),
        "novelty": plots.novelty_histogram(random.gamma(9, 0.05, 80), 0.7),
        "phases": plots.phase_bars({"features": 3.0, "export": 0.0}),
    }


def test_plots_are_well_formed_take_the_colours_of_the_page_and_are_the_same_every_time() -> None:
    first = drawn()
    assert drawn() == first
    for name, svg in first.items():
        root = ElementTree.fromstring(svg)
        ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        assert len(set(ids)) == len(ids) and all(found.startswith(f"{name}-") for found in ids)
        assert not re.search(r"#[0-9a-f]{6}", svg) and "var(--" in svg and "font-family" not in svg
        assert "<text" in svg and "<metadata" not in svg and "<style" not in svg
        for reference in re.findall(r'(?:url\(|href=")#([^")]+)', svg):
            assert f'id="{reference}"' in svg


def test_class_names_in_plots_are_text_whatever_they_hold() -> None:
    texts = [
        element.text
        for element in ElementTree.fromstring(drawn()["classes"]).iter()
        if element.text
    ]
    assert all(name in texts for name in HOSTILE)


def test_one_picture_and_extreme_values_can_be_plotted() -> None:
    assert plots.reliability(np.array([1.0]), np.array([False]))
    assert plots.novelty_histogram(np.array([0.2, 5.0]), 0.21)
    assert plots.novelty_histogram(np.array([0.0]), 0.0)
    assert plots.tuning_curves(EPOCHS[:1]) and plots.phase_bars({"features": 0.0})


def test_plots_leave_the_style_of_matplotlib_as_it_was() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.phase_bars({"features": 1.0})
    assert dict(matplotlib.rcParams) == before
