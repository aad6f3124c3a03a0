"""`metvae configs` on a small menu made for the purpose."""

import sys
from pathlib import Path

import pytest

from metvae_cli.commands import configs
from metvae_cli.errors import ConfigError

FILES = {
    "train.yaml": "defaults: [sampler: hmc]\n",
    "sampler/hmc.yaml": "# Hamiltonian dynamics with [leapfrog] steps\n# more\nstep_size: 0.1\n",
    "sampler/none.yaml": "_target_: x\n",
    "experiment/toy.yaml": "# @package _global_\n#\n# A run of seconds\nseed: 1\n",
}


@pytest.fixture(autouse=True)
def menu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "shipped"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(configs, "config_dir", lambda: root)
    return root


def test_list_prints_every_choice_with_its_first_comment(capsys: pytest.CaptureFixture[str]) -> None:
    assert configs.main(["list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "experiment=toy  A run of seconds",
        "sampler=hmc     Hamiltonian dynamics with [leapfrog] steps",
        "sampler=none",
    ]


def test_list_of_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert configs.main(["list", "experiment"]) == 0
    assert capsys.readouterr().out == "experiment=toy  A run of seconds\n"


def test_list_is_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert configs.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert "what it is" in printed
    assert "with [leapfrog] steps" in printed  # not taken for markup


@pytest.mark.parametrize("word", ["sampler=hmc", "sampler/hmc", "sampler/hmc.yaml"])
def test_show_prints_the_file(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert configs.main(["show", word]) == 0
    assert capsys.readouterr().out == FILES["sampler/hmc.yaml"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "smapler"], "there is no group 'smapler'; did you mean 'sampler'?"),
        (["list", "xyz"], "there is no group 'xyz'; the groups are experiment, sampler"),
        (["show", "smapler=hmc"], "there is no group 'smapler'; did you mean 'sampler'?"),
        (["show", "sampler=hcm"], "sampler has no choice 'hcm'; did you mean 'hmc'?"),
        (["show", "sampler=xyz"], "sampler has no choice 'xyz'; the choices are hmc, none"),
        (["show", "hmc"], "'hmc' names no choice: write group=choice, such as sampler=hmc"),
        (["copy", "mine", "sampler/hcm"], "sampler has no choice 'hcm'; did you mean 'hmc'?"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configs.main(words)
    assert str(caught.value) == message


def copied(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_copy_takes_everything_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert configs.main(["copy", str(tmp_path / "new" / "mine")]) == 0
    assert copied(tmp_path / "new" / "mine") == FILES
    assert f"--config-path {tmp_path / 'new' / 'mine'}" in capsys.readouterr().err


def test_copy_takes_what_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine"
    assert configs.main(["copy", str(mine), "sampler=hmc", "experiment/toy"]) == 0
    assert copied(mine).keys() == {"sampler/hmc.yaml", "experiment/toy.yaml"}
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(mine / "sampler/hmc.yaml"), str(mine / "experiment/toy.yaml")]
    assert f"--config-dir {mine} sampler=my_hmc" in printed.err


def test_copy_refuses_to_overwrite_and_copies_nothing(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "sampler").mkdir(parents=True)
    edited = mine / "sampler" / "hmc.yaml"
    edited.write_text("edited", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"hmc\.yaml is there already; --force overwrites it"):
        configs.main(["copy", str(mine)])
    assert copied(mine) == {"sampler/hmc.yaml": "edited"}
    assert configs.main(["copy", str(mine), "--force"]) == 0
    assert copied(mine) == FILES


def test_copy_to_what_is_no_folder_is_an_error_of_usage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot copy to"):
        configs.main(["copy", str(tmp_path / "file"), "sampler=hmc"])


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        configs.main(["--help"])
    assert caught.value.code == 0
    assert "usage: metvae configs" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["lis"], ["show"], ["list", "--forc"]])
def test_wrong_usage_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"`metvae configs.* --help` shows"):
        configs.main(words)
    assert capsys.readouterr() == ("", "")
