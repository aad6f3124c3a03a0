"""Signals at every stage of every command: saved within seconds, the right exit status, a resume that ends alike."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT, SIGTERM, SIGUSR1, SIGUSR2, Signals

import pytest

from metvae_cli.training.checkpoint import load_checkpoint
from metvae_cli.training.interruption import requeuing_signal, stopping_signals
from tests.endings import jobs_of, status
from tests.faults.asked_to_stop import Asked
from tests.faults.processes import ended, metvae_process
from tests.faults.whole_runs import assert_same_run
from tests.runs import BRIEF, TINY, metvae

SECONDS = 5.0  # in which a run has left
WORDS = (*TINY, "trainer.max_epochs=3", "trainer.log_every=5", "trainer.picture_every=1")
NEW = ("train", *WORDS, "hydra.run.dir=run")
TRAINER = "metvae_cli.training.trainer.Trainer"
STAGES = {
    "training": f"{TRAINER}.step",
    "validation": f"{TRAINER}.evaluate",
    "saving": "os.fsync",
    "pictures": "metvae_cli.tracking.tracker.RunTracker.pictures",
    "test": "metvae_cli.commands.train_likelihood.importance_sampling",
}
ALL = (SIGINT, SIGTERM, SIGUSR1, SIGUSR2)
QUICK = [("training", SIGUSR1), ("validation", SIGTERM)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody touched."""
    here = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert metvae(*NEW) == 0
    return here / "run"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def asked(here: Path, place: str, number: int, turn: int = 1) -> Iterator[None]:
    """Inside, a signal comes at a place; what was running has to have left soon after it."""
    note = here / "asked"
    with pytest.MonkeyPatch.context() as patch:
        Asked((number,), place, turn, note=note)(patch)
        yield
    assert time.monotonic() - float(note.read_text()) < SECONDS


def name(stage: str, number: Signals) -> str:
    return f"{stage}-{number.name}"


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        pytest.param(stage, number, id=name(stage, number), marks=[] if (stage, number) in QUICK else pytest.mark.slow)
        for stage in STAGES
        for number in ALL
    ],
)
def test_a_signal_at_any_stage_of_training_saves(
    here: Path, straight: Path, capsys: pytest.CaptureFixture[str], stage: str, number: Signals
) -> None:
    with asked(here, STAGES[stage], number, turn=2 if stage in ("training", "saving") else 1):
        assert metvae(*NEW) == 128 + number
    printed = capsys.readouterr().err.splitlines()
    assert printed[-1] == f"metvae: stopped by {number.name}; what to do next is said above"
    assert printed[-2] == f"interrupted; go on with: metvae train resume={here / 'run'}"
    assert status(here / "run") == "interrupted"
    load_checkpoint(here / "run" / "checkpoints" / "last.pt")
    assert metvae("train", "resume=run") == 0
    assert_same_run(here / "run", straight)


def test_the_words_of_a_resume_that_is_stopped_stand_in_what_to_type_next(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without them the next resume would end at the limits that the run was started with."""
    assert metvae(*NEW, "trainer.max_epochs=1") == 0
    with asked(here, STAGES["training"], SIGTERM):
        assert metvae("train", "resume=run", "trainer.max_epochs=2", "trainer.patience=null") == 128 + SIGTERM
    said = capsys.readouterr().err.splitlines()[-2].partition("go on with: metvae ")[2]
    assert said.split() == ["train", "resume=run", "trainer.max_epochs=2", "trainer.patience=null"]
    assert metvae(*said.split()) == 0
    assert json.loads((here / "run" / "summary.json").read_text())["epochs"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_a_signal_while_the_last_pictures_are_drawn_comes_too_late(here: Path, straight: Path, number: Signals) -> None:
    """A run that has nothing left to do but to say how it went is a finished one."""
    with asked(here, "metvae_cli.commands.train_run.embed", number):
        assert metvae(*NEW) == 0
    assert_same_run(here / "run", straight)


# A second signal


@pytest.mark.parametrize(
    "numbers",
    [
        (SIGTERM, SIGTERM),
        pytest.param((SIGUSR1, SIGTERM), marks=pytest.mark.slow),
        pytest.param((SIGINT, SIGINT), marks=pytest.mark.slow),
        pytest.param((SIGUSR2, SIGUSR2), marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.parametrize("stage", ["training", pytest.param("saving", marks=pytest.mark.slow)])
def test_a_second_signal_ends_a_run_at_once_and_damages_nothing(
    tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch, stage: str, numbers: tuple[Signals, ...]
) -> None:
    words = (*NEW, "trainer.checkpoint_seconds=0.02")
    process = metvae_process(tmp_path, *words, prepare=Asked(numbers, STAGES[stage], turn=8, after=True))
    second = numbers[1]
    assert ended(process) == (128 + SIGINT if second == SIGINT else -second)
    assert status(tmp_path / "run") == ("interrupted" if second == SIGINT else "running")
    monkeypatch.chdir(tmp_path)
    assert metvae("train", "resume=run", "trainer.checkpoint_seconds=60") == 0
    assert_same_run(tmp_path / "run", straight)


# Sweeps, in which a run's signals are the sweep's too

SWEPT = ("train", "-m", *WORDS, "seed=0,1", "hydra.sweep.dir=sweep")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep that nobody touched."""
    here = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert metvae(*SWEPT) == 0
    return here / "sweep"


def assert_goes_on(here: Path, swept: Path) -> None:
    assert metvae(*SWEPT[:-1], "sweep.resume=sweep") == 0
    for job in jobs_of(swept):
        assert_same_run(here / "sweep" / job.name, job)


@pytest.mark.slow
@pytest.mark.parametrize("number", ALL)
def test_a_signal_ends_a_sweep(here: Path, swept: Path, number: Signals) -> None:
    with asked(here, STAGES["training"], number, turn=30):
        assert metvae(*SWEPT) == 128 + number
    assert [status(job) for job in jobs_of(here / "sweep")] == ["interrupted"]
    assert_goes_on(here, swept)


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [(SIGTERM, SIGTERM), (SIGINT, SIGINT), (SIGUSR1, SIGTERM)], ids=str)
def test_a_second_signal_ends_a_sweep_and_no_half_of_an_iteration_is_saved(
    here: Path, swept: Path, numbers: tuple[Signals, ...]
) -> None:
    """After the step and before it is counted: what was saved there would take it twice."""
    process = metvae_process(here, *SWEPT, prepare=Asked(numbers, STAGES["training"], turn=30, after=True))
    second = numbers[1]
    assert ended(process) == (128 + SIGINT if second == SIGINT else -second)
    assert len(jobs_of(here / "sweep")) == 1
    assert_goes_on(here, swept)


@pytest.mark.slow
def test_a_signal_that_comes_too_late_for_a_job_ends_the_sweep(
    here: Path, swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with asked(here, "metvae_cli.commands.train_run.embed", SIGTERM):
        assert metvae(*SWEPT) == 143
    assert [status(job) for job in jobs_of(here / "sweep")] == ["finished"]
    assert "1 finished, 1 not begun" in capsys.readouterr().out
    assert_goes_on(here, swept)


# What is measured of a run that is there; the work is enough for minutes

LONG = ("data=200", "threads=1")
MANY = 300_000
LONGEST_WALK = 100_000  # more would be refused: it does not fit into memory
RETRAINED = ("importance.proposal=retrained", f"importance.retrain_epochs={MANY}")
EVALUATED = {
    "importance": (
        ("estimators=[importance]", "diagnostics=[]", f"importance.num_samples={MANY}"),
        "metvae_cli.evaluation.importance.stream",
    ),
    "retrained": (
        ("estimators=[importance]", "diagnostics=[]", *RETRAINED),
        "metvae_cli.evaluation.proposals.epoch_order",
    ),
    "ais": (
        ("estimators=[ais]", "diagnostics=[]", f"ais.num_temperatures={MANY}"),
        "metvae_cli.kernels.hamiltonian.Hamiltonian.propose",
    ),
    "bdmc": (
        ("estimators=[bdmc]", "diagnostics=[]", f"bdmc.num_temperatures={MANY}"),
        "metvae_cli.kernels.hamiltonian.Hamiltonian.propose",
    ),
    "chains": (
        ("estimators=[]", "diagnostics=[sampler]", f"sampler.num_draws={MANY}"),
        "metvae_cli.kernels.partial_hamiltonian.PartialHamiltonian.propose",
    ),
}  # fmt: skip


def test_the_signal_of_submitit_is_left_to_it() -> None:
    """It puts the job back into the queue; outside of its jobs the signal saves as the others do."""
    inside = {"SUBMITIT_EXECUTOR": "slurm"}
    assert (requeuing_signal({}), stopping_signals({})) == (None, ALL)
    assert (requeuing_signal(inside), stopping_signals(inside)) == (SIGUSR2, (SIGINT, SIGTERM, SIGUSR1))
    assert stopping_signals(inside | {"SUBMITIT_PREEMPT_SIGNAL": "USR1"}) == (SIGINT, SIGTERM, SIGUSR2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "number"), list(zip(EVALUATED, (SIGTERM, SIGUSR1, SIGINT, SIGTERM, SIGUSR2), strict=True))
)
def test_a_signal_ends_an_evaluation_within_seconds(here: Path, straight: Path, part: str, number: Signals) -> None:
    words, place = EVALUATED[part]
    with asked(here, place, number, turn=3):
        assert metvae("evaluate", f"run={straight}", *LONG, *words, "hydra.run.dir=out") == 128 + number
    assert status(here / "out") == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("number", ALL)
def test_a_signal_while_the_test_data_are_measured_is_seen_within_seconds(here: Path, number: Signals) -> None:
    with asked(here, "metvae_cli.evaluation.importance.stream", number, turn=3):
        assert (
            metvae(*NEW, "trainer.max_epochs=1", f"trainer.test_samples={MANY}", "trainer.test_data=400")
            == 128 + number
        )
    assert load_checkpoint(here / "run" / "checkpoints" / "last.pt")["state"]["epoch"] == 1


@pytest.mark.parametrize("number", [SIGTERM, *(pytest.param(number, marks=pytest.mark.slow) for number in ALL[2:])])
def test_a_signal_ends_sampling_at_once(
    here: Path, straight: Path, capsys: pytest.CaptureFixture[str], number: Signals
) -> None:
    """Of minutes of in-painting, after a picture that is whole."""
    words = ("pictures=[prior,inpainting]", f"sweeps={MANY}", "hydra.run.dir=out")
    with asked(here, "metvae_cli.models.vae.VAE.decode", number, turn=30):
        assert metvae("sample", f"run={straight}", *words) == 128 + number
    assert f"stopped by {number.name}; the pictures made by then are whole" in capsys.readouterr().err
    assert (status(here / "out"), (here / "out" / "prior.png").exists()) == ("interrupted", True)
    assert not (here / "out" / ".lock").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "place", "number"),
    [
        (("objective=none",), "metvae_cli.kernels.hamiltonian.Hamiltonian.propose", SIGTERM),
        ((), f"{TRAINER}.step", SIGUSR1),
        ((), "metvae_cli.commands.infer_measure.record_walk", SIGINT),
    ],
)
def test_a_signal_ends_inference_within_seconds(
    here: Path, words: tuple[str, ...], place: str, number: Signals
) -> None:
    typed = ("infer", *BRIEF, "target=two_modes", "sampler=hmc", *words)
    long = (f"evaluation.walk={LONGEST_WALK}", *([f"evaluation.chain_draws={LONGEST_WALK}"] if words else []))
    with asked(here, place, number, turn=1 if "walk" in place else 3):
        assert metvae(*typed, *long, "hydra.run.dir=run") == 128 + number
    assert status(here / "run") == "interrupted"
    if not words:
        assert metvae("infer", "resume=run", "evaluation.walk=5") == 0
        assert metvae(*typed, "hydra.run.dir=straight") == 0
        found = [json.loads((here / run / "summary.json").read_text()) for run in ("run", "straight")]
        timed = [{key: value for key, value in one.items() if "seconds" not in key} for one in found]
        assert timed[0] == timed[1]
