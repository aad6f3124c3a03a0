"""Wrong words for every command: status 2, one line with the key, its value and what would be right, nothing left.

Those of `metvae train` and `metvae sample` that `commands/test_bad_input.py` has are not repeated.
"""

from pathlib import Path

import pytest

from tests.runs import files, metvae

# Each: the command line, and what its line must hold.
QUICK: list[tuple[str, tuple[str, ...]]] = [
    ("train sampler.step_size=1e400", ("sampler.step_size=inf", "positive finite")),
    ("train optimizer.lr=", ("optimizer.lr=", "expected a number")),
    ("train encoder.head=diagnal", ("encoder.head=diagnal", "mean_field, full, low_rank")),
    ("train +seed=1", ("'seed'", "++seed=1")),
    ("train 'seed=1", ("'seed=1", "key=value")),
    ("train -m seed=range(3,0)", ("seed=range(3,0)", "makes no job")),
    ("train hydra.run.dir=", ("hydra.run.dir=", "names no directory")),
    ("train --multirunn", ("--multirunn", "metvae help train")),
    ("train ~datset", ("~datset: there is no such key", "did you mean dataset?")),
    ("train --config-path=relative", ("--config-path=relative", "absolute", "--config-dir=DIR")),
    ("train --config-name=", ("--config-name=: no such file",)),
    ("train seed=choice()", ("seed=choice(): names no values", "seed=choice(0,1)")),
    ("evaluate run=nowhere split=tests", ("split=tests", "did you mean test?")),
    ("evaluate run=nowhere importance.widen=nan", ("importance.widen=nan", "positive and finite")),
    ("sample run=nowhere pictures=[priors]", ("priors", "did you mean prior?")),
    ("sample run=nowhere seed=-1", ("seed=-1", "at least 0")),
    ("infer target=banna", ("target=banna", "did you mean banana?")),
    ("infer batch_size=0", ("batch_size=0", "at least 1")),
    ("compare nowhere", ("nowhere: no such directory",)),
    ("compare --confidence=2 .", ("--confidence=2.0", "between 0 and 1")),
    ("configs lst", ("'lst'", "'list', 'show', 'copy'", "--help")),
    ("info --jsn", ("--jsn", "metvae info --help")),
    ("tran", ("'tran'", "did you mean 'train'?")),
    ("seed=1", ("metvae train seed=1",)),
]
SLOW: list[tuple[str, tuple[str, ...]]] = [
    ("train optimizer.lr=-1e400", ("optimizer.lr=-inf", "positive finite")),
    ("train latent_dim=2.0", ("latent_dim=2.0", "an integer")),
    ("train seed=4294967296", ("seed=4294967296", "between 0 and 4294967295")),
    ("train seed=1e3", ("seed=1000.0", "an integer")),
    ("train objective=renyi sampler=none objective.alpha=nan", ("objective.alpha=nan", "a number")),
    ("train dataset.batch_size=1e400", ("dataset.batch_size=inf", "an integer")),
    ("train dataset.num_test=0", ("dataset.num_test=0", "at least 1")),
    ("train trainer.max_iterations=0", ("trainer.max_iterations=0", "positive")),
    ("train trainer.patience=0", ("trainer.patience=0", "positive")),
    ("train trainer.test_samples=0", ("trainer.test_samples=0", "positive")),
    ("train trainer.replicas=2 trainer.devices=2", ("trainer.replicas=2", "trainer.devices=1")),
    ("train trainer.precision=half", ("trainer.precision=half", "32-true, bf16-mixed")),
    ("train decoder.hidden=[16,-1]", ("decoder.hidden=[16, -1]", "at least 1")),
    ("train prior=vamp prior.num_components=0", ("prior.num_components=0", "at least 1")),
    ("train dataset=csv dataset.path=nowhere.csv", ("dataset.path=nowhere.csv", "no such file")),
    ("train dataset=csv dataset.path=.", ("dataset.path=.", "no file")),
    ("train objective=none", ("objective", "metvae infer")),
    ("train ++sedee=1", ("sedee", "unknown key")),
    ("train ~nothing", ("~nothing", "no such key to leave out")),
    ("train ~seed", ("seed", "must be given")),
    ("train seed=[1", ("seed=[1", "key=value")),
    ("train seed=a=b", ("seed=a=b", "write")),
    ("train seed 3", ("seed: not of the form",)),
    ("train seed=range(0,3)", ("seed=range(0,3)", "--multirun")),
    ("train -m hydra/launcher=jobs seed=0,1", ("hydra/launcher=jobs", "did you mean joblib?")),
    ("train -m hydra/sweeper=optuna", ("nothing is left to search",)),
    ("train --cfg jobs", ("'jobs'", "'job', 'hydra', 'all'")),
    ("train --config-dir=nowhere", ("--config-dir=", "nowhere: no such directory", "like sampler/")),
    ("train encoder=/etc/passwd", ("passwd", "no such choice")),
    ("train -m sweep.resume=nowhere", ("sweep.resume=nowhere", "no sweep is there", "name the directory")),
    ("train plugins=mine", ("plugins=mine", "a list")),
    ("evaluate", ("run=null", "run=outputs/train/RUN")),
    ("evaluate run=nowhere", ("run=nowhere", "no run is there", "like outputs/train/RUN")),
    ("evaluate run=nowhere estimators=[] diagnostics=[]", ("estimators=[]", "nothing to do")),
    ("evaluate run=nowhere importance.num_samples=0", ("importance.num_samples=0", "at least 1")),
    ("evaluate run=nowhere ais.num_temperatures=0", ("ais.num_temperatures=0", "at least 2")),
    ("evaluate run=nowhere ais.numtemperatures=5", ("did you mean ais.num_temperatures?",)),
    ("evaluate runn=x", ("runn", "did you mean run?")),
    ("evaluate -x", ("-x", "metvae help evaluate")),
    ("sample run=nowhere mask_share=nan", ("mask_share=nan", "between 0 and 1")),
    ("sample run=nowhere pictures=[]", ("pictures=[]", "pictures=null")),
    ("sample run=nowhere steps=1", ("steps=1", "at least 2")),
    ("sample run=nowhere count=10001", ("count=10001", "at most 10000")),
    ("infer target=python target.path=x", ("target.path=x", "FILE.py:FUNCTION")),
    ("infer evaluation.draws=0", ("evaluation.draws=0", "at least 10")),
    ("infer methods=[infer_wlak]", ("infer_wlak", "did you mean infer_walk?")),
    ("infer objective=none sampler=none", ("sampler=none", "needs a chain")),
    ("infer initial.scale=-1", ("initial.scale=-1", "at least")),
    ("infer trainer.kl_warmup_epochs=2", ("trainer.kl_warmup_epochs=2", "set trainer.kl_warmup_epochs=0")),
    ("infer dataset=digits", ("dataset", "unknown key")),
    ("compare --metric", ("--metric", "compare --help")),
    ("compare --format=xml .", ("--format=xml", "terminal, csv")),
    ("compare --filter=seed<x .", ("--filter=seed<x", "no number")),
    ("compare --plot=x.txt .", ("--plot=x.txt", ".png")),
    ("configs list smapler", ("did you mean 'sampler'?",)),
    ("configs show", ("group=choice", "--help")),
    ("--versoin", ("'--versoin'", "there are train")),
    ("--completion fish", ("bash", "fish")),
]


def _refused(words: str, expected: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    status = metvae(*words.split())
    captured = capsys.readouterr()
    assert status == 2, captured.err
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("metvae: error: ")
    for part in expected:
        assert part in line
    assert files(Path()) == set()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("words", "expected"), QUICK, ids=[words for words, _ in QUICK])
def test_wrong_words_are_one_line(words: str, expected: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    _refused(words, expected, capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "expected"), SLOW, ids=[words for words, _ in SLOW])
def test_more_wrong_words_are_one_line(
    words: str, expected: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    _refused(words, expected, capsys)
