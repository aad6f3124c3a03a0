"""Networks in bfloat16: densities stay in single precision, and evaluation does not know of it."""

from pathlib import Path

import pytest
import torch

from metvae_cli.build import build_experiment
from metvae_cli.evaluation.frozen import freeze
from tests.runs import TINY, configuration, train
from tests.training.training import SMALL

HEADS = ("encoder.head=full", "encoder.head=low_rank", "encoder.flow=realnvp", "encoder=conv", "prior=hierarchical")


@pytest.mark.parametrize("head", HEADS)
def test_densities_are_in_single_precision(head: str) -> None:
    conv = head == "encoder=conv"
    words = [word for word in SMALL if not (conv and "hidden" in word)]
    words += [head, *(["decoder=conv"] if conv else [])]
    model = build_experiment(configuration(*words), []).learner.model
    x = torch.rand(7, 1, 8, 8).round()
    z = torch.randn(3, 7, 2)
    exact = model.joint(x)(z), model.posterior(x).mean
    model.network_dtype = torch.bfloat16
    density, posterior = model.joint(x)(z), model.posterior(x)
    drawn = posterior.rsample((3,))
    assert {density.dtype, posterior.mean.dtype, drawn.dtype, posterior.log_prob(drawn).dtype} == {torch.float32}
    assert 0 < (density - exact[0]).abs().max() < 0.02 * exact[0].abs().max()
    assert 0 < (posterior.mean - exact[1]).abs().max() < 0.05
    frozen = freeze(model, torch.device("cpu")).host
    assert frozen.joint(x.double())(z.double()).dtype == torch.float64
    assert torch.allclose(frozen.joint(x.double())(z.double()).float(), exact[0], atol=1e-3)


@pytest.mark.parametrize("method", ["digits_metvae_hmc", "digits_metvae_flow", "digits_lmcvae"])
def test_training_in_bfloat16_reaches_what_single_precision_does(tmp_path: Path, method: str) -> None:
    bounds = {}
    for precision in ("32-true", "bf16-mixed"):
        words = (f"experiment={method}", f"trainer.precision={precision}", "trainer.max_epochs=2")
        experiment = build_experiment(configuration(*TINY, *words), [])
        learner = experiment.learner
        for _ in range(60):
            output = learner.objective(learner.model, learner.sampler, learner.dataset.batch(torch.arange(100)))
            learner.optimizer.zero_grad()
            output.loss.backward()
            learner.optimizer.step()
            bounds[precision] = output.bound.mean().item()
        assert {parameter.dtype for parameter in learner.model.parameters()} == {torch.float32}
    assert bounds["bf16-mixed"] == pytest.approx(bounds["32-true"], rel=0.02)
    assert bounds["bf16-mixed"] != bounds["32-true"]


def test_a_run_in_bfloat16_ends_like_any_other(tmp_path: Path) -> None:
    assert train("trainer.precision=bf16-mixed", f"hydra.run.dir={tmp_path}/run") == 0
    assert (tmp_path / "run" / "summary.json").is_file()
