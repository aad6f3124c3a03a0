"""What `metvae evaluate` measures: which data and weights, how estimators agree, how often and how precisely."""

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metvae_cli.commands import evaluate_likelihood
from tests.commands.test_evaluate import column, evaluate, here, run
from tests.runs import train

__all__ = ["here", "run"]  # fixtures


def test_training_data_are_measured_as_pixels_and_not_as_grey_levels(
    run: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    original = evaluate_likelihood.importance_sampling

    def noting(model: Any, data: Any, *more: Any, **named: Any) -> Any:
        kept = list(data)
        seen.extend(x for _, x in kept)
        return original(model, kept, *more, **named)

    monkeypatch.setattr(evaluate_likelihood, "importance_sampling", noting)
    evaluate(run, "E", "estimators=[importance]", "diagnostics=[]", "split=train", "data=20")
    assert set(torch.cat(seen).unique().tolist()) == {0.0, 1.0}


def test_best_and_last_are_the_checkpoints_that_they_say(here: Path) -> None:
    """The second epoch, with a thousand times the learning rate, makes the model worse."""
    worse = ("optimizer.schedule=multistep", "optimizer.milestones=[1]", "optimizer.gamma=1000")
    assert train("hydra.run.dir=run", "trainer.max_epochs=2", *worse) == 0
    words = ("estimators=[importance]", "diagnostics=[]", "data=20")
    best, last = (evaluate(Path("run"), kind, *words, f"checkpoint={kind}") for kind in ("best", "last"))
    assert last["iteration"] == 2 * best["iteration"]
    nats = [result["estimators"]["importance"]["nats"] for result in (best, last)]
    assert nats[1] < nats[0] - 1


def test_agreement_is_of_the_data_that_both_estimators_saw(run: Path, here: Path) -> None:
    results = evaluate(run, "E", "estimators=[importance,ais]", "diagnostics=[]")
    importance, ais = (column(Path("E/per_datum.csv"), name) for name in ("importance", "ais"))
    assert (len(importance), len(ais)) == (results["data"]["of"], 4)
    differences = [ais[number] - importance[number] for number in ais]
    assert results["agreement"] == {
        "ais - importance": {
            "nats": pytest.approx(statistics.fmean(differences)),
            "standard_error_over_data": pytest.approx(statistics.stdev(differences) / 2),
            "data": 4,
        }
    }


def test_single_precision_moves_the_answer_by_little(run: Path, here: Path) -> None:
    """The draws are others, so that the answers agree within their noise."""
    words = ("estimators=[importance,ais]", "diagnostics=[]", "data=20", "ais.num_temperatures=200")
    words = (*words, "importance.num_samples=2000", "ais.num_chains=10")
    double, single = (evaluate(run, kind, *words, f"precision={kind}") for kind in ("double", "single"))
    for name in ("importance", "ais"):
        apart = double["estimators"][name]["nats"] - single["estimators"][name]["nats"]
        assert 0 < abs(apart) < 0.1, name


def test_what_is_asked_of_chains_and_repeats_is_done(run: Path, here: Path) -> None:
    words = ("estimators=[ais]", "diagnostics=[sampler]", "ais.repeats=2", "ais.schedule=linear")
    loose = evaluate(run, "E1", *words, "sampler.largest_r_hat=1e9")
    strict = evaluate(run, "E2", *words, "sampler.largest_r_hat=1.0000001")
    converged = [result["diagnostics"]["sampler"]["chains"]["share_converged"] for result in (loose, strict)]
    assert converged[0] == 1 > converged[1]
    assert loose["estimators"]["ais"]["repeats"] == 2
    assert loose["estimators"]["ais"]["standard_error_over_repeats"] > 0
