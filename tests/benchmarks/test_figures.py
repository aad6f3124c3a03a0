"""Figures of docs/results.md: what is run, kept and told, and the table of modes."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import figure_plan, figures, modes, results_page, study_records
from benchmarks.figure_plan import load_figures
from tests.benchmarks.studies import is_locked
from tests.runs import metvae

SWEEP = {
    ("infer_gaussian_eight_modes", 3): {"samples/modes_found": 8, "samples/energy_distance": 0.75, "seconds": 1.0},
    ("infer_metflow", 3): {"samples/modes_found": 5, "samples/energy_distance": 1.5, "seconds": 2.0},
    ("infer_metflow", 10): None,
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(figure_plan, "FIGURES", tmp_path / "figures.yaml")
    monkeypatch.setattr(figures, "HOME", tmp_path / "work")
    for module in (figures, results_page, study_records):
        monkeypatch.setattr(module, "RECORDS", tmp_path / "results")
    monkeypatch.setattr(results_page, "PAGE", tmp_path / "results.md")
    monkeypatch.setattr(results_page, "names", list)
    return tmp_path


def describe(home: Path, *commands: str) -> None:
    one = {"title": "A picture", "text": "Of it.", "commands": list(commands), "pictures": ["a.png"]}
    (home / "figures.yaml").write_text(json.dumps({"one": one}))


def run(monkeypatch: pytest.MonkeyPatch, *names: str) -> int:
    monkeypatch.setattr(sys, "argv", ["figures", *names])
    return figures.main()


def test_pictures_are_kept_with_their_commands(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import pathlib, sys; f = pathlib.Path(sys.argv[1]); f.mkdir(parents=True); (f / 'a.png').write_text('x')"
    describe(home, f'python -c "{code}" {{folder}}')
    assert "Not made yet." in results_page.page()
    locked: list[bool] = []
    write = figures.write_page
    monkeypatch.setattr(figures, "write_page", lambda: (locked.append(is_locked(home / "results")), write()))
    assert run(monkeypatch, "one") == 0
    assert locked == [True]
    assert (home / "results" / "figure_one_a.png").read_text() == "x"
    page = (home / "results.md").read_text()
    assert "![A picture](results/figure_one_a.png)" in page
    assert "outputs/figures/one\n```" in page
    describe(home, f'python -c "{code}; 1" {{folder}}')
    assert "Not made yet." in results_page.page()  # the picture is of another command


def test_a_command_that_fails_is_named_and_keeps_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    describe(home, 'python -c "raise SystemExit(3)"', "python -c 'never'")
    assert run(monkeypatch) == 1
    assert "ended with status 3" in capsys.readouterr().out
    assert not (home / "results").exists()


def test_the_commands_are_those_of_this_environment() -> None:
    assert figures.words_of("metvae infer seed=0")[1:] == ["-m", "metvae_cli.cli", "infer", "seed=0"]
    assert figures.words_of("python -m benchmarks.modes 'a b'") == [sys.executable, "-m", "benchmarks.modes", "a b"]


@pytest.mark.parametrize("name", ["ring_posterior", "walk", "modes"])
def test_the_words_of_the_shipped_figures_compose(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (figure,) = (one for one in load_figures() if one.name == name)
    words = [word for word in figures.words_of(figure.commands[0])[3:] if word != "-m" and "," not in word]
    assert metvae(*[word for word in words if not word.startswith("hydra.")], "--cfg", "job") == 0
    capsys.readouterr()


def test_modes_of_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, ((experiment, dim), summary) in enumerate(SWEEP.items()):
        job = tmp_path / str(number)
        (job / ".hydra").mkdir(parents=True)
        (job / ".hydra" / "overrides.yaml").write_text(f"- experiment={experiment}\n- target.dim={dim}\n- seed=0\n")
        (job / "status.json").write_text("{}")
        if summary:
            (job / "summary.json").write_text(json.dumps(summary))
    monkeypatch.setattr(sys, "argv", ["modes", str(tmp_path)])
    assert modes.main() == 0
    assert (tmp_path / "modes.png").stat().st_size > 5000
    lines = list(modes.table_of_modes(json.loads((tmp_path / "modes.json").read_text())))
    assert "| Gaussian | 8; 0.75 | not measured |" in lines
    assert "| MetFlow | 5; 1.50 | failed |" in lines


def test_a_folder_without_jobs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["modes", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        modes.main()
    assert "holds no jobs" in capsys.readouterr().err
