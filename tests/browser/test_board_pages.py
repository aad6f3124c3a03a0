"""TensorBoard's pages of a sweep in a real browser: `pytest -m browser tests/browser`.

METVAE_BROWSER names the browser, one of the Chromium family, if it is not found by itself; METVAE_SCREENSHOTS a folder
for pictures of the pages.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.browser.chromium import Browser, browser
from tests.runs import metvae

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
JOBS = [f"{number:02d}_experiment=digits_{name}" for number, name in enumerate(("vae", "metvae_hmc", "lmcvae"))]


@pytest.fixture(scope="module")
def program(request: pytest.FixtureRequest) -> str:
    if "browser" not in str(request.config.getoption("markexpr")):
        pytest.skip("needs a web browser: ask for it with -m browser")
    found = os.environ.get("METVAE_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip(f"no browser found: none of {', '.join(NAMES)}, and METVAE_BROWSER is not set")
    return found


@pytest.fixture(scope="module")
def address(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a TensorBoard that shows a sweep of three methods."""
    folder = tmp_path_factory.mktemp("sweep")
    methods = ",".join(job.partition("=")[2] for job in JOBS)
    words = ("trainer.max_epochs=8", "trainer.picture_every=2", "trainer.log_every=10", "trainer.test_samples=50")
    assert metvae("train", "-m", f"experiment={methods}", *words, f"hydra.sweep.dir={folder}/sweep") == 0
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", f"{folder}/sweep", "--port", "0", "--host"]
    process = subprocess.Popen([*command, "127.0.0.1"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    try:
        lines = iter(process.stderr.readline, "")
        yield next(found.group() for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+/", line)))
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def page(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def asked(address: str, route: str, body: Any = None) -> Any:
    """The answer of one of TensorBoard's data routes."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}data/{route}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def picture(page: Browser, name: str) -> None:
    if folder := os.environ.get("METVAE_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        time.sleep(2)  # what is there is still drawn
        page.screenshot(Path(folder) / f"{name}.png")


def test_runs_are_the_jobs_and_nothing_else(address: str) -> None:
    assert sorted(asked(address, "runs")) == JOBS


def test_scalars(address: str, page: Browser) -> None:
    page.open(f"{address}?tagFilter=%5E(train%7Cval)%2Fbound#timeseries")
    page.wait_for("Tags matching filter\n2 cards", "Smoothed", "Relative", *JOBS)
    picture(page, "scalars")
    tags = {run: set(found) for run, found in asked(address, "plugin/scalars/tags").items()}
    assert all(tags[run] >= {"train/bound", "val/bound", "final/test/nll"} for run in JOBS)


def test_custom_scalars_are_one_set_of_charts(address: str, page: Browser) -> None:
    page.open(f"{address}#custom_scalars")
    text = page.wait_for("metvae", "acceptance", "gradient norms", "speed")
    picture(page, "custom_scalars")
    assert text.splitlines().count("step size") == 1
    (category,) = asked(address, "plugin/custom_scalars/layout")["category"]
    titles = [chart["title"] for chart in category["chart"]]
    assert len(titles) == len(set(titles)) == 8
    for chart in category["chart"]:
        (tag,) = chart["multiline"]["tag"]
        found = asked(address, f"plugin/custom_scalars/scalars?run={quote(JOBS[1])}&tag={quote(tag)}")
        assert found["regex_valid"]
        assert found["tag_to_events"], chart["title"]


def test_images(address: str, page: Browser) -> None:
    page.open(f"{address}#images")
    page.wait_for("prior_samples", "chain", *JOBS)
    picture(page, "images")
    entries = asked(address, f"plugin/images/images?run={quote(JOBS[1])}&tag=images/chain&sample=0")
    assert [entry["step"] for entry in entries] == [42, 84, 126, 168]


def test_hyperparameters_are_one_table(address: str, page: Browser) -> None:
    page.open(f"{address}#hparams")
    # A cell of the table: the column is shown without being asked for.
    page.wait_for("hmc_partial", "sampler.num_steps", "final/test/nll", *JOBS)
    picture(page, "hparams")
    experiment = asked(address, "plugin/hparams/experiment", {"hparamsLimit": 0})
    columns = {info["name"] for info in experiment["hparamInfos"]}
    metrics = [info["name"] for info in experiment["metricInfos"]]
    groups = asked(
        address,
        "plugin/hparams/session_groups",
        {
            "startIndex": 0,
            "sliceSize": 10,
            "colParams": [{"metric": name} for name in metrics],
            "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        },
    )["sessionGroups"]
    assert len(groups) == 3
    for group in groups:
        assert set(group["hparams"]) == columns
        assert len(group["metricValues"]) == len(metrics) == 7
        assert [session["status"] for session in group["sessions"]] == ["STATUS_SUCCESS"]
    assert {group["hparams"]["sampler"] for group in groups} == {"none", "hmc_partial", "langevin"}


def test_the_projector_shows_every_run(address: str, page: Browser) -> None:
    page.open(f"{address}#projector")
    text = page.wait_for("3 runs found", "encoder means", "Points:", "10  colors", seconds=90)  # a class each
    assert "\n200\n" in text
    picture(page, "projector")
    assert sorted(asked(address, "plugin/projector/runs")) == JOBS
    for run in JOBS:
        (embedding,) = asked(address, f"plugin/projector/info?run={quote(run)}")["embeddings"]
        named = f"run={quote(run)}&name={quote(embedding['tensorName'])}"
        for route in ("tensor", "metadata", "sprite_image"):
            with urllib.request.urlopen(f"{address}data/plugin/projector/{route}?{named}", timeout=60) as answer:
                assert answer.status == 200
                assert answer.read()


def test_the_configuration_is_text(address: str, page: Browser) -> None:
    page.open(f"{address}#text")
    page.wait_for("config", "command", "latent_dim")
    picture(page, "text")
