"""One file from the network: resumed where an earlier attempt was cut off, verified, and never seen half-written."""

import contextlib
import hashlib
import http.client
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)

_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 18
_TOLD_EVERY = 0.1  # of the file, between lines in the log


def fetch_url(urls: Sequence[str], target: Path, part: Path, md5: str) -> None:
    """Download to `target` from the first of the addresses that works, and verify.

    What has arrived lies in `part` until all of it has, so that a later call goes on from there; the move to `target`
    is one atomic rename, and `part` must be on the same disk.

    Raises:
        OSError: no address works, or the connection broke (`part` stays if anything has arrived)
        RuntimeError: what arrived whole is not what was published (`part` is removed)
    """
    for number, url in enumerate(urls, start=1):
        try:
            receive(url, part)
            break
        except (OSError, http.client.HTTPException):
            with contextlib.suppress(FileNotFoundError):
                if part.stat().st_size == 0:
                    part.unlink()
            if number == len(urls):
                raise
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        part.unlink()
        raise RuntimeError(f"{target.name} arrived with MD5 {found} in place of {md5}")
    os.replace(part, target)


def receive(url: str, part: Path) -> None:
    """Append what is missing of `part`; from the start where the server does not know how to go on."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-", "User-Agent": "metvae"})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return  # nothing is missing; whether it is the right file is seen by its sum
    with response:
        resumed = response.status == http.client.PARTIAL_CONTENT
        start = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        size = f"{total / 1e6:.1f} MB" if total else "of unknown size"
        log.info("downloading %s (%s%s)", url, size, f", {start / 1e6:.1f} MB are here" if start else "")
        with part.open("ab" if resumed else "wb") as file:
            told = done = start
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if total and done - told > _TOLD_EVERY * total:
                    log.info("downloaded %.0f %%", 100 * done / total)
                    told = done
        if total is not None and done < total:
            raise ConnectionError(f"the connection broke after {done} of {total} bytes")
