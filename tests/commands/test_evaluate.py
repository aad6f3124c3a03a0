"""`metvae evaluate`: what it leaves, that it repeats, that chunks and company change nothing, wrong words."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metvae_cli.errors import Interrupted
from tests.runs import files, metvae, train

SMALL = (
    "importance.num_samples=20",
    "importance.repeats=2",
    "ais.num_temperatures=5",
    "ais.num_chains=2",
    "ais.data=4",
    "bdmc.num_temperatures=5",
    "bdmc.num_chains=2",
    "bdmc.data=4",
    "exact.data=5",
    "exact.points=41",
    "sampler.data=3",
    "sampler.num_chains=2",
    "sampler.num_draws=8",
    "sampler.reference_data=2",
    "sampler.reference_draws=200",
    "latent.data=60",
    "latent.probe_data=100",
    "device=cpu",
)


TESTED = ("trainer.max_epochs=1", "trainer.test_data=null", "trainer.test_samples=20")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train("hydra.run.dir=outputs/train/R", *TESTED) == 0
        yield folder / "outputs/train/R"


def evaluate(run: Path, folder: str, *words: str) -> dict[str, Any]:
    assert metvae("evaluate", f"run={run}", *SMALL, f"hydra.run.dir={folder}", *words) == 0
    return json.loads(Path(folder, "evaluation.json").read_text())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_says_everything_and_leaves_the_run_alone(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: (run / name).stat().st_mtime_ns for name in files(run)}
    results = evaluate(run, "E")
    assert {name: (run / name).stat().st_mtime_ns for name in files(run)} == before
    assert set(results["estimators"]) == {"importance", "ais", "bdmc", "exact"}
    for name in ("importance", "ais", "exact"):
        found = results["estimators"][name]
        assert found["bits_per_dimension"] == pytest.approx(-found["nats"] / (64 * math.log(2)))
        assert found["standard_error_over_data"] > 0
    assert results["estimators"]["importance"]["standard_error_over_repeats"] > 0
    assert results["estimators"]["ais"]["standard_error_over_repeats"] is None
    assert set(results["diagnostics"]) == {"sampler", "latent"}
    assert len(results["diagnostics"]["sampler"]["steps"]["accept_prob"]) == 2
    assert results["data"]["count"] == 300
    assert len(results["data"]["sha256"]) == 64
    assert json.loads(Path("E/status.json").read_text())["status"] == "finished"
    assert Path("E/posteriors.png").stat().st_size > 10_000
    with Path("E/per_datum.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["datum"]) for row in rows] == list(range(300))
    values = [float(row["importance"]) for row in rows]
    assert sum(values) / 300 == pytest.approx(results["estimators"]["importance"]["nats"], abs=1e-9)
    assert sum(row["ais"] != "" for row in rows) == 4
    with Path("E/per_datum_simulated.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4
    printed = capsys.readouterr().out
    assert "AIS" in printed
    assert "±" in printed


def test_tensorboard_has_the_numbers_at_the_iteration_of_the_checkpoint(run: Path, here: Path) -> None:
    results = evaluate(run, "E", "estimators=[importance]", "diagnostics=[sampler]")
    events = EventAccumulator("E").Reload()
    (point,) = events.Scalars("evaluate/importance/nats")
    assert point.value == pytest.approx(results["estimators"]["importance"]["nats"], rel=1e-6)
    assert point.step == results["iteration"] > 0
    assert events.Tags()["images"] == ["images/posteriors"]
    assert "evaluate/per_datum/importance" in events.Tags()["histograms"]
    assert not any("num_samples" in tag for tag in events.Tags()["scalars"])


def test_it_is_the_number_that_training_ended_with(run: Path, here: Path) -> None:
    results = evaluate(run, "E", "estimators=[importance]", "diagnostics=[]", "importance.repeats=1")
    summary = json.loads((run / "summary.json").read_text())
    assert results["estimators"]["importance"]["nats"] == pytest.approx(-summary["test/nll"], abs=1e-12)


@pytest.mark.slow
def test_it_repeats_bitwise_and_other_seeds_differ(run: Path, here: Path) -> None:
    before = torch.get_rng_state()
    evaluate(run, "E1")
    evaluate(run, "E2")
    evaluate(run, "E3", "seed=1")
    first, again, other = (Path(name, "per_datum.csv").read_text() for name in ("E1", "E2", "E3"))
    assert first == again != other
    results = [json.loads(Path(name, "evaluation.json").read_text()) for name in ("E1", "E2")]
    assert all(_without_seconds(result) == _without_seconds(results[0]) for result in results)
    assert torch.get_default_dtype() is torch.float32
    torch.set_rng_state(before)


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_seconds(entry) for key, entry in value.items() if key != "seconds"}
    return value


@pytest.mark.slow
def test_the_chunk_and_the_other_data_change_nothing(run: Path, here: Path) -> None:
    words = ("estimators=[importance,ais]", "diagnostics=[]", "ais.num_temperatures=50")
    whole = evaluate(run, "E1", *words)
    parts = evaluate(run, "E2", *words, "importance.chunk=7", "ais.chunk=3")
    for name in ("importance", "ais"):
        assert whole["estimators"][name]["nats"] == pytest.approx(parts["estimators"][name]["nats"], abs=1e-9)
    evaluate(run, "E3", *words, "data=10")
    columns = [column(Path(folder, "per_datum.csv"), "importance") for folder in ("E1", "E3")]
    assert len(columns[1]) == 10
    assert all(abs(columns[0][number] - value) < 1e-9 for number, value in columns[1].items())


def column(path: Path, name: str) -> dict[int, float]:
    with path.open() as file:
        return {int(row["datum"]): float(row[name]) for row in csv.DictReader(file) if row[name]}


@pytest.mark.parametrize("proposal", ["encoder", "overdispersed", "retrained", "chain"])
def test_other_proposals(run: Path, here: Path, proposal: str) -> None:
    words = ("estimators=[importance]", "diagnostics=[]", "importance.retrain_epochs=1", "data=20")
    results = evaluate(run, "E", *words, f"importance.proposal={proposal}")
    assert results["estimators"]["importance"]["proposal"] == proposal
    assert ("retraining_bounds" in results["estimators"]["importance"]) is (proposal == "retrained")


@pytest.mark.slow
def test_a_plain_flow_is_its_own_proposal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unasked, and at the end of training too; a VAE has no chain to draw from."""
    words = ("estimators=[importance]", "diagnostics=[]", "importance.repeats=1", "data=null")
    flow = ("sampler=flow", "sampler.direction=forwards", "sampler.acceptance=none", "objective=annealed")
    assert metvae("train", *flow, "hydra.run.dir=F", *TESTED) == 0
    results = evaluate(Path("F"), "E", *words)["estimators"]["importance"]
    assert results["proposal"] == "chain"
    assert results["nats"] == pytest.approx(-json.loads(Path("F/summary.json").read_text())["test/nll"], abs=1e-12)
    assert evaluate(Path("F"), "E2", *words, "importance.proposal=encoder")["estimators"]["importance"] != results
    assert metvae("train", "experiment=digits_vae", "hydra.run.dir=V", *TESTED) == 0
    assert evaluate(Path("V"), "E3", *words)["estimators"]["importance"]["proposal"] == "encoder"
    capsys.readouterr()
    assert metvae("evaluate", "run=V", *SMALL, "hydra.run.dir=E4", "importance.proposal=chain") == 2
    assert "importance.proposal=chain: this run has no chain" in capsys.readouterr().err


def test_paths_that_fall_short_bring_a_warning(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("estimators=[importance]", "diagnostics=[]", "data=5", "importance.proposal=chain")
    metropolis = ("sampler=hmc", "sampler.acceptance=metropolis", "objective=metvae")
    assert metvae("train", *metropolis, "hydra.run.dir=M", *TESTED) == 0
    for trained, falls_short in ((Path("M"), True), (run, False)):
        capsys.readouterr()
        evaluate(trained, f"E_{falls_short}", *words)
        assert ("Metropolis decisions stays below log p(x)" in capsys.readouterr().err) is falls_short


def test_other_splits_and_checkpoints(run: Path, here: Path) -> None:
    words = ("estimators=[importance]", "diagnostics=[latent]", "data=20")
    results = [evaluate(run, f"E{k}", *words, f"split={split}") for k, split in enumerate(("test", "valid", "train"))]
    assert len({result["data"]["sha256"] for result in results}) == 3
    assert evaluate(run, "E", *words, "checkpoint=last")["checkpoint"] == "last"


def test_a_refused_command_leaves_what_was_there(run: Path, here: Path) -> None:
    kept = {"mynotes.log": "precious", "evaluate.log": "said", ".hydra/config.yaml": "a: 1\n"}
    for name, text in kept.items():
        Path("E", name).parent.mkdir(parents=True, exist_ok=True)
        Path("E", name).write_text(text)
    for words in (("evaluate", "run=nowhere"), ("train", "latent_dim=0"), ("sample", "run=nowhere")):
        assert metvae(*words, "hydra.run.dir=E") == 2
    assert {name: Path("E", name).read_text() for name in kept} == kept
    assert not [path for path in Path("E").glob("*.log") if path.name not in kept]


@pytest.mark.parametrize(
    ("stopped", "kept"), [("annealed_importance_sampling", {"importance"}), ("importance_sampling", None)]
)
def test_a_signal_keeps_what_was_done(
    run: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stopped: str, kept: Any
) -> None:
    from metvae_cli.commands import evaluate_likelihood

    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted(15)

    Path("E").mkdir()
    for name in (earlier := ("evaluation.json", "per_datum.csv", "per_datum_simulated.csv")):
        Path("E", name).write_text("{}")
    monkeypatch.setattr(evaluate_likelihood, stopped, interrupted)
    assert metvae("evaluate", f"run={run}", *SMALL, "hydra.run.dir=E") == 143
    assert [name for name in earlier if Path("E", name).is_file()] == list(earlier if kept else ())[:2]
    assert json.loads(Path("E/status.json").read_text())["status"] == "interrupted"
    assert "evaluation.json, if one part had ended, holds" in capsys.readouterr().err
    written = Path("E/evaluation.json")
    assert (set(json.loads(written.read_text())["estimators"]) if written.is_file() else None) == kept


def test_a_failure_is_told_in_log_and_status(
    run: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from metvae_cli.commands import evaluate_likelihood

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(evaluate_likelihood, "importance_sampling", broken)
    assert metvae("evaluate", f"run={run}", *SMALL, "hydra.run.dir=E") == 1
    assert "out of luck" in json.loads(Path("E/status.json").read_text())["reason"]
    assert "Traceback" in Path("E/evaluate.log").read_text()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run=null",), "run=null"),
        (("run=nowhere",), "no run is there (.hydra/config.yaml is missing); name the directory of one"),
        (("split=tset",), "did you mean test?"),
        (("checkpoint=best.pt",), "checkpoint=best.pt"),
        (("estimators=[importence]",), "importence"),
        (("estimators=[]", "diagnostics=[]"), "nothing to do"),
        (("importance.num_samples=0",), "importance.num_samples=0"),
        (("importance.proposal=encoded",), "did you mean encoder?"),
        (("importance.widen=-1",), "importance.widen=-1"),
        (("ais.num_temperatures=1",), "ais.num_temperatures=1"),
        (("bdmc.data=null",), "bdmc.data=null: must say how many"),
        (("ais.start=posterior",), "ais.start=posterior"),
        (("bdmc.target_accept=1.5",), "bdmc.target_accept=1.5"),
        (("sampler.num_chains=1",), "sampler.num_chains=1"),
        (("precision=half",), "precision=half"),
        (("device=tpu",), "device=tpu"),
        (("importance.samples=3",), "importance.samples"),
        (("data=0",), "data=0"),
    ],
)
def test_wrong_words_give_one_line_and_leave_nothing(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert metvae("evaluate", f"run={run}", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (here / "outputs").exists()


def test_a_folder_of_runs_tells_the_latest(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("2026-02-01_run", "2026-01-31_run", "2026-03-01_evaluation"):
        Path("runs", name, "checkpoints" if name.endswith("run") else "pictures").mkdir(parents=True)
    assert metvae("evaluate", "run=runs") == 2
    assert "run=runs: no run is there" in (said := capsys.readouterr().err)
    assert said.endswith("the latest below it is runs/2026-02-01_run\n")


def test_a_sweep_over_runs(run: Path, here: Path) -> None:
    words = (*SMALL, "estimators=[importance]", "diagnostics=[]", "hydra.sweep.dir=S")
    assert metvae("evaluate", "-m", f"run={run}", "checkpoint=best,last", *words) == 0
    results = [json.loads(path.read_text()) for path in sorted(Path("S").glob("*/evaluation.json"))]
    assert [result["checkpoint"] for result in results] == ["best", "last"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_gap_of_bidirectional_monte_carlo_on_trained_digits(here: Path) -> None:
    """Below half a nat at a thousand temperatures; smaller with more of them, 1.8 times for twice as many if large."""
    assert metvae("train", "hydra.run.dir=R", "trainer.max_epochs=30", "trainer.device=cpu") == 0
    gaps = []
    for count in (5, 10, 20, 1000):
        words = ("estimators=[bdmc]", "diagnostics=[]", f"bdmc.num_temperatures={count}", "bdmc.data=100", "device=cpu")
        assert metvae("evaluate", "run=R", *words, f"hydra.run.dir=E{count}") == 0
        found = json.loads(Path(f"E{count}/evaluation.json").read_text())["estimators"]["bdmc"]
        gaps.append(found["gap"]["nats"])
        assert found["lower"]["nats"] - 0.1 < found["importance"]["nats"] < found["upper"]["nats"] + 0.1
    assert gaps[-1] < 0.5
    assert gaps[0] > 1.8 * gaps[1] > 1.8 * gaps[2] > 1.8 * gaps[3]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("latent_dim", [2, 8])
def test_rounding_decides_nothing_on_a_trained_model(latent_dim: int, here: Path) -> None:
    """The leapfrog on a decoder can be chaotic: not with the settings that ship, and with others it is seen."""
    words = ("hydra.run.dir=R", f"latent_dim={latent_dim}", "trainer.max_epochs=15", "trainer.device=cpu")
    assert metvae("train", *words) == 0

    def gap(*how: str) -> float:
        columns = []
        for chunk in (3, 1000):
            shown = ("estimators=[ais]", "diagnostics=[]", "ais.data=6", "ais.num_chains=2", f"ais.chunk={chunk}")
            assert metvae("evaluate", "run=R", "device=cpu", *shown, *how, f"hydra.run.dir=E{chunk}") == 0
            columns.append(column(Path(f"E{chunk}/per_datum.csv"), "ais"))
        return max(abs(columns[0][number] - value) for number, value in columns[1].items())

    assert gap() < 1e-5
    assert gap("ais.num_leapfrog=10", "ais.target_accept=0.5", "ais.num_temperatures=300") > 1e-5
