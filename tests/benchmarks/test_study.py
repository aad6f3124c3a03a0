"""Studies: what is left to do of one, and what is kept of a run."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results_page, study, study_records
from benchmarks.study_plan import Study, StudyError, Unit, load_study, names
from tests.benchmarks.studies import GRID, is_locked, record
from tests.runs import TINY

WORDS = [word for word in TINY if not word.startswith("sampler.")]


def write_study(home: Path, name: str, content: dict[str, Any]) -> None:
    (home / "studies" / f"{name}.yaml").write_text(json.dumps(content))  # JSON is YAML too


@pytest.mark.parametrize("name", names())
def test_records_in_the_repository_are_of_runs_that_their_study_has(name: str) -> None:
    path = study_records.RECORDS / f"{name}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    assert len(study_records.records_of(load_study(name))) == len(kept)


@pytest.mark.slow
def test_a_study_is_trained_evaluated_kept_and_shown(home: Path) -> None:
    rows = {"VAE": ["sampler=none", "objective=elbo"]}
    content = {"title": "One run", "seeds": [3], "common": WORDS, "rows": rows, "published": {"VAE": "-1.25"}}
    write_study(home, "one", content | {"evaluate": ["estimators=[importance]", "diagnostics=[]", "data=10"]})
    assert study.main(["one"]) == 0
    (kept,) = study_records.records_of(load_study("one"))
    (run,) = (home / "runs" / "one").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    evaluation = json.loads(next(run.glob("evaluation_*/evaluation.json")).read_text())
    nats = evaluation["estimators"]["importance"]["nats"]
    assert kept["estimators"]["importance"]["nats"] == pytest.approx(nats, rel=1e-6)
    assert kept["summary"]["decoder_evaluations"] == summary["decoder_evaluations"]
    assert (kept["seed"], kept["words"]) == (3, [*rows["VAE"], *WORDS])
    assert [point[0] for point in kept["curve"]] == [summary["decoder_evaluations"] / 2, summary["decoder_evaluations"]]
    page = (home / "docs" / "results.md").read_text()
    assert page == results_page.page()
    assert f"| VAE | `sampler=none objective=elbo` | {nats:.2f} (" in page
    assert "| -1.25 |" in page
    assert (home / "docs" / "results" / "one.png").stat().st_size > 5000
    times = {path: path.stat().st_mtime_ns for path in run.rglob("*.json")}
    assert study.main(["one"]) == 0
    assert times == {path: path.stat().st_mtime_ns for path in run.rglob("*.json")}


def test_what_was_stopped_goes_on_and_what_is_finished_is_left_alone(tmp_path: Path) -> None:
    unit, folder, evaluation = Unit("wide", "VAE", 1), tmp_path / "run", tmp_path / "run" / "evaluation"

    def left() -> list[tuple[str, list[str]]]:
        return list(study.command_lines(GRID, unit, folder, evaluation))

    measure = ("evaluate", [f"run={folder}", *GRID.evaluate, f"hydra.run.dir={evaluation}"])
    anew = ("train", [*GRID.words(unit), "seed=1", f"hydra.run.dir={folder}"])
    assert left() == [anew, measure]
    folder.mkdir(parents=True)
    (folder / "status.json").write_text('{"status": "running"}')
    assert left() == [("train", [f"resume={folder}"]), measure]  # anew is refused there, whatever was saved
    (folder / "status.json").write_text('{"status": "finished"}')
    assert left() == [measure]
    evaluation.mkdir()
    (evaluation / "evaluation.json").touch()  # of the estimators that had ended
    (evaluation / "status.json").write_text('{"status": "interrupted"}')
    assert left() == [measure]
    (evaluation / "status.json").write_text('{"status": "finished"}')
    assert left() == []
    (folder / "status.json").write_text('{"status": "interrupted"}')
    assert [command for command, _ in left()] == ["train", "evaluate"]  # that evaluation is of earlier weights


def test_seeds_are_the_outer_loop_and_other_words_are_another_folder() -> None:
    units = list(GRID.units([*GRID.rows], GRID.seeds))
    assert [unit.seed for unit in units] == [0] * 4 + [1] * 4
    assert units[0] == ("wide", "VAE", 0)
    assert [unit.setting for unit in GRID.units(["VAE"], [0], ["narrow"])] == ["narrow"]
    assert GRID.words(units[0]) == ["sampler=none", "objective=elbo", "latent_dim=3", "decoder.hidden=[32]"]
    assert len({GRID.folder(unit) for unit in units}) == 8
    other = Study(**{**GRID.__dict__, "common": ("latent_dim=4",)})
    assert {GRID.folder(unit) for unit in units}.isdisjoint(other.folder(unit) for unit in units)


def test_a_grid_of_evaluations_measures_one_run_in_several_ways() -> None:
    study_of = Study(**{**GRID.__dict__, "grid": {"few": ("data=2",), "all": ("data=9",)}, "grid_of": "evaluate"})
    few, every = (Unit(setting, "VAE", 0) for setting in study_of.grid)
    assert study_of.words(few) == study_of.words(every) == ["sampler=none", "objective=elbo", "latent_dim=3"]
    assert study_of.folder(few) == study_of.folder(every)
    assert study_of.measure(few) == ["importance.num_samples=5", "data=2"]
    assert study_of.measure(every) == ["importance.num_samples=5", "data=9"]


def test_an_experiment_comes_before_the_words_that_change_it() -> None:
    one = Study("s", "S", {"a": ("latent_dim=2", "experiment=digits_vae")}, (0,), common=("seed=1",))
    assert one.words(Unit("", "a", 0)) == ["experiment=digits_vae", "latent_dim=2", "seed=1"]


def test_records_of_other_words_do_not_count(home: Path) -> None:
    unit = Unit("wide", "VAE", 0)
    study_records.keep(GRID, record(unit, -5.0))
    study_records.keep(GRID, record(unit, -4.0))
    study_records.keep(GRID, record(Unit("narrow", "VAE", 0), -6.0))
    assert [one["estimators"]["importance"]["nats"] for one in study_records.records_of(GRID)] == [-4.0, -6.0]
    for changed in ({"words": ["seed=1"]}, {"evaluate": []}, {"row": "HVAE"}, {"setting": ""}):
        study_records.keep(GRID, record(unit, -4.0))
        path = home / "docs" / "results" / "tiny.json"
        path.write_text(json.dumps([record(unit, -4.0, **changed)]))
        assert study_records.records_of(GRID) == []


def test_what_another_process_kept_meanwhile_stays(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content: dict[str, Any] = {"title": "T", "seeds": [0], "rows": {"a": ["seed=1"], "b": ["seed=2"]}}
    write_study(home, "two", content)
    first, second = Unit("", "a", 0), Unit("", "b", 0)
    locked: list[bool] = []

    def carried_out(_: Study, unit: Unit, __: Path) -> study_records.Record:
        """Meanwhile the file gets a row, which another process keeps, and other words of `b`."""
        write_study(home, "two", content | {"rows": {"a": ["seed=1"], "b": ["seed=4"], "c": ["seed=3"]}})
        assert study_records.keep(load_study("two"), made("c", ["seed=3"]))
        return made(unit.row, old.words(unit))

    def made(row: str, words: list[str]) -> study_records.Record:
        return record(Unit("", "VAE", 0), -5.0, row=row, words=words, evaluate=[])

    old = load_study("two")
    monkeypatch.setattr(study, "carry_out", carried_out)
    monkeypatch.setattr(study, "write_page", lambda: locked.append(is_locked(study_records.RECORDS)))
    assert study.run_study(old, [first, second]) == 0
    assert [one["row"] for one in study_records.records_of(load_study("two"))] == ["a", "c"]
    assert capsys.readouterr().out == "b, seed 0: the study has other words by now; not kept\n"
    assert study.main(["page"]) == 0
    assert locked == [True] * 3
    assert not is_locked(study_records.RECORDS)


def test_records_are_whole_whenever_they_are_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study_records.keep(GRID, record(Unit("wide", "VAE", 0), -5.0))
    (kept,) = study_records.records_of(GRID)

    def half(path: Path, text: str, **_: Any) -> int:
        path.write_bytes(text[:40].encode())
        assert study_records.records_of(GRID) == [kept]
        raise OSError("killed")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="killed"):
        study_records.keep(GRID, record(Unit("wide", "VAE", 1), -6.0))
    assert study_records.records_of(GRID) == [kept]
    assert [path.name for path in (home / "docs" / "results").iterdir()] == ["tiny.json"]


def test_rows_are_compared_by_the_exact_likelihood_or_by_annealing_on_the_same_data() -> None:
    plain = record(Unit("wide", "VAE", 0), -5.0)
    plain["estimators"]["importance"]["data"] = 300
    assert study_records.likelihood(plain) == (-5.0, 0.25)
    some = {"nats": -4.6, "standard_error_over_data": 0.3, "data": 100}
    annealed = plain | {"estimators": plain["estimators"] | {"ais": some}}
    assert study_records.likelihood(annealed) == (-4.6, 0.3)
    exact = {"nats": -4.75, "standard_error_over_data": 0.2, "data": 300}
    known = annealed | {"estimators": annealed["estimators"] | {"exact": exact}}
    assert study_records.likelihood(known) == (-4.75, 0.2)
    exact["data"] = 100
    assert study_records.likelihood(known) == (-4.6, 0.3)
    assert study_records.likelihood(plain | {"estimators": {}}) is None


def test_annealing_of_some_data_is_put_on_the_level_of_all() -> None:
    plain = record(Unit("wide", "VAE", 0), -5.0)
    plain["estimators"]["importance"]["data"] = 300
    assert study_records.by_difference(plain) is None
    both = {"nats": 0.5, "standard_error_over_data": 0.6, "data": 100}
    annealed = plain | {"agreement": {"ais - importance": both}}
    assert study_records.by_difference(annealed) == (-4.5, pytest.approx(0.65))
    assert study_records.by_difference(plain | {"agreement": {"ais - importance": both | {"data": 300}}}) is None
    shown = results_page.COLUMNS["AIS, all data by difference"]
    assert shown([annealed]) == "-4.50 (0.65)"
    assert shown([annealed, plain]) == "-"
    gap = results_page.COLUMNS["likelihood - bound"]
    assert gap([annealed]) == "1.00"
    assert gap([annealed | {"evaluate": ["data=100"]}]) == "-"  # the bound is of all data
    assert gap([annealed | {"words": ["trainer.test_data=100"]}]) == "-"  # the bound is of some


def test_a_kept_run_is_made_once_more_and_compared(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "CHECKS", home / "checks")
    for seed, nats in enumerate((-5.0, -6.0)):
        study_records.keep(GRID, record(Unit("wide", "VAE", seed), nats))
    kept = study_records.records_of(GRID)
    monkeypatch.setattr(
        study, "carry_out", lambda _, unit, place: record(unit, -5.5) if place.parent == study.CHECKS else None
    )
    assert study.check_study(GRID, list(GRID.units(["VAE", "IWAE-2"], [0, 1]))) == 0
    first, second = capsys.readouterr().out.splitlines()
    both = "log-likelihood -5.000 kept, -5.500 now, standard deviation over seeds 0.707;"
    assert first.startswith(f"wide VAE, seed 0: {both}")
    assert second.startswith("wide VAE, seed 1: log-likelihood -6.000 kept, -5.500 now")
    assert study_records.records_of(GRID) == kept
    monkeypatch.setattr(study, "carry_out", lambda *_: None)
    assert study.check_study(GRID, list(GRID.units(["VAE"], [0]))) == 1
    with pytest.raises(StudyError, match="--check: the numbers of none of these runs are kept"):
        study.check_study(GRID, list(GRID.units(["IWAE-2"], [0])))


def test_a_curve_keeps_its_ends_and_few_points(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "decoder_evaluations", "seconds", "val/bound"])
        writer.writeheader()
        writer.writerows(
            {"epoch": k, "decoder_evaluations": 10 * k, "seconds": k / 2, "val/bound": -1 / k} for k in range(1, 101)
        )
    found = study_records.curve(path)
    assert found[0] == [10, 0.5, -1]
    assert found[-1] == [1000, 50, -0.01]
    assert 10 <= len(found) <= 16
    assert found == sorted(found)


def test_a_record_has_the_commit_of_the_training_and_the_changes_that_it_or_the_evaluation_saw(tmp_path: Path) -> None:
    measured = {"data": {"sha256": "0"}, "estimators": {}, "agreement": {}, "diagnostics": {}}
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "metrics.csv").write_text("decoder_evaluations,seconds,val/bound\n1,1,-1\n")
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "evaluation" / "evaluation.json").write_text(json.dumps(measured))

    def kept(trained: Any, evaluated: Any) -> tuple[str, list[str]]:
        for folder, git in ((tmp_path, trained), (tmp_path / "evaluation", evaluated)):
            manifest = {"git": git, "versions": {"torch": "2"}, "device": "cpu"}
            (folder / "manifest.json").write_text(json.dumps(manifest))
        found = study_records.read_record(GRID, Unit("wide", "VAE", 0), tmp_path, tmp_path / "evaluation")
        return found["commit"], found["changed"]

    clean, changed = {"commit": "a" * 40, "dirty": True, "changed": []}, ["metvae_cli/build.py"]
    assert kept(clean, clean) == ("a" * 10, [])
    assert kept(clean | {"changed": changed}, clean | {"changed": changed}) == ("a" * 10, changed)
    assert kept(clean, {"commit": "b" * 40, "dirty": True, "changed": changed}) == ("a" * 10, changed)
    assert kept({"commit": "a" * 40, "dirty": True}, None) == ("a" * 10, [])  # of an earlier version; of no checkout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["digits_method"], "no study 'digits_method'"),
        (["digits_methods", "--rows", "VAEE"], "no row 'VAEE'; did you mean VAE?"),
        (["ring", "--setting", "20 second"], "no setting '20 second'; did you mean 20 seconds?"),
        (["digits_methods", "--seeds", "one"], "'one' is not a whole number"),
        (["digits_methods", "--seeds", "-1"], "'-1' is not a whole number from 0 on"),
        (["page", "--rows", "VAE"], "page: is of all that is kept, and takes no --rows"),
        (["digits_methods", "--bogus"], "--bogus"),
        (["digits_methods", "--seeds", "99", "--check"], "--check: the numbers of none of these runs are kept"),
    ],
)
def test_wrong_words_are_refused_in_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        study.main(words)
    assert end.value.code == 2
    found = capsys.readouterr()
    assert found.err.count("\n") == 1
    assert said in found.err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"row": {}}, "unknown row"),
        ({"rows": None}, "missing rows"),
        ({"published": {"VAEE": "1"}}, "published numbers of no row: VAEE"),
        ({"rows": {"VAE, wide": []}}, "commas separate rows"),
        ({"detail": True}, "detail is of a grid"),
        ({"paired": True}, "paired is of a grid"),
        ({"figure": "posterior"}, "'posterior' is neither likelihoods nor posteriors"),
        ({"grid": {"a": []}, "grid_of": "sample"}, "'sample' is neither train nor evaluate"),
    ],
)
def test_a_file_that_is_no_study_is_refused(home: Path, changed: dict[str, Any], said: str) -> None:
    content: dict[str, Any] = {"title": "T", "rows": {"VAE": []}, "seeds": [0], **changed}
    write_study(home, "wrong", {key: value for key, value in content.items() if value is not None})
    with pytest.raises(StudyError, match=said):
        load_study("wrong")


@pytest.mark.slow
def test_a_failing_run_leaves_the_others_to_go_on(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(home, "two", {"title": "T", "seeds": [0], "rows": {"bad": ["latent_dim=0"], "good": ["latent_dim=1"]}})
    tried: list[str] = []
    run = study.status_of

    def watched(words: list[str]) -> int:
        tried.append(words[4])
        return run([*words[:4], "latent_dim=0"])

    monkeypatch.setattr(study, "status_of", watched)
    assert study.main(["two"]) == 1
    assert tried == ["latent_dim=0", "latent_dim=1"]
    assert "bad, seed 0: metvae train ended with status 2" in capsys.readouterr().out
    assert study_records.records_of(load_study("two")) == []
