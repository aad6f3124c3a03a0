"""The projector's files: that they say the same number of points, and that the sprite is one that TensorBoard takes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metvae_cli.tracking.projector import make_sprite, write_projector
from tests.tracking.boards import projector_of


def test_the_files_agree(tmp_path: Path) -> None:
    positions, labels, images = torch.randn(7, 3), torch.arange(7) % 3, torch.rand(7, 1, 4, 6)
    write_projector(tmp_path, "means", positions, labels, images)
    (embedding,) = projector_of(tmp_path).embeddings
    assert embedding.tensor_name == "means"
    read = np.loadtxt(tmp_path / embedding.tensor_path, delimiter="\t")
    np.testing.assert_allclose(read, positions.numpy(), rtol=1e-5)
    lines = (tmp_path / embedding.metadata_path).read_text().splitlines()
    assert lines == ["class\tdatum", *(f"{number % 3}\t{number}" for number in range(7))]
    assert list(embedding.sprite.single_image_dim) == [6, 4]  # width before height
    with Image.open(tmp_path / embedding.sprite.image_path) as sprite:
        assert sprite.size == (18, 12)


def test_what_there_is_not_is_left_out(tmp_path: Path) -> None:
    write_projector(tmp_path, "means", torch.randn(4, 1))
    (embedding,) = projector_of(tmp_path).embeddings
    assert not embedding.sprite.image_path
    assert (tmp_path / embedding.metadata_path).read_text() == "0\n1\n2\n3\n"  # of one column without a name


def test_writing_again_replaces(tmp_path: Path) -> None:
    write_projector(tmp_path, "means", torch.randn(9, 2), None, torch.rand(9, 3, 2, 2))
    write_projector(tmp_path, "means", torch.randn(5, 2))
    assert len(projector_of(tmp_path).embeddings) == 1
    assert len((tmp_path / "projector" / "tensors.tsv").read_text().splitlines()) == 5


def test_a_sprite_has_one_image_after_another() -> None:
    images = torch.rand(5, 3, 4, 6)
    sprite, size = make_sprite(images)
    assert size == (4, 6)
    assert sprite.shape == (12, 18, 3)  # as many rows as columns
    for place, image in enumerate(images):
        row, column = divmod(place, 3)
        found = sprite[4 * row : 4 * row + 4, 6 * column : 6 * column + 6]
        np.testing.assert_allclose(found, image.permute(1, 2, 0).numpy() * 255, atol=0.51)
    assert not sprite[4:8, 12:].any()


@pytest.mark.parametrize(("count", "height", "width"), [(2000, 218, 178), (1, 300, 100), (10, 1, 900)])
def test_a_sprite_is_never_too_large(count: int, height: int, width: int) -> None:
    sprite, size = make_sprite(torch.rand(1, 1, height, width).expand(count, -1, -1, -1))
    assert max(sprite.shape[:2]) <= 8192
    assert max(size) <= 64
    assert min(size) >= 1
