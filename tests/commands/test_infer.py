"""What `metvae infer` leaves behind: a trained run, a plain chain, a resumed one, a sweep, several side by side."""

import errno
import json
import math
import re
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metvae_cli.paths import config_dir
from metvae_cli.tracking import progress
from metvae_cli.training.checkpoint import load_checkpoint
from tests.infer.shipped import NAMES
from tests.runs import files, infer, metvae, start

STORED = {".hydra", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"}
PLAIN = STORED | {"events", "infer.log", "manifest.json", "status.json", "summary.json"}
PLAIN |= {"chains.npy", "density.png", "samples.png", "walk.png"}
TRAINED = PLAIN | {"samples.npy", "metrics.csv", "checkpoints", "checkpoints/best.pt", "checkpoints/last.pt"}
WALK = ("target=gaussian", "sampler=random_walk", "objective=none")
BOUNDS = "bound bound_se log_normalizer log_normalizer_se log_normalizer_exact log_normalizer_error effective_weights"
DRAWS = "samples/energy_distance samples/mmd"
CHAINS = "r_hat effective_size effective_size_per_evaluation evaluations accept divergent energy_distance mmd"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def left(folder: Path) -> set[str]:
    """The names in a run's directory, with those of event files shortened."""
    return {re.sub(r"^events\.out\.tfevents\..*", "events", name) for name in files(folder)}


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def board(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def test_a_trained_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert infer("target=two_modes", "sampler=hmc", "trainer.picture_every=1") == 0
    (folder,) = here.glob("outputs/infer/*")
    assert left(folder) == TRAINED
    summary = read(folder, "summary.json")
    names = [*BOUNDS.split(), *DRAWS.split(), *(f"chains/{name}" for name in CHAINS.split() if name != "r_hat")]
    assert all(math.isfinite(summary[name]) for name in names if "effective_size" not in name)
    assert summary.keys() >= {*names, "chains/r_hat", "samples/modes_found", "samples/mode_weight_error", "seconds"}
    assert (summary["dim"], summary["modes"], summary["iterations"], summary["epochs"]) == (2, 2, 8, 2)
    assert summary["log_normalizer_exact"] == pytest.approx(math.log(2 * math.pi))
    assert summary["training_evaluations"] == 8 * 8 * 2 * 4
    assert np.load(folder / "samples.npy").shape == (64, 2)
    assert np.load(folder / "chains.npy").shape == (2, 10, 2)
    assert read(folder, "status.json")["status"] == "finished"
    said = capsys.readouterr()
    assert "bound on log Z" in said.out
    assert "modes found" in said.out
    assert f"metvae infer resume={folder.relative_to(here)} trainer.max_epochs=N" in said.out
    events = board(folder)
    assert {"val/log_target", "val/log_initial", "final/bound", "final/chains/r_hat"} <= set(events.Tags()["scalars"])
    assert set(events.Tags()["images"]) == {"images/density", "final/density", "final/samples", "final/walk"}
    assert [event.step for event in events.Images("images/density")] == [4, 8]
    assert [event.step for event in events.Images("final/density")] == [8]


def test_a_plain_chain(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    assert infer(*WALK, "hydra.run.dir=run") == 0
    assert left(here / "run") == PLAIN
    summary = read(here / "run", "summary.json")
    assert summary.keys() >= {f"chains/{name}" for name in CHAINS.split()} | {"chains/step_size_1"}
    assert not summary.keys() & {*BOUNDS.split(), "iterations"}
    assert read(here / "run", "manifest.json")["config"]["sampler"]["acceptance"] == "metropolis"
    assert set(board(here / "run").Tags()["images"]) == {"final/density", "final/samples", "final/walk"}
    assert "R-hat" in capsys.readouterr().out
    assert re.search(r"long chains: \d+ % done, \d+ s left", (here / "run" / "infer.log").read_text())
    assert metvae("infer", "resume=run") == 2
    assert "plain chain" in capsys.readouterr().err


def test_a_single_chain_says_why_r_hat_is_unknown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert infer(*WALK, "evaluation.chains=1") == 0
    out = capsys.readouterr().out
    assert "evaluation.chains=2 or more" in out
    assert "R-hat is above" not in out


def test_the_walk_of_the_textbook_is_an_experiment_and_repeatable(here: Path) -> None:
    assert infer("experiment=infer_walk", "hydra.run.dir=a") == 0
    assert infer(*WALK, "hydra.run.dir=b") == 0
    assert infer(*WALK, "hydra.run.dir=c", "seed=1") == 0
    a, b, c = (np.load(here / name / "chains.npy") for name in "abc")
    assert (a == b).all()
    assert (here / "a" / "walk.png").read_bytes() == (here / "b" / "walk.png").read_bytes()
    assert a.shape == c.shape
    assert not (a == c).all()


@pytest.mark.slow
def test_a_resumed_run_ends_where_the_uninterrupted_one_ends(here: Path) -> None:
    words = ("target=ring", "sampler=langevin")
    assert infer(*words, "hydra.run.dir=whole", "trainer.max_epochs=4") == 0
    assert infer(*words, "hydra.run.dir=parts", "trainer.max_iterations=5") == 0
    assert metvae("infer", "resume=parts", "trainer.max_iterations=null", "trainer.max_epochs=4") == 0
    assert left(here / "parts") == TRAINED
    whole, parts = (load_checkpoint(here / name / "checkpoints" / "last.pt") for name in ("whole", "parts"))
    for part in ("model", "sampler"):
        assert all(torch.equal(value, parts[part][name]) for name, value in whole[part].items())
    assert len(read(here / "parts", "manifest.json")["starts"]) == 2
    same = ("bound", "log_normalizer", "samples/energy_distance", "chains/accept")
    ends = [{name: read(here / run, "summary.json")[name] for name in same} for run in ("whole", "parts")]
    assert ends[0] == ends[1]


def test_what_is_measured_may_be_changed_on_a_resume(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert infer("target=ring", "hydra.run.dir=run") == 0
    assert metvae("infer", "resume=run", "evaluation.draws=128", "evaluation.chains=0") == 0
    assert np.load(here / "run" / "samples.npy").shape == (128, 2)
    capsys.readouterr()
    for word, said in (
        ("seed=3", "only trainer.* and evaluation.* keys"),
        ("evaluation.darws=3", "did you mean evaluation.draws"),
        ("trainer.max_epochs=0", "trainer.max_epochs=0: must be positive"),
    ):
        assert metvae("infer", "resume=run", word) == 2
        assert said in capsys.readouterr().err
    assert metvae("train", "resume=run") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("name", ["samples.npy", "chains.npy"])
def test_draws_are_whole_or_those_of_before(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert infer("target=ring", "hydra.run.dir=run") == 0
    before, save = np.load(here / "run" / name), np.save

    def half(file: Any, values: np.ndarray) -> None:
        if values.ndim != before.ndim:
            return save(file, values)
        Path(file if isinstance(file, Path) else file.name).write_bytes(b"half")
        raise OSError(errno.EIO, "gone")

    monkeypatch.setattr(np, "save", half)
    assert metvae("infer", "resume=run") == 1
    assert (np.load(here / "run" / name) == before).all()


@pytest.mark.slow
def test_a_sweep_leaves_a_run_for_each_combination(here: Path) -> None:
    assert infer("-m", "target=banana,funnel", "seed=0,1", "objective=none", "sampler=hmc") == 0
    (sweep,) = here.glob("outputs/infer/*")
    jobs = sorted(path for path in sweep.iterdir() if path.is_dir())
    assert [job.name for job in jobs] == [
        f"{2 * first + seed:02d}_target={target},seed={seed}"
        for first, target in enumerate(("banana", "funnel"))
        for seed in (0, 1)
    ]
    assert all(left(job) == PLAIN for job in jobs)


@pytest.mark.slow
def test_several_methods_stand_side_by_side(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("experiment=infer_ring_posterior", "methods=[infer_ring_iwae,infer_ring_lmcvae]", "hydra.run.dir=run")
    assert infer(*words, "target.radius=3") == 0
    run = here / "run"
    below = {"infer_ring_iwae", "infer_ring_lmcvae"}
    own = {name for name in left(run) if name.partition("/")[0] not in below}
    assert own == STORED | {"events", "infer.log", "manifest.json", "status.json", "summary.json"} | {
        "methods.png",
        "samples.png",
    }
    summary = read(run, "summary.json")
    assert summary.keys() == below
    for name in below:
        assert summary[name] == read(run / name, "summary.json")
        assert read(run / name, "manifest.json")["config"]["target"]["radius"] == 3
        assert read(run / name, "manifest.json")["config"]["trainer"]["max_epochs"] == 2  # typed words come last
    assert "all methods" in capsys.readouterr().out
    assert infer("experiment=infer_ring_lmcvae", "target.radius=3", "hydra.run.dir=alone") == 0
    alone = read(here / "alone", "summary.json")
    clocks = ("seconds",)
    assert {key: value for key, value in alone.items() if key not in clocks} == {
        key: value for key, value in summary["infer_ring_lmcvae"].items() if key not in clocks
    }
    capsys.readouterr()
    assert metvae("infer", "resume=run") == 2
    assert "holds several runs" in capsys.readouterr().err
    assert metvae("infer", "resume=run/infer_ring_iwae", "trainer.max_epochs=3") == 0


def test_methods_on_another_target(here: Path) -> None:
    words = ("methods=[infer_walk,infer_ring_iwae]", "target=funnel", "hydra.run.dir=run")
    assert infer(*words) == 0
    for name in ("infer_walk", "infer_ring_iwae"):
        assert read(here / "run" / name, "manifest.json")["config"]["target"]["spread"] == 1


def test_a_method_that_fails_stops_no_other(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("methods=[infer_ring_vae,infer_ring_iwae]", "optimizer=sgd", "trainer.clip_norm=null")
    assert infer(*words, "optimizer.lr=1e30", "trainer.max_bad_steps=2", "hydra.run.dir=run") == 1
    assert "infer_ring_iwae: " in (said := capsys.readouterr().err.splitlines()[-1])
    assert said.startswith("metvae: error: infer_ring_vae: ")
    assert read(here / "run", "summary.json") == {}
    assert "Traceback" in (here / "run" / "infer.log").read_text()
    assert read(here / "run" / "infer_ring_vae", "status.json")["status"] == "failed"
    assert read(here / "run", "status.json")["status"] == "failed"
    assert "infer_ring_vae: 2 consecutive steps" in read(here / "run", "status.json")["reason"]


@pytest.mark.slow
def test_a_signal_ends_a_plain_chain_and_training_with_word_of_how_to_go_on(here: Path) -> None:
    long = ("evaluation.warm_up=1000000", "trainer.device=cpu")
    for name, words, said in (
        ("plain", (*WALK, *long), "a plain chain starts anew"),
        ("trained", ("target=ring", "trainer.max_epochs=100000"), f"go on with: metvae infer resume={here}/trained"),
    ):
        process = start(here, "infer", *words, f"hydra.run.dir={name}")
        try:
            ready = (here / name / "status.json") if name == "plain" else (here / name / "metrics.csv")
            for _ in range(600):
                if ready.is_file():
                    break
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            error = process.communicate(timeout=60)[1]
        finally:
            process.kill()
        assert process.returncode == 130, error
        assert said in " ".join(error.split())
        assert read(here / name, "status.json")["status"] == "interrupted"
    assert (here / "trained" / "checkpoints" / "last.pt").is_file()


@pytest.mark.parametrize("target", NAMES)
def test_each_target_runs(target: str, here: Path) -> None:
    words = ("evaluation.walk=3", "hydra.run.dir=run")
    assert infer(f"target={target}", "objective=none", "sampler=langevin", *words) == 0
    assert left(here / "run") == PLAIN


SAMPLERS = sorted(path.stem for path in (config_dir() / "sampler").glob("*.yaml"))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_sampler_runs(sampler: str, here: Path) -> None:
    objective = {"none": "elbo", "hmc_tempered": "annealed"}.get(sampler, "metvae")
    assert infer("target=ring", f"sampler={sampler}", f"objective={objective}", "hydra.run.dir=run") == 0
    no_chains = {"chains.npy", "walk.png"} if objective != "metvae" else set()
    assert left(here / "run") == TRAINED - no_chains


def test_what_a_sampler_was_trained_to_is_not_changed_by_measuring_it(here: Path) -> None:
    words = ("target=ring", "sampler=hmc", "sampler.step_size_rule=adapted", "hydra.run.dir=run")
    assert infer(*words, "evaluation.warm_up=200", "sampler.step_size=1e-3") == 0
    summary = read(here / "run", "summary.json")
    assert summary["step_size/1"] < 2e-3 < summary["chains/step_size_1"]
