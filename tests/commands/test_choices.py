"""Each choice of each group trains, on data at hand; and every kind of data with every likelihood that it allows."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from metvae_cli.paths import config_dir
from tests.runs import metvae

SHORT = (
    "latent_dim=4",
    "encoder.hidden=[16]",
    "decoder.hidden=[16]",
    "sampler.num_steps=2",
    "trainer.max_iterations=3",
    "trainer.test_samples=4",
    "trainer.test_data=10",
    "trainer.device=cpu",
)
IMAGE_NETS = ("encoder.hidden=[16]", "decoder.hidden=[16]")
GREY = "dataset.binarization=none"
LEVELS = ("gaussian", "continuous_bernoulli", "discretized_logistic", "categorical")


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (Path(config_dir()) / group).glob("*.yaml"))


def finished(folder: Path, *words: str) -> dict[str, float]:
    """The summary of a short run with finite numbers."""
    named = {word.split("=")[0].split(".")[0] for word in words}
    base = [word for word in SHORT if not (word in IMAGE_NETS and word.split(".")[0] in named)]
    assert metvae("train", *base, *words, f"hydra.run.dir={folder}") == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert all(math.isfinite(summary[name]) for name in ("train/bound", "val/bound", "test/nll"))
    assert summary["iterations"] == 3
    return summary


@pytest.mark.parametrize("prior", choices("prior"))
@pytest.mark.parametrize("objective", ["objective=metvae", "sampler=none objective=elbo"])
def test_each_prior(prior: str, objective: str, tmp_path: Path) -> None:
    words = objective.split() if "none" not in objective else [*objective.split(), "sampler.num_steps=0"]
    finished(tmp_path, f"prior={prior}", *words)


@pytest.mark.parametrize("encoder", choices("encoder"))
def test_each_encoder(encoder: str, tmp_path: Path) -> None:
    prior = "hierarchical" if encoder == "hierarchical" else "standard_normal"
    finished(tmp_path, f"encoder={encoder}", f"prior={prior}")


@pytest.mark.parametrize("head", ["mean_field", "full", "low_rank"])
@pytest.mark.parametrize("flow", ["none", "realnvp", "maf", "iaf"])
def test_each_head(head: str, flow: str, tmp_path: Path) -> None:
    finished(tmp_path, f"encoder.head={head}", f"encoder.flow={flow}", "encoder.hidden=[16]")


@pytest.mark.parametrize("flow", ["none", "realnvp", "maf", "iaf"])
def test_pseudo_inputs_with_each_flow(flow: str, tmp_path: Path) -> None:
    """The encoder is asked for the density of each position under each pseudo-input."""
    words = ("prior=vamp", "prior.num_components=7", f"encoder.flow={flow}", "encoder.head=full", "encoder.hidden=[16]")
    finished(tmp_path, *words)


@pytest.mark.parametrize("decoder", choices("decoder"))
def test_each_decoder(decoder: str, tmp_path: Path) -> None:
    finished(tmp_path, f"decoder={decoder}")


@pytest.mark.parametrize("likelihood", LEVELS)
def test_each_likelihood_of_grey_levels(likelihood: str, tmp_path: Path) -> None:
    summary = finished(tmp_path, GREY, f"likelihood={likelihood}")
    discrete = likelihood in ("discretized_logistic", "categorical")
    assert ("test/bits_per_dimension" in summary) == discrete
    if discrete:
        assert summary["test/bits_per_dimension"] == pytest.approx(summary["test/nll"] / 64 / math.log(2))


@pytest.mark.parametrize("words", ["likelihood=gaussian", "likelihood=continuous_bernoulli"])
def test_each_likelihood_of_dequantized_levels(words: str, tmp_path: Path) -> None:
    summary = finished(tmp_path, GREY, "dataset.dequantize=true", words)
    assert summary["test/bits_per_dimension"] == pytest.approx((summary["test/nll"] / 64 + math.log(256)) / math.log(2))


@pytest.mark.parametrize("binarization", ["dynamic", "static", "threshold"])
def test_each_binarization(binarization: str, tmp_path: Path) -> None:
    finished(tmp_path, f"dataset.binarization={binarization}", "likelihood=bernoulli")


@pytest.mark.parametrize("dataset", ["gaussian_toy", "ring"])
@pytest.mark.parametrize("scale", ["learn_scale", "predict_scale"])
def test_each_synthetic_set_of_real_values(dataset: str, scale: str, tmp_path: Path) -> None:
    summary = finished(tmp_path, f"dataset={dataset}", "likelihood=gaussian", f"likelihood.{scale}=true")
    assert math.isfinite(summary["test/nll_of_true_process"])


def test_linear_bernoulli(tmp_path: Path) -> None:
    summary = finished(tmp_path, "dataset=linear_bernoulli", "dataset.num_train=500")
    assert math.isfinite(summary["test/nll_of_true_process"])


ARRAYS = {
    "binary": (np.random.default_rng(0).integers(0, 2, (90, 6)).astype(np.uint8), "bernoulli"),
    "levels": (np.random.default_rng(0).integers(0, 256, (90, 8, 8)).astype(np.uint8), "discretized_logistic"),
    "unit": (np.random.default_rng(0).random((90, 6)).astype(np.float32), "continuous_bernoulli"),
    "real": (np.random.default_rng(0).normal(size=(90, 6)).astype(np.float32), "gaussian"),
    "counts": (np.random.default_rng(0).poisson(3.0, (90, 6)).astype(np.int64), "poisson"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_each_kind_of_array(kind: str, tmp_path: Path) -> None:
    values, likelihood = ARRAYS[kind]
    np.save(tmp_path / "x.npy", values)
    sizes = ("dataset.num_valid=10", "dataset.num_test=20", "dataset.batch_size=16")
    words = ("dataset=array", f"dataset.path={tmp_path / 'x.npy'}", *sizes, f"likelihood={likelihood}")
    finished(tmp_path / "run", *words)


@pytest.mark.parametrize("likelihood", choices("likelihood"))
def test_a_likelihood_that_does_not_fit_is_refused_with_those_that_do(
    likelihood: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values, fitting = ARRAYS["counts"]
    np.save(tmp_path / "x.npy", values)
    words = ("dataset=array", f"dataset.path={tmp_path / 'x.npy'}", "dataset.num_valid=10", "dataset.num_test=20")
    folder = tmp_path / "run"
    status = metvae("train", *SHORT, *words, f"likelihood={likelihood}", f"hydra.run.dir={folder}")
    assert status == (0 if likelihood == fitting else 2)
    if likelihood != fitting:
        assert "counts" in (said := capsys.readouterr().err)
        assert "set likelihood=poisson" in said
        assert not folder.exists()


def test_a_torch_file(tmp_path: Path) -> None:
    torch.save({"train": torch.randn(60, 3), "test": torch.randn(20, 3)}, tmp_path / "x.pt")
    words = ("dataset=array", f"dataset.path={tmp_path / 'x.pt'}", "dataset.num_valid=10", "likelihood=gaussian")
    finished(tmp_path / "run", *words)


COLOUR = {"omniglot": (28, 28), "frey": (28, 20), "cifar": (32, 32, 3), "celeba": (64, 64, 3)}
LIKELIHOODS = {
    "bernoulli": ("dataset.binarization=dynamic",),
    "discretized_logistic": ("likelihood.learn_scale=false", "likelihood.predict_scale=true"),
    "continuous_bernoulli": (),
    "gaussian": ("dataset.dequantize=true", "likelihood.predict_scale=true"),
}


def combinations() -> list[object]:
    """All of them, one for each shape and network not slow."""
    every = itertools.product(enumerate(COLOUR), enumerate(LIKELIHOODS), enumerate(("conv", "conv5x5", "mlp")))
    return [
        pytest.param(shape, likelihood, net, marks=[] if (i + j + k) % len(LIKELIHOODS) == 0 else pytest.mark.slow)
        for (i, shape), (j, likelihood), (k, net) in every
    ]


@pytest.mark.parametrize(("shape", "likelihood", "net"), combinations())
def test_each_shape_of_image(shape: str, likelihood: str, net: str, tmp_path: Path) -> None:
    """The shapes of the published sets, with every kind of likelihood and network."""
    images = np.random.default_rng(0).integers(0, 256, (40, *COLOUR[shape])).astype(np.uint8)
    np.save(tmp_path / "x.npy", images)
    data = ("dataset=array", f"dataset.path={tmp_path / 'x.npy'}", "dataset.num_valid=6", "dataset.num_test=6")
    words = (f"likelihood={likelihood}", *LIKELIHOODS[likelihood], "dataset.batch_size=8", "trainer.test_samples=2")
    finished(tmp_path / "run", *data, *words, f"encoder={net}", f"decoder={net}", "trainer.picture_every=0")
