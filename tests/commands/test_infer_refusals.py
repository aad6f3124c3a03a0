"""What `metvae infer` refuses, and how it fails: in one line, with nothing left behind that was not there."""

import json
from pathlib import Path

import pytest

from tests.runs import files, infer, metvae

WALK = ("target=gaussian", "sampler=random_walk", "objective=none")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


WRONG: list[tuple[str, tuple[str, ...]]] = [
    ("target=gausian", ("target=gausian", "did you mean gaussian")),
    ("sampler=hcm", ("sampler=hcm", "did you mean hmc")),
    ("initial=ful", ("initial=ful", "did you mean full")),
    ("dataset=digits", ("dataset", "unknown key")),
    ("experiment=digits_vae", ("dataset", "unknown key")),
    ("latent_dim=3", ("latent_dim", "unknown key")),
    ("target=gaussian target.dimm=3", ("target.dimm", "did you mean target.dim")),
    ("target=gaussian target.correlation=2", ("target.correlation=2", "between -1 and 1")),
    ("target=eight_modes target.dim=two", ("target.dim=two", "an integer")),
    ("target=null", ("target=null", "metvae configs list")),
    ("initial.scale=0", ("initial.scale=0", "0.0001")),
    ("initial.head=low_rank", ("initial.head=low_rank", "full")),
    ("batch_size=0", ("batch_size=0", "at least 1")),
    ("epoch_iterations=0", ("epoch_iterations=0", "at least 1")),
    ("epoch_iterations=1000000000000000000000", ("epoch_iterations=1000000000000000000000", "at most 100000000")),
    ("seed=-1", ("seed=-1", "between 0 and")),
    ("evaluation.draws=3", ("evaluation.draws=3", "at least 10")),
    ("evaluation.chains=some", ("evaluation.chains=some", "an integer")),
    ("evaluation=null", ("evaluation=None",)),
    ("objective=none sampler=none", ("sampler=none", "sampler=random_walk")),
    ("objective=none sampler.num_steps=0", ("sampler.num_steps=0", "1 or more")),
    ("objective=none sampler=hmc_tempered", ("objective=none", "sampler=hmc")),
    ("objective=elbo", ("objective.bookkeeping=none", "sampler=none")),
    ("initial=fixed sampler=none objective=elbo", ("initial.learned=false", "objective=none")),
    ("trainer.inference_iterations=3", ("trainer.inference_iterations=3", "trainer.inference_iterations=0")),
    ("trainer.kl_warmup_epochs=3", ("trainer.kl_warmup_epochs=3", "trainer.kl_warmup_epochs=0")),
    ("sampler.cloned_decoder=true", ("sampler.cloned_decoder=true", "no decoder to copy")),
    ("trainer.precision=bf16-mixed", ("trainer.precision=bf16-mixed", "trainer.precision=32-true")),
    ("++resume=outputs/infer/RUN", ("resume=outputs/infer/RUN", "resume=DIR")),
    ("trainer.test_data=3", ("trainer.test_data=3", "trainer.test_data=null")),
    ("methods=[infer_ring]", ("methods=[infer_ring]", "did you mean infer_ring")),
    ("methods=[infer_walk,infer_walk]", ("methods=[infer_walk,infer_walk]", "twice")),
    ("methods=[infer_ring_posterior]", ("methods=[infer_ring_posterior]", "list of methods")),
    ("methods=[infer_walk,infer_ring_vae]", ("methods=[infer_walk,infer_ring_vae]", "different targets")),
    ("methods=infer_walk", ("methods=infer_walk", "a list")),
    ("methods=[infer_ring_vae,infer_ring_iwae] optimizer.lr=-1", ("optimizer.lr=-1", "positive")),
    ("target._target_=os.path.join", ("target._target_=os.path.join", "refused")),
    ("target._target_=metvae_cli.targets.base.Target", ("target._target_", "refused")),
    ("target._target_=metvae_cli.kernels.random_walk.RandomWalk", ("target",)),
    ("resume=nowhere", ("resume=nowhere", "no run is there")),
    ("resume=", ("resume=", "outputs/infer/RUN")),
    ("--sampler=hmc", ("--sampler=hmc", "metvae help infer")),
]


@pytest.mark.parametrize(("words", "expected"), WRONG, ids=[words for words, _ in WRONG])
def test_wrong_words_are_one_line_and_leave_nothing(
    words: str, expected: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert metvae("infer", *words.split()) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("metvae: error: ")
    assert said.out == ""
    assert all(part in line for part in expected), line
    assert files(here) == set()


@pytest.mark.parametrize("words", ["objective=none", "objective=none sampler=none", "experiment=infer_walk"])
def test_training_refuses_what_is_for_infer(words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert metvae("train", *words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "objective" in line or "target" in line or "num_steps" in line
    assert files(here) == set()


def test_an_earlier_run_is_refused_and_stays_as_it_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert infer(*WALK, "hydra.run.dir=run/infer_walk") == 0
    before = {name: (here / name).read_bytes() for name in files(here) if (here / name).is_file()}
    capsys.readouterr()
    for words in ((*WALK, "hydra.run.dir=run/infer_walk"), ("methods=[infer_walk]", "hydra.run.dir=run")):
        assert infer(*words) == 2
        assert "run/infer_walk: holds a run already" in capsys.readouterr().err
    assert {name: (here / name).read_bytes() for name in files(here) if (here / name).is_file()} == before


def test_a_failure_is_told_in_the_runs_own_log(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("optimizer=sgd", "optimizer.lr=1e30", "trainer.clip_norm=null", "trainer.max_bad_steps=2")
    assert infer("target=funnel", *words, "hydra.run.dir=run") == 1
    assert "not finite" in capsys.readouterr().err.splitlines()[-1]
    assert json.loads((here / "run" / "status.json").read_text())["status"] == "failed"
    assert "Traceback" in (here / "run" / "infer.log").read_text()
