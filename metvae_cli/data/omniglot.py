"""Omniglot: 28x28 handwritten characters of 50 alphabets, in the form of Burda et al. or from the original drawings."""

import re
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from metvae_cli.data.base import Binarization, Dataset, Split
from metvae_cli.data.matlab import declared, read_mat
from metvae_cli.data.official import OfficialImages, Root, download_files, fetch_into, missing_files
from metvae_cli.data.pictures import decode
from metvae_cli.torchvision_import import import_torchvision

Source = Literal["burda", "torchvision"]

CHARDATA = "chardata.mat"
CHARDATA_URL = "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/chardata.mat"
# Not the publishers' own: the sum that the library tfsnippet expects. Hence it guards the download alone, and a file
# that is there already is judged by its structure.
CHARDATA_MD5 = "21ecaf34373511aa7691cf2e0802aa3d"
NUM_TRAIN, NUM_TEST = 24345, 8070
MAX_LABELS = 2000
MAX_CHARDATA_BYTES = 1 << 28

BACKGROUND, EVALUATION = "images_background", "images_evaluation"
# As torchvision has them.
ZIP_MD5 = {BACKGROUND: "68d2efa1b9178cc56df9314c21c6e718", EVALUATION: "6b91aef0f799c5bb55b94e3f2daec811"}
ZIP_COUNTS = {BACKGROUND: 19280, EVALUATION: 13180}
DRAWING = re.compile(r"(images_background|images_evaluation)/([^/]+)/character\d\d/\d{4}_\d\d\.png")
DRAWING_SIDE, SIDE = 105, 28
MAX_DRAWING_BYTES = 1 << 16


class Omniglot(OfficialImages):
    """Event shape (1, 28, 28), grey levels with bright ink, upright; labels: the number of the alphabet.

    batch_size: training data per iteration
    source: burda: chardata.mat of the importance weighted auto-encoder paper, 24345 train and 8070 test images, whose
        values in [0, 1] become the nearest of 256 levels; torchvision: images_background.zip (train) and
        images_evaluation.zip (test) with 105x105 drawings, made 28x28 by averaging areas
    binarization: dynamic, static, threshold or none
    root: folder with chardata.mat or the two zip archives
    download: fetch them into root where they are missing
    num_valid: images taken from the end of the training images, which are ordered by class and thus shuffled first
    split_seed: seed of that order and of the pixels that are drawn once
    dequantize: with binarization=none: grey levels k become (k + u) / 256, u uniform, for densities on [0, 1]

    The zip archives are verified by their published MD5. Of chardata.mat no publisher's hash is at hand: its shapes
    and the range of its values are checked.

    Raises ValueError for an argument out of range.
    """

    def __init__(
        self,
        batch_size: int = 100,
        source: Source = "burda",
        binarization: Binarization = "dynamic",
        root: str = "data",
        download: bool = True,
        num_valid: int = 1345,
        split_seed: int = 0,
        dequantize: bool = False,
    ) -> None:
        if source not in ("burda", "torchvision"):
            raise ValueError(f"source={source}: must be burda or torchvision")
        super().__init__(batch_size, binarization, root, download, num_valid, split_seed, dequantize)
        self.source: Source = source

    def load(self) -> Dataset:
        """The three splits. Raises ConfigError: files missing, damaged, not to be had; no training data left."""
        root = Root(self.root)
        md5 = {CHARDATA: CHARDATA_MD5}
        if self.source == "torchvision":
            md5 = {f"{name}.zip": expected for name, expected in ZIP_MD5.items()}
        if missing_files(root.path, tuple(md5)):
            self._fetch(root, md5)
        if self.source == "burda":
            train, test = _read_chardata(root, root.path / CHARDATA)
        else:
            first, train = _read_drawings(root, BACKGROUND, first_label=0)
            _, test = _read_drawings(root, EVALUATION, first_label=first)
        return self.three_splits("omniglot", train, test, permute=True)

    def _fetch(self, root: Root, md5: dict[str, str]) -> None:
        """Download what is missing, if that is asked for."""
        missing = missing_files(root.path, tuple(md5))
        if not self.download:
            raise root.error(
                f"{', '.join(missing)} not found in {root.path}; set dataset.download=true, or point dataset.root= at "
                "a folder that has it"
            )

        def fetch(staging: Path) -> Path:
            prefix = import_torchvision().datasets.Omniglot.download_url_prefix
            for name in missing:
                url = CHARDATA_URL if name == CHARDATA else f"{prefix}/{name}"
                fetch_into(staging, [url], name, md5[name])
            return staging

        advice = f"put {' and '.join(md5)} in {root.path}, or point dataset.root= at a folder that has it"
        download_files(root, "Omniglot", root.path, tuple(md5), fetch, advice)


def _read_chardata(root: Root, path: Path) -> tuple[Split, Split]:
    """Train and test of chardata.mat, whose columns are images written column by column."""
    size = path.stat().st_size
    if size > MAX_CHARDATA_BYTES:
        raise root.damaged(path, f"at most {MAX_CHARDATA_BYTES} bytes", f"{size}")
    shapes = {"data": [(SIDE * SIDE, NUM_TRAIN)], "testdata": [(SIDE * SIDE, NUM_TEST)]}
    found = declared(root, path)
    labelled = {"target", "testtarget"} <= found.keys()
    if labelled:  # a column with a single 1 for each image; the two have as many rows as there are labels
        rows = max(1, min((*found["target"][0][:1], MAX_LABELS)))
        shapes |= {"target": [(rows, NUM_TRAIN)], "testtarget": [(rows, NUM_TEST)]}
    arrays = read_mat(root, path, shapes)

    def part(values: str, target: str) -> Split:
        labels = torch.from_numpy(arrays[target].argmax(axis=0).astype(np.int64)) if labelled else None
        return Split(_levels(root, path, values, arrays[values]), labels)

    return part("data", "target"), part("testdata", "testtarget")


def _levels(root: Root, path: Path, name: str, columns: np.ndarray) -> Tensor:
    """Values in [0, 1], shape (784, N), to upright grey levels (N, 1, 28, 28)."""
    if not (columns.min() >= 0 and columns.max() <= 1):  # also true of NaN
        raise root.damaged(path, f"{name!r} in [0, 1]", f"{columns.min()} to {columns.max()}")
    levels = np.rint(columns.astype(np.float32) * 255).astype(np.uint8)
    images = levels.T.reshape(-1, SIDE, SIDE).transpose(0, 2, 1)
    return torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(1)


def _read_drawings(root: Root, name: str, first_label: int) -> tuple[int, Split]:
    """The drawings of a verified zip archive, in the order of their names; alphabets are numbered in that order.

    Also gives the label after the last.
    """
    path = root.path / f"{name}.zip"
    root.verify(path, "md5", ZIP_MD5[name])
    with root.unzip(path) as archive:
        members = _members(archive, name)
        if len(members) != ZIP_COUNTS[name]:
            raise root.damaged(path, f"{ZIP_COUNTS[name]} drawings", f"{len(members)}")
        alphabets = sorted(set(members.values()))
        number = {alphabet: first_label + index for index, alphabet in enumerate(alphabets)}
        weights = area_weights(DRAWING_SIDE, SIDE)
        images = np.empty((len(members), 1, SIDE, SIDE), dtype=np.uint8)
        for index, member in enumerate(members):
            content = root.member(archive, member, MAX_DRAWING_BYTES)
            picture = decode(root, f"{path}:{member}", content, "PNG", (DRAWING_SIDE, DRAWING_SIDE))
            ink = 255.0 - np.asarray(picture.convert("L"), dtype=np.float64)
            images[index, 0] = np.rint(weights @ ink @ weights.T)
    labels = torch.tensor([number[alphabet] for alphabet in members.values()], dtype=torch.int64)
    return first_label + len(alphabets), Split(torch.from_numpy(images), labels)


def _members(archive: zipfile.ZipFile, name: str) -> dict[str, str]:
    """The alphabet of each drawing, by the names of the members that are drawings."""
    matches = (DRAWING.fullmatch(member) for member in sorted(archive.namelist()))
    return {match.group(): match.group(2) for match in matches if match is not None and match.group(1) == name}


def area_weights(before: int, after: int) -> np.ndarray:
    """Matrix (after, before) that averages `before` pixels in a row over `after` equal stretches, parts included."""
    edges = np.linspace(0, before, after + 1)
    pixels = np.arange(before)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0, None) * after / before
