"""`make bench`: what it prints and writes, what it refuses, and that floors and counts are what they claim to be."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from benchmarks import growth, measuring, speed
from benchmarks.contenders import METHODS, Case, Contender, Machine, latents_decoded, make_contender, write_images
from benchmarks.floor import floor, value_and_gradient
from benchmarks.measuring import Budget, SavedBytes, take_turns
from benchmarks.rows import Row, count_decoded, resident_megabytes, saved_megabytes
from metvae_cli.training.course import Batch
from metvae_cli.training.trainer import Trainer
from tests.runs import own_globals

TINY = ("latent_dim=2", "encoder.hidden=[8]", "decoder.hidden=[8]", "dataset.batch_size=4")
SET = [part for word in TINY for part in ("--set", word)]
DIFFERENTIATED_AGAIN = [name for name, method in METHODS.items() if method.kind == "chain"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 700)


@pytest.fixture
def bench(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images, and blocks of one iteration."""
    monkeypatch.setattr(speed, "write_images", lambda folder: images)
    monkeypatch.setattr(measuring, "BLOCK_SECONDS", 0.0)


def make(images: Path, method: str, steps: int, *words: str) -> Contender:
    own = METHODS[method].steps
    steps = steps if own is None else own
    with own_globals():
        return make_contender(Case("fc400", method, steps, words or TINY), Machine("cpu", 1, images))


def run(*words: str) -> int:
    with own_globals():
        return speed.main(["--quick", "--threads", "1", "--blocks", "1", *SET, *words])


@pytest.mark.slow
def test_the_quick_table_has_every_method_and_column(
    bench: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "speed.json"
    assert run("--table", "--json", str(path)) == 0
    report = json.loads(path.read_text(encoding="utf-8"))
    assert {"cpu", "device", "torch", "threads", "load_at_start", "load_at_end"} <= report["machine"].keys()
    assert [row["method"] for row in report["rows"]] == [*METHODS]
    for row in report["rows"]:
        assert row.keys() == Row.__annotations__.keys()
        assert row["decoded"] == row["decoded_expected"]
        assert row["ms"] > 0
        assert row["floor_ms"] > 0
        assert row["peak_mb"] > 0
    printed = capsys.readouterr().out
    assert all(f"fc400 {method}" in printed for method in METHODS)


def test_a_row_whose_steps_are_not_finite_is_said_and_the_others_go_on(
    bench: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients = Trainer.gradients

    def spoiled(self: Trainer, index: Tensor) -> Batch:
        if self.learner.objective.num_samples == 50 and self.state.iteration == 1:
            nn.init.constant_(self.parameters[0], float("nan"))
        return gradients(self, index)

    monkeypatch.setattr(Trainer, "gradients", spoiled)
    path = tmp_path / "speed.json"
    assert run("--table", "--methods", "vae,iwae50,renyi", "--json", str(path)) == 1
    found = {row["method"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    assert found.keys() == {"vae", "iwae50", "renyi"}
    assert found["iwae50"]["error"] == "step 2 was not finite, and so was not made"
    assert min(found["vae"]["ms"], found["renyi"]["ms"]) > 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fc400")]
    assert ["not measured: step 2" in line for line in lines] == [False, True, False]


def test_growth_has_a_law_and_a_figure(bench: None, tmp_path: Path) -> None:
    path, figure = tmp_path / "growth.json", tmp_path / "growth.png"
    assert run("--growth", "--json", str(path), "--figure", str(figure)) == 0
    found = json.loads(path.read_text(encoding="utf-8"))["growth"]
    assert [one["quantity"] for one in found] == ["K", "batch"]
    assert all(len(one["ms"]) == len(one["values"]) for one in found)
    assert all(one["law"].keys() == {"intercept", "slope", "largest_error"} for one in found)
    assert figure.stat().st_size > 1000


def test_threads_have_no_law(bench: None, images: Path) -> None:
    with own_globals():
        found = growth.measure_growth("fc400", "threads", [1], Machine("cpu", 1, images), Budget(1.0, 1), TINY)
    assert found["law"] is None
    assert len(growth.lines(found)) == 2


def test_the_law_is_found() -> None:
    law = growth.law([1, 2, 5], [5.0, 8.0, 17.0])
    assert law == pytest.approx({"intercept": 2.0, "slope": 3.0, "largest_error": 0.0}, abs=1e-9)


@pytest.mark.slow
def test_the_loop_and_the_command_are_timed(bench: None, tmp_path: Path) -> None:
    path = tmp_path / "loop.json"
    assert run("--loop", "--methods", "vae", "--json", str(path)) == 0
    (row,) = json.loads(path.read_text(encoding="utf-8"))["loop"]
    assert min(row["bare_ms"], row["loop_ms"], row["command_ms"], row["command_seconds"]) > 0


@pytest.mark.slow
def test_resident_memory_is_that_of_another_process(bench: None, tmp_path: Path) -> None:
    path = tmp_path / "rss.json"
    assert run("--table", "--methods", "vae", "--rss", "--json", str(path)) == 0
    (row,) = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert row["rss_mb"] > row["peak_mb"]


@pytest.mark.slow
def test_resident_memory_is_not_that_of_the_process_that_asked(images: Path) -> None:
    case, machine = Case("fc400", "vae", 0, TINY), Machine("cpu", 1, images)
    before = resident_megabytes(case, machine)
    held = torch.ones(2**28)  # a gigabyte, in this process
    assert resident_megabytes(case, machine) < before + 200
    del held


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "lmcva"], "did you mean lmcvae"),
        (["--net", "fc400,resnet"], "known: fc400, conv"),
        (["--steps", "5,0"], "'0' is not a positive whole number"),
        (["--seconds", "soon"], "'soon' is not a positive number of seconds"),
        (["--threads", "4096"], "this machine has"),
        (["--device", "tpu"], "'tpu' is not on this machine"),
        (["--json", "nowhere/at/all.json"], "cannot be written"),
        (["--figure", "growth.png"], "say --growth too"),
        (["--faster"], "--faster"),
        (["--set", "sampler.stepsize=3", "--methods", "vae"], "stepsize"),
    ],
)
def test_wrong_words_are_refused_in_one_line(
    bench: None, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run(*words)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("bench: error: ")
    assert error.count("\n") == 1
    assert said in error


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_decoder_evaluations_of_every_method(images: Path, method: str, steps: int) -> None:
    """As its experiment stands: K + 1, with leapfrogs 1 + K L, and one more where the decoder is trained apart."""
    contender = make(images, method, steps)
    learner = contender.experiment.learner
    steps = {"vae": 0, "iwae10": 0, "iwae50": 0, "renyi": 0, "flow_vae": 0}.get(method, steps)
    leapfrogs = 5 if method == "vcd" else 1
    apart = method in ("hoffman", "vcd")
    needed = (1 + steps * leapfrogs + apart) * learner.objective.num_samples * 4
    assert learner.sampler.evaluations == 1 + steps * leapfrogs
    assert count_decoded(contender) == needed == contender.expected


@pytest.mark.parametrize(
    ("method", "calls", "gradients"),
    [("vae", 1, 0), ("metvae_flow", 6, 0), ("lmcvae", 6, 6), ("amcvae", 6, 6), ("hoffman", 7, 6), ("vcd", 27, 26)],
)
def test_a_floor_consists_of_what_it_claims(
    images: Path, method: str, calls: int, gradients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoder calls, gradients in z, and through which of these the last gradient passes."""
    contender = make(images, method, 5)
    taken: list[Tensor] = []
    reached: list[Tensor] = []
    real = torch.autograd.grad

    def noted(*args: Any, **kwargs: Any) -> Sequence[Tensor]:
        found = real(*args, **kwargs)
        taken.extend(found)
        for gradient in found:
            if gradient.requires_grad:
                gradient.register_hook(reached.append)
        return found

    monkeypatch.setattr(torch.autograd, "grad", noted)
    with latents_decoded(cast(nn.Module, contender.experiment.learner.model.decoder)) as decoded:
        floor(contender)(1)
    samples = contender.experiment.learner.objective.num_samples
    assert [len(z) for z in decoded] == [4 * samples] * calls
    assert len(taken) == gradients
    assert len(reached) == (gradients if METHODS[method].kind == "chain" else 0)
    assert all(gradient.abs().max() > 0 for gradient in reached)
    learner = contender.experiment.learner
    assert all(parameter.grad is not None for parameter in learner.model.parameters())
    flows = [parameter for name, parameter in learner.sampler.named_parameters() if "bijection" in name]
    assert all(parameter.grad is not None for parameter in flows)
    assert bool(flows) == (method == "metvae_flow")


@pytest.mark.parametrize("method", [*DIFFERENTIATED_AGAIN, "hoffman"])
def test_a_step_keeps_no_more_than_one_decoder_graph(images: Path, method: str) -> None:
    """Bytes that autograd holds for one step more, against those of one value and gradient with its graph."""
    words = ("latent_dim=16", "dataset.batch_size=50")
    five, six = make(images, method, 5, *words), make(images, method, 6, *words)
    learner = six.experiment.learner
    saved = SavedBytes(learner.model.parameters())
    z = torch.randn(learner.objective.num_samples, 50, 16, requires_grad=True)
    with saved.watching():
        kept = value_and_gradient(learner.model, z, six.x, again=True)
    most = 1.1 * saved.present / 2**20 if METHODS[method].kind == "chain" else 0.0
    assert kept[1].requires_grad
    assert saved_megabytes(six) - saved_megabytes(five) <= most


def test_bytes_are_those_held_at_a_time() -> None:
    saved, x = SavedBytes([]), torch.ones(1000, requires_grad=True)
    with saved.watching():
        first = x.exp().sum()  # keeps its own result
        assert saved.present == 4000
        y = x.sin()
        second = (y * y).sum()  # x of the sine, and y, held twice and stored once
        assert saved.present == 12_000
        first.backward()
        assert saved.present == 8000
        second.backward()
    assert saved.present == 0
    assert saved.peak == 12_000


def test_contenders_take_turns() -> None:
    order: list[str] = []
    runs = {name: lambda count, name=name: order.extend([name] * count) for name in "ab"}
    times = take_turns(runs, Budget(60.0, rounds=2), block_seconds=0.0)
    assert order == ["a", "a", "b", "b", "a", "b", "a", "b"]
    assert all(one.low <= one.median <= one.high for one in times.values())
