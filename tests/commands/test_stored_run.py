"""What is removed of an attempt that is begun anew, and what is not."""

from pathlib import Path

from metvae_cli.commands.stored_run import discard_attempt
from tests.comparison.written import write
from tests.runs import files


def test_only_its_own_methods_go_with_an_attempt(tmp_path: Path) -> None:
    names = ["infer_walk", "mine", "seed_3"]
    for name in names:
        write(tmp_path / name / ".hydra" / "config.yaml", {})
    for config, left in (({}, names), ({"methods": None}, names), ({"methods": ["infer_walk", ".."]}, names[1:])):
        write(tmp_path / "manifest.json", {"config": config})
        (tmp_path / "status.json").touch()
        discard_attempt(tmp_path)
        assert files(tmp_path) & {*names, "status.json"} == set(left)
