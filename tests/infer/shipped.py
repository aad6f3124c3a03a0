"""The shipped targets, and small runs of `metvae infer` without its command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import OmegaConf

from metvae_cli.build import construct
from metvae_cli.build_inference import InferenceRun, build_inference
from metvae_cli.paths import config_dir
from metvae_cli.targets.base import Target
from tests.runs import configuration

NAMES = sorted(path.stem for path in (config_dir() / "target").glob("*.yaml") if path.stem != "python")


def shipped(name: str, **changes: Any) -> Target:
    """The target of a file of the menu, with some of its keys changed."""
    node = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(config_dir() / "target" / f"{name}.yaml")))
    return cast(Target, construct({**node, **changes}, "target", [], {}))


def built(*words: str) -> InferenceRun:
    """What `metvae infer WORDS` would run."""
    return build_inference(configuration(*words, "trainer.device=cpu", command="infer"), [], [])


def node(group: str, choice: str) -> Mapping[str, Any]:
    """A file of the menu."""
    path = config_dir() / group / f"{choice}.yaml"
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path)))


def trained(run: InferenceRun, iterations: int) -> InferenceRun:
    """The run after some iterations of its optimizer, without a trainer."""
    assert run.learner is not None
    for _ in range(iterations):
        output = run.learner.objective(run.model, run.sampler, run.model.blank(run.spine.batch_size))
        run.learner.optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_([*run.model.parameters(), *run.sampler.parameters()], 50.0)
        run.learner.optimizer.step()
        for adaptation in run.learner.adaptations:
            adaptation.update(output.outcome)
    return run


def write_density(folder: Path, body: str, name: str = "my_density.py") -> Path:
    """A file of the user's."""
    path = folder / name
    path.write_text(f"import torch\n\n{body}\n")
    return path
