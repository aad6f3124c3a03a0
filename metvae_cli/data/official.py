"""What the published data sets share: files found, verified, read within limits, downloaded, and named in errors."""

import contextlib
import gzip
import hashlib
import io
import os
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal

import torch

from metvae_cli.data.base import Binarization, Dataset, Split, require_at_least
from metvae_cli.data.binarization import binarized_dataset, require_binarization
from metvae_cli.data.download import fetch_url
from metvae_cli.errors import ConfigError

# No network, a broken connection, a damaged archive, an MD5 that differs (RuntimeError).
DOWNLOAD_ERRORS = (OSError, RuntimeError, HTTPException, EOFError, zlib.error)
DOWNLOAD_AGAIN = "delete it and run again with dataset.download=true"
GET_AGAIN = "delete it and get it again"

Algorithm = Literal["sha256", "md5"]
_SHOWN = {"sha256": "SHA-256", "md5": "MD5"}


@dataclass(frozen=True)
class Root:
    """`dataset.root`, the place that the user named, and the one-line errors about the files in it.

    key: as the user wrote it
    remedy: what to do about a damaged file
    """

    key: str
    remedy: str = DOWNLOAD_AGAIN

    @property
    def path(self) -> Path:
        """The same with `~` expanded."""
        return Path(self.key).expanduser()

    def error(self, problem: str) -> ConfigError:
        """The error that says `problem`, in one line."""
        return ConfigError(f"dataset.root={self.key}: {' '.join(problem.split())}")

    def damaged(self, path: Path | str, expected: str, found: str) -> ConfigError:
        """The error about a file that is not what was published."""
        return self.error(f"{path} is damaged (expected {expected}, found {found}); {self.remedy}")

    def unreadable(self, path: Path | str, error: BaseException) -> ConfigError:
        """The error about a file whose bytes cannot be had, or cannot be decoded."""
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        return self.error(f"{path} cannot be read ({reason}); {self.remedy}")

    def verify(self, path: Path, algorithm: Algorithm, expected: str) -> None:
        """Raise ConfigError unless the file is the published one."""
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, algorithm).hexdigest()
        except OSError as error:
            raise self.unreadable(path, error) from error
        if found != expected:
            raise self.damaged(path, f"{_SHOWN[algorithm]} {expected}", found)

    def verify_bytes(self, content: bytes, path: Path | str, expected: str) -> None:
        """The same for the MD5 of what was read already."""
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != expected:
            raise self.damaged(path, f"MD5 {expected}", found)

    def read(self, path: Path, limit: int) -> bytes:
        """The whole file, at most `limit` bytes. Raises ConfigError."""
        try:
            size = path.stat().st_size
            if not path.is_file():  # pipes and devices have no end
                raise self.damaged(path, "a file", "something else")
            if size > limit:
                raise self.damaged(path, f"at most {limit} bytes", f"{size}")
            return path.read_bytes()
        except OSError as error:
            raise self.unreadable(path, error) from error

    def gunzip(self, path: Path | str, compressed: bytes | Path, limit: int) -> bytes:
        """What a gzip archive (its bytes, or its file) unpacks to, at most `limit` bytes. Raises ConfigError."""
        source = io.BytesIO(compressed) if isinstance(compressed, bytes) else compressed
        try:
            with gzip.open(source) as file:
                content = file.read(limit + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise self.unreadable(path, error) from error
        if len(content) > limit:
            raise self.damaged(path, f"at most {limit} bytes when unpacked", "more")
        return content

    @contextlib.contextmanager
    def unzip(self, path: Path) -> Iterator[zipfile.ZipFile]:
        """The zip archive, to be read member by member with `member`; nothing is unpacked to the disk."""
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise self.unreadable(path, error) from error
        with archive:
            yield archive

    def member(self, archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
        """One member of a zip archive by its exact name, at most `limit` bytes. Raises ConfigError."""
        where = f"{archive.filename}:{name}"
        try:
            size = archive.getinfo(name).file_size
            if size > limit:
                raise self.damaged(where, f"at most {limit} bytes", f"{size}")
            with archive.open(name) as file:
                content = file.read(limit + 1)  # the declared size may be a lie
        except KeyError:
            raise self.error(f"{archive.filename} holds no {name}; {self.remedy}") from None
        except (OSError, EOFError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            raise self.unreadable(where, error) from error
        if len(content) != size:
            raise self.damaged(where, f"{size} bytes", f"{len(content)}")
        return content


class OfficialImages(ABC):
    """Images that someone published as a train and a test set; validation data are the end of the train set.

    batch_size: training data per iteration
    binarization: dynamic, static, threshold or none
    root: folder with the files
    download: fetch missing files into it
    num_valid: images taken from the end of the official training images
    split_seed: seed of the pixels that are drawn once
    dequantize: with binarization=none: grey levels k become (k + u) / 256, u uniform, for densities on [0, 1]

    Raises ValueError for an argument out of range.
    """

    def __init__(
        self,
        batch_size: int = 100,
        binarization: Binarization = "dynamic",
        root: str = "data",
        download: bool = True,
        num_valid: int = 10000,
        split_seed: int = 0,
        dequantize: bool = False,
    ) -> None:
        require_at_least(1, batch_size=batch_size, num_valid=num_valid)
        require_at_least(0, split_seed=split_seed)
        require_binarization(binarization, dequantize=dequantize)
        self.batch_size = batch_size
        self.binarization: Binarization = binarization
        self.root = root
        self.download = download
        self.num_valid = num_valid
        self.split_seed = split_seed
        self.dequantize = dequantize

    @abstractmethod
    def load(self) -> Dataset:
        """The three splits. Raises ConfigError."""

    def three_splits(self, name: str, train: Split, test: Split, *, permute: bool = False) -> Dataset:
        """The data set of an official train and test split, each (N, *event) uint8.

        permute: shuffle the training images with split_seed first, where they are ordered by class

        Raises ConfigError where num_valid leaves no training data.
        """
        num_train = len(train) - self.num_valid
        if num_train < 1:
            raise ConfigError(
                f"dataset.num_valid={self.num_valid}: nothing is left of the {len(train)} training images; "
                f"must be at most {len(train) - 1}"
            )
        values, labels = train.values, train.labels
        if permute:
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(self.split_seed))
            values, labels = values[order], None if labels is None else labels[order]
        return binarized_dataset(
            name,
            train=Split(values[:num_train], None if labels is None else labels[:num_train]),
            valid=Split(values[num_train:], None if labels is None else labels[num_train:]),
            test=test,
            binarization=self.binarization,
            seed=self.split_seed,
            dequantize=self.dequantize,
        )


class OfficialPhotographs(OfficialImages):
    """Those in colour, which nobody binarizes: the same arguments but for `binarization`."""

    def __init__(
        self,
        batch_size: int = 100,
        root: str = "data",
        download: bool = True,
        num_valid: int = 5000,
        split_seed: int = 0,
        dequantize: bool = False,
    ) -> None:
        super().__init__(batch_size, "none", root, download, num_valid, split_seed, dequantize)


def missing_files(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of the names that are no files in `folder`."""
    return [name for name in names if not os.path.isfile(folder / name)]


def first_with(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first folder that holds all the files."""
    return next((folder for folder in folders if not missing_files(folder, names)), None)


def download_files(
    root: Root, title: str, target: Path, names: Sequence[str], fetch: Callable[[Path], Path], advice: str
) -> None:
    """Fetch the files into a staging folder, then move those that are missing to `target`.

    fetch: puts verified files into the folder it is given, and says in which folder below it they are
    advice: what to do without a network

    Raises ConfigError. A failed download leaves no file behind but the hidden part that a later one goes on from.
    """
    folder = root.path
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Beside the target, hence on the same disk: each move is one atomic rename.
        with tempfile.TemporaryDirectory(prefix=f".{title.lower()}-download-", dir=folder) as staging:
            try:
                fetched = fetch(Path(staging))
            except DOWNLOAD_ERRORS:
                _keep_whole_archives(Path(staging))
                raise
            target.mkdir(parents=True, exist_ok=True)
            for name in missing_files(target, names):
                os.replace(fetched / name, target / name)
    except DOWNLOAD_ERRORS as error:
        if made:
            with contextlib.suppress(OSError):  # not made after all, or holds files that arrived whole
                folder.rmdir()
        reason = str(error) or type(error).__name__
        raise root.error(f"{title} could not be downloaded ({reason}); {advice}") from error


def _keep_whole_archives(staging: Path) -> None:
    """Let a later download find those that arrived before the one that did not."""
    for path in staging.iterdir():
        if path.suffix in (".gz", ".zip", ".mat"):
            os.replace(path, staging.parent / f".{path.name}.part")


def fetch_into(staging: Path, urls: Sequence[str], name: str, md5: str) -> None:
    """Download one file into a staging folder; what has arrived of it lies beside that folder until it is whole.

    Raises one of DOWNLOAD_ERRORS.
    """
    fetch_url(urls, staging / name, staging.parent / f".{name}.part", md5)
