"""Studies of a test lie in its own directory."""

from pathlib import Path

import pytest

from benchmarks import overview, results_page, study, study_plan, study_records


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own for studies, runs, records and the page."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "docs" / "results").mkdir(parents=True)
    monkeypatch.setattr(study_plan, "STUDIES", tmp_path / "studies")
    (tmp_path / "overview.yaml").write_text("{title: All, text: '', reference: VAE, methods: {}, panels: {}}\n")
    monkeypatch.setattr(overview, "OVERVIEW", tmp_path / "overview.yaml")
    for module in (study_records, results_page):
        monkeypatch.setattr(module, "RECORDS", tmp_path / "docs" / "results")
    monkeypatch.setattr(results_page, "PAGE", tmp_path / "docs" / "results.md")
    monkeypatch.setattr(study, "HOME", tmp_path / "runs")
    return tmp_path
