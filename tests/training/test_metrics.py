"""What is logged of a batch: each number against its definition; running means; memory of this program alone."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from metvae_cli.densities import Point
from metvae_cli.kernels.base import StepInfo
from metvae_cli.models.base import TrainedModel
from metvae_cli.objectives.base import ObjectiveOutput
from metvae_cli.training.metrics import Metrics, RunningMean, batch_metrics, peak_resident_mb
from tests.training.training import make

DATA = 7


def made_up(chains: int, steps: int) -> ObjectiveOutput:
    """Random numbers wherever a metric is read from."""
    generator = torch.Generator().manual_seed(10 * chains + steps)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    def flags() -> Tensor:
        return draw(steps, chains, DATA) < 0.4

    a, b, c, d, e, f = (draw(steps, chains, DATA) for _ in range(6))
    info = StepInfo(a, b, c, d, flags(), e, f, flags())
    end = Point(draw(chains, DATA, 2), draw(chains, DATA), draw(chains, DATA))
    weights = 3 * draw(chains, DATA) - 80
    return ObjectiveOutput(draw(), None, draw(DATA), weights, end, end, info, chains * DATA)


class Terms:
    """Stands for a model."""

    def terms(self, initial: Point, final: Point, likelihood_weight: float) -> dict[str, Tensor]:
        return {"first": initial.log_final.mean(), "second": likelihood_weight * final.z.mean()}


def by_definition(output: ObjectiveOutput, likelihood_weight: float) -> dict[str, float]:
    """Datum by datum in double precision, in Python's own arithmetic where it is not a mean."""
    weights, info = output.log_weights.double(), output.info
    spread, effective = [], []
    for of_one in weights.T.tolist():
        mean = sum(of_one) / len(of_one)
        spread.append(sum((value - mean) ** 2 for value in of_one) / len(of_one))
        scaled = [2.718281828459045 ** (value - max(of_one)) for value in of_one]
        effective.append(sum(scaled) ** 2 / sum(value**2 for value in scaled))
    found = {
        "bound": output.bound.double().mean().item(),
        "first": output.initial.log_final.double().mean().item(),
        "second": likelihood_weight * output.final.z.double().mean().item(),
        "log_weight_variance": sum(spread) / DATA,
        "effective_samples": sum(effective) / DATA,
    }
    for k in range(len(info.accepted)):
        found[f"accept_{k + 1}"] = info.accept_prob[k].double().mean().item()
        found[f"moved_{k + 1}"] = info.accepted[k].double().mean().item()
        found[f"divergent_{k + 1}"] = info.divergent[k].double().mean().item()
    return found


@pytest.mark.parametrize("chains", [1, 2, 5])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_each_number_is_what_its_name_says(chains: int, steps: int) -> None:
    output = made_up(chains, steps)
    model: TrainedModel = Terms()  # pyright: ignore[reportAssignmentType]
    names, values = batch_metrics(output, model, 0.5)
    expected = by_definition(output, 0.5)
    assert names == tuple(expected), "the columns of metrics.csv come in this order"
    assert values.tolist() == pytest.approx(list(expected.values()), rel=1e-5)
    swapped = output._replace(info=output.info._replace(accepted=output.info.divergent))
    assert (batch_metrics(swapped, model, 0.5).values.tolist() == values.tolist()) == (steps == 0)


def test_means_are_weighted_by_the_number_of_data() -> None:
    running = RunningMean()
    assert running.means() == {}
    running.add(Metrics(("a", "b"), torch.tensor([1.0, 0.1])), 30)
    running = RunningMean(*running.state())  # as a checkpoint keeps it
    running.add(Metrics(("a",), torch.tensor([5.0])).plus("b", torch.tensor(0.4, dtype=torch.float64)), 10)
    assert running.means() == pytest.approx({"a": 2.0, "b": 0.175}, rel=1e-7)
    with pytest.raises(ValueError, match=r"^means of b, a are not those of a, b$"):
        running.add(Metrics(("b", "a"), torch.zeros(2)), 1)


def test_sums_of_many_batches_do_not_lose_digits() -> None:
    running = RunningMean()
    for _ in range(3000):
        running.add(Metrics(("a",), torch.tensor([1e4 + 0.0078125])), 100)  # a float32 sum would be off by more
    assert running.means()["a"] == pytest.approx(1e4 + 0.0078125, abs=1e-6)


def test_an_iteration_puts_modules_into_training_that_something_put_out_of_it(tmp_path: Path) -> None:
    trainer = make(tmp_path, "trainer.max_iterations=1")
    trainer.learner.model.eval()  # as pictures do
    trainer.fit()
    before = [module.training for module in trainer.learner.model.modules()]
    trainer.gradients(torch.arange(4))
    assert all(module.training for module in trainer.modules.modules())
    assert not all(before), "validation had put them out of it"


PRINT_PEAK = "from metvae_cli.training.metrics import peak_resident_mb; print(peak_resident_mb(*{arguments}))"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux tells it there")
def test_peak_memory_is_not_that_of_the_parent(tmp_path: Path) -> None:
    """A parent that fills 900 MB starts a child; the system call, read where nothing else tells, gives the parent's."""
    other = tmp_path / "missing"
    script = f"""
import subprocess, sys
for arguments in ("()", "(__import__('pathlib').Path({str(other)!r}),)"):
    filled = bytearray(900_000_000)
    filled[::4096] = b"x" * len(filled[::4096])
    command = {PRINT_PEAK!r}.replace("{{arguments}}", arguments)
    print(subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    own, inherited = map(float, result.stdout.split())
    assert 50 < own < 700
    assert inherited > 850


def test_peak_memory_is_read_in_kilobytes(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tVmHWM: 5 kB\nVmPeak:\t  90000 kB\nVmHWM:\t   20480 kB\nVmRSS:\t 10240 kB\n")
    assert peak_resident_mb(status) == 20.0
    status.write_text("Name:\tpython\n")
    assert peak_resident_mb(status) > 50, "where it is not told, the system call tells it"
