"""The pictures of `metvae sample`, one function each: what is computed, and the grid that shows it."""

import hashlib
import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metvae_cli.build import LoadedRun
from metvae_cli.commands.sample_request import PictureName, Request
from metvae_cli.data.base import spread_over
from metvae_cli.evaluation import inpainting, latent_walks, pictures
from metvae_cli.evaluation.coding import chain_positions, decoded_means, encoder_means
from metvae_cli.evaluation.grids import captioned, coloured, is_image, tinted
from metvae_cli.evaluation.neighbours import nearest
from metvae_cli.evaluation.scatter import scatter
from metvae_cli.samplers.assembly import make_schedule
from metvae_cli.samplers.chain import Sampler
from metvae_cli.training.device import fork_rng

_SCATTERED = 2000

log = logging.getLogger(__name__)


class Picture(NamedTuple):
    """image: makes it, (3, H, W); None where the data are no images. arrays: the numbers behind it."""

    image: Callable[[], Tensor] | None
    arrays: dict[str, Tensor]


def draw(name: PictureName, run: LoadedRun, request: Request) -> Picture:
    """Compute one picture, with a random stream that depends on the seed and its name alone."""
    makers: dict[PictureName, Callable[[LoadedRun, Request], Picture]] = {
        "prior": _prior,
        "reconstructions": _reconstructions,
        "chain": _chain,
        "interpolation": _interpolation,
        "traversal": _traversal,
        "neighbours": _neighbours,
        "inpainting": _inpainting,
        "latent": _latent,
    }
    with fork_rng(_stream(request.seed, name)):
        picture = makers[name](run, request)
    needs_images = name != "latent" and not is_image(run.dataset.event_shape)
    return Picture(None, picture.arrays) if needs_images else picture


def _stream(seed: int, name: str) -> int:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**63


def _prior(run: LoadedRun, request: Request) -> Picture:
    z = run.model.prior.sample(request.count, run.device)
    images = decoded_means(run.model, z[None])[0]
    return Picture(lambda: pictures.square(images), {"positions": z, "images": images})


def _reconstructions(run: LoadedRun, request: Request) -> Picture:
    index, x = _test_data(run, request)
    z = pictures.ends(chain_positions(run.model, run.sampler, x))
    images = decoded_means(run.model, z)
    words = ["data", "from $z_0$", f"from $z_{{{run.sampler.num_steps}}}$"][: len(z) + 1]
    arrays = {"index": index, "data": x, "positions": z, "images": images}
    return Picture(lambda: captioned(pictures.below(x, images), [], words), arrays)


def _chain(run: LoadedRun, request: Request) -> Picture:
    index, x = _test_data(run, request)
    z = chain_positions(run.model, run.sampler, x)
    images = decoded_means(run.model, z)
    words = ["datum", *(f"$z_{{{step}}}$" for step in range(len(z)))]
    arrays = {"index": index, "data": x, "positions": z, "images": images}
    return Picture(lambda: captioned(pictures.beside(x[None], images), words), arrays)


def _interpolation(run: LoadedRun, request: Request) -> Picture:
    test = run.dataset.test
    labels = torch.zeros(len(test)) if test.labels is None else test.labels
    pairs = latent_walks.different_pairs(labels, spread_over(len(test), request.data))
    start, end = (run.dataset.held_out(test, places) for places in pairs.unbind(1))
    z = latent_walks.line(encoder_means(run.model, start), encoder_means(run.model, end), request.steps)
    images = decoded_means(run.model, z)
    shares = torch.linspace(0, 1, request.steps).tolist()
    words = ["datum", *(f"{round(share, 2):g}" for share in shares), "datum"]
    arrays = {"index": pairs, "start": start, "end": end, "positions": z, "images": images}
    return Picture(lambda: captioned(pictures.beside(start[None], images, end[None]), words), arrays)


def _traversal(run: LoadedRun, request: Request) -> Picture:
    index, x = _test_data(run, request)
    _, means = _encoded(run)
    units = latent_walks.most_active(means, run.model.prior.visible_dim)
    centre = encoder_means(run.model, x[:1])[0]
    mean, scale = latent_walks.prior_moments(run.model.prior, len(centre), run.device)
    z = latent_walks.along(centre, units.coordinates, mean, scale, request.steps)
    images = decoded_means(run.model, z)
    reach = latent_walks.REACH
    words = [f"{round(value, 2) + 0.0:+g}" for value in torch.linspace(-reach, reach, request.steps).tolist()]
    words[0], words[-1] = f"{words[0]} sd", f"{words[-1]} sd"
    found = zip(units.coordinates.tolist(), units.activity.tolist(), strict=True)
    rows = [f"unit {unit}, var {activity:.2f}" for unit, activity in found]
    arrays = {"index": index[:1], "data": x[:1], "units": units.coordinates, "activity": units.activity}
    return Picture(lambda: captioned(pictures.beside(images), words, rows), arrays | {"positions": z, "images": images})


def _neighbours(run: LoadedRun, request: Request) -> Picture:
    train = run.dataset.train
    z = run.model.prior.sample(request.data, run.device)
    images = decoded_means(run.model, z[None])[0]
    among = spread_over(len(train), request.train_data or len(train))
    if len(among) < len(train):
        log.info("neighbours: among %d of %d training data (train_data)", len(among), len(train))
    found = nearest(images, lambda places: run.dataset.held_out(train, places), among, request.neighbours)
    near = torch.stack([run.dataset.held_out(train, places) for places in found.indices.cpu().T])
    words = ["sample", *(str(rank) for rank in range(1, len(near) + 1))]
    arrays = {"positions": z, "images": images, "neighbours": near} | found._asdict()
    return Picture(lambda: captioned(pictures.beside(images[None], near), words), arrays)


def _inpainting(run: LoadedRun, request: Request) -> Picture:
    index, x = _test_data(run, request)
    height, width = run.dataset.event_shape[1:]
    masked = inpainting.mask_of(height, width, request.mask, request.mask_share).to(run.device)
    start = inpainting.forgotten(run.model, x, masked)
    samplers = {"encoder alone": Sampler([], make_schedule("constant", 0)).to(run.device)}
    if run.sampler.num_steps:
        samplers = {f"encoder + {run.sampler.num_steps} steps": run.sampler} | samplers
    found = [
        inpainting.block_gibbs(run.model, sampler, start, masked, request.sweeps, request.frames)
        for sampler in samplers.values()
    ]
    data, means = x.repeat(len(found), 1, 1, 1), torch.cat([one.means for one in found], 1)
    words = ["datum", "mask", *(str(sweep) for sweep in found[0].sweeps.tolist())]
    words[2] = f"sweep {words[2]}"
    rows = [name for name in samplers for _ in range(len(x))]
    arrays = {"index": index, "data": x, "masked": masked, "sweeps": found[0].sweeps}
    for name, one in zip(("", "_encoder"), found, strict=False):
        arrays |= {f"positions{name}": one.positions, f"draws{name}": one.draws, f"means{name}": one.means}
    shown = (coloured(data)[None], tinted(data, masked)[None], coloured(means))
    return Picture(lambda: captioned(pictures.beside(*shown), words, rows), arrays)


def _latent(run: LoadedRun, request: Request) -> Picture:
    index, means = _encoded(run)
    plane = pictures.principal_plane(means)
    labels = run.dataset.test.labels
    shown = None if labels is None else labels[index]
    arrays = {"index": index, "means": means, "plane": plane} | ({} if shown is None else {"labels": shown})
    return Picture(lambda: scatter(plane, shown), arrays)


def _test_data(run: LoadedRun, request: Request) -> tuple[Tensor, Tensor]:
    """Places (B,) of the data that are shown, and they themselves."""
    index = spread_over(len(run.dataset.test), request.data)
    return index, run.dataset.held_out(run.dataset.test, index)


def _encoded(run: LoadedRun) -> tuple[Tensor, Tensor]:
    """Places (N,) of at most 2000 test data, and their encoder means (N, D)."""
    test = run.dataset.test
    index = spread_over(len(test), _SCATTERED)
    means = [encoder_means(run.model, run.dataset.held_out(test, part)) for part in index.split(256)]
    return index, torch.cat(means)
