"""The figure over all studies: what is held against what, and who is called first."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from benchmarks import overview, study_plan, study_records
from benchmarks.overview import Overview, first, gains
from benchmarks.study_plan import Unit
from tests.benchmarks.studies import GRID, record

TINY = Overview("All", "", "VAE", {"IWAE": ["IWAE-2", "IWAE-3"], "chain": ["HMC"]}, {})


def test_a_method_is_held_against_the_reference_of_its_seed_and_setting() -> None:
    records = [
        record(Unit(setting, "VAE", seed), nats, row=row)
        for setting, row, seed, nats in [
            ("wide", "VAE", 0, -5.0),
            ("wide", "VAE", 1, -7.0),
            ("wide", "IWAE-3", 0, -4.0),
            ("wide", "IWAE-3", 1, -6.5),
            ("wide", "HMC", 1, -7.25),
            ("wide", "HMC", 2, -1.0),  # of a seed that the reference has not
            ("narrow", "HMC", 0, -1.0),
            ("wide", "other", 0, -1.0),
        ]
    ]
    assert gains(TINY, "wide", records) == {"VAE": {0: 0.0, 1: 0.0}, "IWAE": {0: 1.0, 1: 0.5}, "chain": {1: -0.25}}
    assert gains(TINY, "narrow", records) == {}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"VAE": {0: 0.0}, "IWAE": {0: 2.0}, "chain": {0: 1.0}}, "IWAE: +2.0"),
        ({"VAE": {0: 0.0}, "IWAE": {0: 1.95}, "chain": {0: 2.0}}, "chain, IWAE: +2.0"),
        ({"VAE": {0: 0.0}, "IWAE": {0: -2.0}, "chain": {0: -0.05}}, "VAE, chain"),
        ({"VAE": {0: 0.0}, "IWAE": {0: 0.05}, "chain": {0: -0.04}}, "all level"),
        # Level on the seed that both have, though the mean over all seeds of the one is far above.
        ({"VAE": {0: 0.0, 1: 0.0}, "IWAE": {0: 1.0, 1: 3.0}, "chain": {0: 0.95}}, "IWAE, chain: +2.0"),
        ({"VAE": {0: 0.0, 1: 0.0}, "IWAE": {0: 1.0}, "chain": {1: 0.95}}, "IWAE: +1.0"),
        ({"VAE": {0: -9.0}, "a": {0: 1.0}, "b": {0: 1.0}, "c": {0: 1.0}, "d": {0: 1.0}}, "a, b, c and 1 more: +1.0"),
    ],
)
def test_who_is_first(found: dict[str, dict[int, float]], said: str) -> None:
    assert first(TINY, found) == said


def test_the_figure_shows_what_is_measured_and_nothing_else(home: Path) -> None:
    content: dict[str, Any] = {
        "title": "All",
        "text": "",
        "reference": "VAE",
        "methods": {"IWAE": ["IWAE-2"], "chain": ["HMC"]},
        "panels": {"evaluations": {"a wide one": ["tiny", "wide"], "a narrow one": ["tiny", "narrow"]}},
    }
    OmegaConf.save(content, overview.OVERVIEW)
    plan = {
        "title": GRID.title,
        "rows": {row: list(words) for row, words in GRID.rows.items()},
        "seeds": list(GRID.seeds),
        "common": list(GRID.common),
        "grid": {setting: list(words) for setting, words in GRID.grid.items()},
        "evaluate": list(GRID.evaluate),
    }
    OmegaConf.save(plan, study_plan.STUDIES / "tiny.yaml")
    for setting, row, nats in [("wide", "VAE", -5.0), ("wide", "IWAE-2", -3.0), ("narrow", "VAE", -7.0)]:
        study_records.keep(GRID, record(Unit(setting, row, 0), nats))
    known = overview.load_overview()
    left, right = overview._figure(known, overview._measured(known)).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["a wide one"]
    assert [label.get_text() for label in right.get_yticklabels()] == ["IWAE: +2.0"]
    assert [np.asarray(line.get_xydata()).tolist() for line in left.lines[:2]] == [[[2.0, 0.0]], []]
    overview.write_overview(home / "overview.png")
    assert (home / "overview.png").stat().st_size > 5000


def test_what_the_file_of_the_repository_names_is_there() -> None:
    known = overview.load_overview()
    studies = {name: study_plan.load_study(name) for regimes in known.panels.values() for name, _ in regimes.values()}
    for regimes in known.panels.values():
        for label, (name, setting) in regimes.items():
            assert setting in studies[name].settings, label
    assert all(known.reference in one.rows for one in studies.values())
    rows = {row for one in studies.values() for row in one.rows}
    assert {row for names in known.methods.values() for row in names} <= rows
    assert len(known.methods) <= len(overview._MARKS)
