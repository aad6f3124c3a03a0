"""The encoder means of validation data in TensorBoard's projector, with their classes and their images."""

from pathlib import Path

from metvae_cli.build import Experiment
from metvae_cli.data.base import spread_over
from metvae_cli.evaluation.coding import encoder_means
from metvae_cli.evaluation.grids import is_image
from metvae_cli.tracking.projector import write_projector
from metvae_cli.training.trainer import fork_rng

_SHOWN = 2000
_SEED = 0


def embed(experiment: Experiment, folder: Path) -> None:
    """Write the projector's files of the model as it is; training's random stream is untouched."""
    model, dataset = experiment.learner.model, experiment.learner.dataset
    valid = dataset.valid
    index = spread_over(len(valid), _SHOWN).to(valid.values.device)
    x = dataset.held_out(valid, index)
    model.eval()
    with fork_rng(_SEED):
        means = encoder_means(model, x)
    labels = None if valid.labels is None else valid.labels[index]
    write_projector(folder, "encoder means", means, labels, x if is_image(dataset.event_shape) else None)
