"""Wrong command lines: status 2, one line that names the key and the remedy, and nothing left behind."""

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from metvae_cli.data.mnist import EXPECTED_SHA256
from metvae_cli.training.checkpoint import load_checkpoint
from tests.runs import files, metvae, train

# The words of `metvae train`, and what the message must hold.
TRAIN: list[tuple[str, tuple[str, ...]]] = [
    # unknown words
    ("sede=1", ("sede", "did you mean seed")),
    ("sampler.num_stesp=2", ("sampler.num_stesp", "did you mean sampler.num_steps")),
    ("+sampler.stepsize=0.1", ("sampler.stepsize", "did you mean step_size")),
    ("+extra=1", ("extra", "unknown key")),
    ("trainer.epochs=3", ("trainer.epochs", "did you mean trainer.max_epochs")),
    ("smapler=hmc", ("smapler", "did you mean sampler")),
    ("sampler=hcm", ("sampler=hcm", "did you mean hmc")),
    ("experiment=digits_metvae_hm", ("experiment=digits_metvae_hm", "did you mean digits_metvae_hmc")),
    ("optimizer=adamm", ("optimizer=adamm", "did you mean adam")),
    ("optimizer.algorithm=adma", ("optimizer.algorithm=adma", "did you mean adam")),
    ("encoder.activation=relu", ("encoder.activation=relu", "gelu")),
    ("sampler.acceptance=baker", ("sampler.acceptance=baker", "did you mean barker")),
    ("dataset.binarization=random", ("dataset.binarization=random", "dynamic")),
    # wrong types
    ("seed=ten", ("seed=ten", "an integer")),
    ("sampler.num_steps=two", ("sampler.num_steps=two", "an integer")),
    ("sampler.num_steps=2.5", ("sampler.num_steps=2.5", "an integer")),
    ("sampler.num_steps=true", ("sampler.num_steps=true", "an integer")),
    ("sampler.step_size=big", ("sampler.step_size=big", "a number")),
    ("sampler.per_step=1", ("sampler.per_step=1", "true or false")),
    ("encoder.hidden=3", ("encoder.hidden=3", "a list")),
    ("encoder.hidden=[a]", ("encoder.hidden=['a']", "a list")),
    ("encoder.activation=1", ("encoder.activation=1", "gelu")),
    ("encoder.activation={a:1}", ("encoder.activation={'a': 1}", "gelu")),
    ("latent_dim=null", ("latent_dim=null", "an integer")),
    ("trainer.max_iterations=many", ("trainer.max_iterations=many", "an integer or null")),
    # out of range
    ("seed=-1", ("seed=-1", "between 0 and")),
    ("latent_dim=0", ("latent_dim=0", "at least 1")),
    ("sampler.num_steps=-1", ("sampler.num_steps=-1", "at least 0")),
    ("sampler.step_size=0", ("sampler.step_size=0", "positive")),
    ("sampler.step_size=-1", ("sampler.step_size=-1", "positive")),
    ("sampler.step_size=nan", ("sampler.step_size=nan", "positive finite")),
    ("sampler.step_size=inf", ("sampler.step_size=inf", "positive finite")),
    ("sampler.num_leapfrog=0", ("sampler.num_leapfrog=0", "at least 1")),
    ("sampler.target_accept=1", ("sampler.target_accept=1", "between 0 and 1")),
    ("dataset.batch_size=0", ("dataset.batch_size=0", "at least 1")),
    ("dataset.num_valid=2000", ("dataset.num_valid=2000", "at most 1796")),
    ("encoder.hidden=[0]", ("encoder.hidden=[0]", "at least 1")),
    ("objective.num_samples=0", ("objective.num_samples=0", "at least 1")),
    ("optimizer.lr=0", ("optimizer.lr=0", "positive")),
    ("optimizer.momentum=1", ("optimizer.momentum=1", "[0, 1)")),
    ("trainer.max_epochs=0", ("trainer.max_epochs=0", "positive")),
    ("trainer.max_seconds=nan", ("trainer.max_seconds=nan", "finite")),
    ("trainer.kl_warmup_epochs=-1", ("trainer.kl_warmup_epochs=-1", "0 or more")),
    ("likelihood=gaussian dataset.binarization=none likelihood.scale=0", ("likelihood.scale=0", "positive")),
    # contradictions
    ("sampler=hmc sampler.acceptance=none", ("objective.bookkeeping=path", "sampler.acceptance=barker")),
    ("sampler.num_steps=0", ("objective.bookkeeping=path", "sampler.num_steps")),
    ("sampler=hmc objective=annealed", ("objective.bookkeeping=reversal", "sampler.schedule=linear")),
    ("objective=annealed sampler=none", ("objective.bookkeeping=reversal", "objective=elbo")),
    ("objective=elbo", ("objective.bookkeeping=none", "sampler=none")),
    ("objective=iwae", ("objective.bookkeeping=none", "sampler=none")),
    ("sampler=hmc objective=metvae objective.num_samples=1", ("objective.num_samples=1", "objective.num_samples=2")),
    ("sampler=none objective=elbo sampler.num_steps=3", ("sampler.num_steps=3", "sampler=hmc")),
    (
        "sampler.per_dimension=true sampler.step_size_rule=adapted",
        ("sampler.per_dimension=true", "step_size_rule=learned"),
    ),
    ("sampler.num_steps=6 sampler.reverse=exact", ("sampler.num_steps=6", "at most 5", "reverse=learned")),
    ("sampler=hmc_tempered sampler.reverse=exact sampler.acceptance=barker", ("sampler.reverse=exact", "learned")),
    ("sampler=flow sampler.noise=fresh sampler.reverse=exact", ("sampler.reverse=exact", "noise=none")),
    ("sampler=flow sampler.direction=forwards sampler.reverse=exact", ("sampler.reverse=exact", "direction=coin")),
    ("sampler.num_steps=6 sampler.decisions=enumerated", ("sampler.num_steps=6", "decisions=sampled")),
    ("sampler.decisions=enumerated sampler.acceptance=none", ("sampler.decisions=enumerated", "acceptance=barker")),
    ("sampler=flow sampler.learn_coin=true sampler.decisions=enumerated", ("enumerated", "learn_coin=false")),
    ("sampler.decisions=stopped sampler.acceptance=none", ("sampler.decisions=stopped", "acceptance=barker")),
    ("sampler.decisions=stopped sampler.reverse=exact", ("sampler.reverse=exact", "reverse=learned")),
    ("experiment=digits_amcvae sampler.decisions=stopped", ("bookkeeping=reversal", "sampler.decisions=sampled")),
    ("objective=annealed", ("sampler.decisions=stopped", "sampler=hmc", "objective=metvae_stopped")),
    ("objective=hoffman", ("objective=hoffman", "sampler=hmc", "sampler.acceptance=metropolis")),
    ("sampler.acceptance=none", ("sampler.decisions=stopped", "acceptance=barker")),
    ("sampler.decisions=some", ("sampler.decisions=some", "enumerated")),
    ("sampler.skip_threshold=0.1", ("sampler.skip_threshold=0.1", "acceptance=none")),
    ("experiment=digits_lmcvae sampler.skip_threshold=1", ("sampler.skip_threshold=1", "between 0 and 1")),
    ("experiment=digits_hvae sampler.skip_threshold=0.1", ("sampler.skip_threshold=0.1", "skip_threshold=null")),
    ("sampler=random_walk sampler.step_size_rule=variance_sensitive", ("variance_sensitive", "step_size_rule=adapted")),
    ("sampler=none objective=elbo +sampler.cloned_decoder=true", ("sampler.cloned_decoder=true", "no chain")),
    ("experiment=digits_hoffman sampler.cloned_decoder=true", ("objective=hoffman", "sampler.cloned_decoder=false")),
    ("experiment=digits_hoffman sampler.reverse=exact", ("objective=hoffman", "sampler.reverse=uniform")),
    ("experiment=digits_vcd prior=vamp", ("prior", "made of the encoder", "prior=standard_normal")),
    ("objective=cubo sampler=none prior=vamp", ("prior", "made of the encoder", "prior=standard_normal")),
    ("experiment=digits_vcd sampler.precondition=encoder", ("objective=vcd", "sampler.precondition=none")),
    ("experiment=digits_hvae sampler.tempering=free sampler.initial_temperature=2", ("tempering=fixed",)),
    ("experiment=digits_vcd sampler.decisions=enumerated", ("objective=vcd", "sampler.decisions=sampled")),
    ("experiment=digits_amcvae sampler.reverse=exact", ("bookkeeping=reversal", "sampler.reverse=uniform")),
    ("objective.functional=renyi sampler.decisions=enumerated", ("functional=renyi", "sampler.decisions=sampled")),
    (
        "sampler=hmc objective=metvae objective.functional=log_mean_exp objective.baseline=running",
        ("objective.baseline=running", "objective.baseline=leave_one_out"),
    ),
    ("objective=cubo", ("objective=cubo", "sampler=none")),
    ("objective=cubo sampler=none objective.order=0.5", ("objective.order=0.5", "at least 1")),
    ("sampler=hmc objective=hoffman", ("objective=hoffman", "step sizes", "step_size_rule=adapted")),
    ("objective=vcd sampler=flow sampler.acceptance=metropolis", ("objective=vcd", "flows", "sampler=hmc")),
    (
        "sampler=hmc objective=hoffman sampler.acceptance=metropolis sampler.step_size_rule=adapted "
        "sampler.precondition=adapted",
        ("objective.num_samples=1", "sampler.precondition=encoder"),
    ),
    ("sampler=hmc sampler.schedule_start=geometric", ("sampler.schedule_start=geometric", "schedule=learned")),
    ("sampler=hmc sampler.reverse_detach=true", ("sampler.reverse_detach=true", "reverse=learned")),
    ("sampler.per_dimension=true sampler.step_size_rule=fixed", ("sampler.per_dimension=true", "learned")),
    ("trainer.inference_iterations=5000", ("trainer.inference_iterations=5000", "never be trained")),
    ("trainer.score_warmup_epochs=-1", ("trainer.score_warmup_epochs=-1", "0 or more")),
    ("trainer.checkpoint_chain=1", ("trainer.checkpoint_chain=1", "true or false")),
    ("trainer.inference_iterations=-1", ("trainer.inference_iterations=-1", "0 or more")),
    ("dataset=gaussian_toy", ("likelihood=bernoulli", "likelihood=gaussian")),
    ("likelihood=gaussian", ("likelihood=gaussian", "digits")),
    # what is not there
    ("trainer.device=cuda:99", ("trainer.device=cuda:99", "there is cpu")),
    ("trainer.device=tpu", ("trainer.device=tpu", "there is cpu")),
    ("trainer.device=2", ("trainer.device=2: expected one of auto, cpu, cuda, cuda:N, mps",)),
    ("dataset=mnist dataset.download=false", ("dataset.root=data", "train-images-idx3-ubyte", "dataset.download=true")),
    ("resume=nowhere", ("resume=nowhere", "no run is there")),
    ("resume=nowhere seed=3", ("seed=3", "resume")),
    ("++resume=outputs/train/RUN", ("resume=outputs/train/RUN", "resume=DIR")),
    ("sampler=null", ("sampler=null", "metvae configs list")),
    ("sweep=3", ("sweep=3: expected keys of its own",)),
    ("sweep=null", ("sweep=null: expected keys of its own",)),
    ("sweep=[1]", ("sweep=[1]",)),
    ("~sampler", ("sampler", "metvae configs list sampler")),
    ("~sampler.num_steps", ("sampler.num_steps", "must be given")),
    ("sampler._target_=null", ("sampler", "num_steps")),
    ("latent_dim=???", ("latent_dim", "Missing mandatory value")),
    ("latent_dim=${nothing}", ("nothing", "not found")),
    ("trainer=fast", ("trainer=fast", "default")),
    # what is no override
    ("sampler", ("sampler", "key=value")),
    ("seed==1", ("seed==1", "key=value")),
    ("=1", ("=1", "has no key")),
    ("encoder.hidden=[1,2", ("encoder.hidden=[1,2", "key=value")),
    ("--sampler=hmc", ("--sampler=hmc", "unrecognized")),
    ("--config-name=nothing", ("nothing",)),
    ("-m sampler=hmc,hcm", ("sampler=hcm", "did you mean hmc")),
    ("seed=1,2", ("seed=1,2", "-m")),
    ("sampler=hmc,langevin", ("sampler=hmc,langevin: is several choices", "-m", "sampler=hmc takes one")),
]
SAMPLE: list[tuple[str, tuple[str, ...]]] = [
    ("", ("run=null", "run=outputs/train/RUN")),
    ("run=nowhere", ("run=nowhere", "no run is there")),
    ("run=3", ("run=3", "text")),
    ("run=nowhere count=0", ("count=0", "at least 1")),
    ("run=nowhere count=many", ("count=many", "an integer")),
    ("run=nowhere checkpoint=first", ("checkpoint=first", "best or last")),
    ("rnu=nowhere", ("rnu", "did you mean run")),
]


def refused(status: int, capsys: pytest.CaptureFixture[str], expected: Sequence[str]) -> None:
    """Status 2 and one line, which holds all that is expected."""
    captured = capsys.readouterr()
    assert status == 2, captured.err
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("metvae: error: ")
    assert captured.out == ""
    for part in expected:
        assert part in lines[0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("words", "expected"), TRAIN, ids=[words for words, _ in TRAIN])
def test_train_refuses(words: str, expected: Sequence[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(metvae("train", *words.split()), capsys, expected)
    assert files(here) == set()


@pytest.mark.parametrize(("words", "expected"), SAMPLE, ids=[words or "nothing" for words, _ in SAMPLE])
def test_sample_refuses(words: str, expected: Sequence[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(metvae("sample", *words.split()), capsys, expected)
    assert files(here) == set()


def test_a_damaged_file_of_mnist_is_named_with_both_hashes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "idx").mkdir()
    for name in EXPECTED_SHA256:
        (here / "idx" / name).write_bytes(struct.pack(">II", 2049, 0))
    before = files(here)
    name, expected = next(iter(EXPECTED_SHA256.items()))
    status = train("dataset=mnist", "dataset.root=idx", "dataset.download=false")
    refused(status, capsys, ("dataset.root=idx", name, expected, "found "))
    assert files(here) == before


def test_mnist_without_a_network_says_what_to_do(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*arguments: object, **named: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    refused(train("dataset=mnist"), capsys, ("dataset.root=data", "could not be downloaded", "service not known"))
    assert files(here) == set()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        assert train("hydra.run.dir=run", "optimizer.schedule=cosine", "trainer.max_epochs=1") == 0
        return Path("run").absolute()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("seed=3", ("seed=3", "only trainer.*")),
        ("sampler=langevin", ("sampler=langevin", "only trainer.*")),
        ("-m", ("-m", "only trainer.*")),
        ("trainer.max_epochs=[3", ("trainer.max_epochs=[3: is not of the form key=value",)),
        ("trainer.max_epochs=${x", ("trainer.max_epochs=${x: is not of the form key=value",)),
        ("trainer.max_epochs=${x}", ("trainer.max_epochs=${x}: is not of the form key=value",)),
        ("plugins=[a", ("plugins=[a: not of the form key=value",)),
        ("trainer.max_epoch=3", ("trainer.max_epoch", "did you mean trainer.max_epochs")),
        ("trainer.max_iterations=soon", ("trainer.max_iterations=soon", "an integer or null")),
        ("trainer.max_epochs=9", ("trainer.max_epochs", "cosine")),
        ("trainer.device=cuda:99", ("trainer.device=cuda:99", "there is cpu")),
    ],
)
def test_a_resume_refuses_and_changes_nothing(
    words: str, expected: Sequence[str], run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: (run / name).read_bytes() for name in files(run) if (run / name).is_file()}
    refused(metvae("train", f"resume={run}", *words.split()), capsys, expected)
    assert {name: (run / name).read_bytes() for name in files(run) if (run / name).is_file()} == before
    assert files(here) == set()


def test_a_damaged_checkpoint_is_refused(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "checkpoints" / "best.pt"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
        refused(metvae("sample", f"run={run}"), capsys, (str(path), "damaged"))
    finally:
        path.write_bytes(whole)
    load_checkpoint(path)
    assert files(here) == set()


@pytest.mark.parametrize(
    ("words", "note"),
    [
        ("sampler=none objective=iwae objective.num_samples=1", "objective.num_samples=1: the importance-weighted"),
        ("sampler=hmc sampler.acceptance=metropolis", "K log 2 = 1.39 nats are lost"),
        ("sampler.detach_forces=true", "sampler.detach_forces=true: the gradient is biased"),
        ("trainer.checkpoint_chain=true sampler=none objective=elbo", "has no effect, since there is no chain"),
    ],
)
def test_what_is_sound_but_odd_runs_with_a_note(
    words: str, note: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for word in words.split() if word == "sampler=none"]
    steps = ["sampler.num_steps=0"] if given else []
    assert train("trainer.max_iterations=1", *words.split(), *steps) == 0
    (log,) = here.glob("outputs/train/*/train.log")
    assert note in " ".join(capsys.readouterr().err.split())
    assert note in log.read_text()
