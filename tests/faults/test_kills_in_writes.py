"""`kill -9` in the middle of writing a file: what was there before is whole, and the next start leaves nothing over."""

import shutil
from pathlib import Path

import pytest

from metvae_cli.errors import ConfigError
from metvae_cli.training.checkpoint import load_checkpoint
from tests.endings import status
from tests.faults.deaths import Death
from tests.faults.processes import ended, metvae_process
from tests.faults.whole_runs import assert_same_run, unfinished
from tests.runs import TINY, metvae

WORDS = (
    *TINY,
    "trainer.max_epochs=3",
    "trainer.log_every=5",
    "trainer.picture_every=1",
    "trainer.checkpoint_seconds=1000",
)
NEW = ("train", *WORDS, "hydra.run.dir=run")
RESUMED = ("train", "resume=run")
KILLED = -9

# Of last.pt: one at the start, and one at the end of each epoch. The number is the iteration of the one that is loaded.
CHECKPOINTS = {
    Death("half", ".last.pt.*.tmp", 2): 0,
    Death("half", ".last.pt.*.tmp", 3): 21,
    Death("written", ".last.pt.*.tmp", 3): 21,
    Death("synced", ".last.pt.*.tmp", 3): 21,
    Death("replaced", "last.pt", 3): 42,
    Death("written", "checkpoints", 5): 42,  # its names are about to be flushed: best.pt has had two turns
    Death("half", ".best.pt.*.tmp", 2): 21,
    Death("replaced", "best.pt", 2): 21,
}
OTHERS = [
    Death("half", "metrics.csv", 2),
    Death("half", ".manifest.json.*.tmp", 2),
    Death("replaced", "manifest.json", 2),
    Death("half", ".status.json.*.tmp", 2),
    Death("half", ".summary.json.*.tmp", 1),
    Death("replaced", "summary.json", 1),
    Death("half", "metadata.tsv", 1),
]
# Of a resume. What is left of the events is written anew, and takes the place of what was there.
RESUMING = [
    Death("half", ".cut.*.tmp", 1),
    Death("replaced", "events.out.tfevents.*", 1),
    Death("half", ".manifest.json.*.tmp", 1),
    Death("half", ".last.pt.*.tmp", 1),
]
QUICK = (Death("half", ".last.pt.*.tmp", 3),)


def cases(*deaths: Death) -> list[object]:
    """All but a few are slow."""
    return [death if death in QUICK else pytest.param(death, marks=pytest.mark.slow) for death in deaths]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody touched."""
    here = tmp_path_factory.mktemp("straight")
    assert ended(metvae_process(here, *NEW)) == 0
    return here / "run"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that died before the checkpoint of its second epoch, of which rows and events were there."""
    here = tmp_path_factory.mktemp("killed")
    assert ended(metvae_process(here, *NEW, prepare=Death("written", ".last.pt.*.tmp", 3))) == KILLED
    return here / "run"


def assert_whole(folder: Path) -> None:
    """Every checkpoint that is there can be loaded."""
    for path in (folder / "checkpoints").glob("*.pt"):
        load_checkpoint(path)


def assert_goes_on(here: Path, straight: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        assert metvae(*RESUMED) == 0
    assert_same_run(here / "run", straight)


@pytest.mark.parametrize("death", cases(*CHECKPOINTS), ids=str)
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before_or_the_new_one(
    tmp_path: Path, straight: Path, death: Death
) -> None:
    assert ended(metvae_process(tmp_path, *NEW, prepare=death)) == KILLED
    folder = tmp_path / "run"
    assert bool(unfinished(folder)) == (death.moment != "replaced" and death.name != "checkpoints")
    assert_whole(folder)
    assert load_checkpoint(folder / "checkpoints" / "last.pt")["state"]["iteration"] == CHECKPOINTS[death]
    assert_goes_on(tmp_path, straight)


@pytest.mark.slow
@pytest.mark.parametrize("death", OTHERS, ids=str)
def test_a_kill_while_another_file_is_written_costs_nothing(tmp_path: Path, straight: Path, death: Death) -> None:
    assert ended(metvae_process(tmp_path, *NEW, prepare=death)) == KILLED
    assert_whole(tmp_path / "run")
    assert_goes_on(tmp_path, straight)


@pytest.mark.parametrize("death", cases(*RESUMING), ids=str)
def test_a_kill_while_a_resume_begins_costs_nothing(tmp_path: Path, straight: Path, killed: Path, death: Death) -> None:
    shutil.copytree(killed, tmp_path / "run")
    assert ended(metvae_process(tmp_path, *RESUMED, prepare=death)) == KILLED
    assert_whole(tmp_path / "run")
    assert_goes_on(tmp_path, straight)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "death", "whole"),
    [
        (("sample", "pictures=[prior,latent]"), Death("half", ".latent.png.*.tmp", 1), {"prior.png"}),
        (("sample", "pictures=[prior]", "arrays=true"), Death("half", ".prior.npz.*.tmp", 1), {"prior.png"}),
        (("evaluate", "estimators=[importance]", "diagnostics=[]", "data=9"), Death("half", ".per_datum.csv.*.tmp", 1),
         {"evaluation.json"}),
    ],
    ids=str,
)  # fmt: skip
def test_a_kill_while_a_result_is_written_leaves_no_half_of_it(
    tmp_path: Path, straight: Path, death: Death, words: tuple[str, ...], whole: set[str]
) -> None:
    typed = (*words, f"run={straight}", "hydra.run.dir=out")
    assert ended(metvae_process(tmp_path, *typed, prepare=death)) == KILLED
    results = {path.name for path in (tmp_path / "out").iterdir()}
    assert whole <= results
    assert death.name.split(".*")[0].lstrip(".") not in results
    assert ended(metvae_process(tmp_path, *typed)) == 0
    assert status(tmp_path / "out") == "finished"
    assert unfinished(tmp_path / "out") == []


@pytest.mark.slow
def test_a_checkpoint_that_is_written_in_its_place_is_seen(tmp_path: Path, straight: Path) -> None:
    """The wrong version: what a kill leaves then is no checkpoint, and no resume goes on from it."""
    assert ended(metvae_process(tmp_path, *NEW, prepare=_written_in_place)) == KILLED
    with pytest.raises(ConfigError, match="truncated"):
        assert_whole(tmp_path / "run")
    with pytest.raises(AssertionError):
        assert_goes_on(tmp_path, straight)


def _written_in_place() -> None:
    named = Path.with_name

    def with_name(self: Path, name: str) -> Path:
        return self if name.startswith(".last.pt.") else named(self, name)

    Path.with_name = with_name
    Path.replace = lambda self, target: Path(target)
    Path.unlink = lambda self, missing_ok=False: None
    Death("half", "last.pt", 3)()
