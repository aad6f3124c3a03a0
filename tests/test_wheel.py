"""The wheel: built, installed beside its dependencies, and used where no checkout is."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from metvae_cli import __version__
from metvae_cli.paths import config_dir
from tests.runs import CHECKOUT, TINY, files


def run(*words: str | Path, cwd: Path) -> str:
    """Run a command that finds nothing of the checkout; returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(words, cwd=cwd, capture_output=True, text=True, env=environment | {"OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder)
    run(*build, CHECKOUT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a fresh environment that holds the wheel and sees the dependencies of this one."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False, symlinks=True)
    programs = folder / "bin"
    install = ("-m", "pip", "--python", programs / "python", "install", "--no-deps", "--no-index", "--quiet")
    run(sys.executable, *install, "--disable-pip-version-check", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


def test_the_wheel_holds_the_package_and_its_configs_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    configs = {name.removeprefix("metvae_cli/configs/") for name in names if name.startswith("metvae_cli/configs/")}
    assert configs == {path.relative_to(config_dir()).as_posix() for path in config_dir().rglob("*.yaml")}
    assert {name.partition("/")[0] for name in names} == {"metvae_cli", f"metvae-{__version__}.dist-info"}
    sources = {path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "metvae_cli").rglob("*.py")}
    assert sources <= set(names)
    assert "metvae_cli/completion.bash" in names
    assert not [name for name in names if name.endswith((".pyc", ".log"))]


def test_an_installed_metvae_works_without_a_checkout(installed: Path, tmp_path: Path) -> None:
    where = run(installed / "python", "-c", "import metvae_cli; print(metvae_cli.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(installed.parent)
    assert run(installed / "metvae", "--version", cwd=tmp_path).startswith(f"metvae {__version__}\n")
    assert "sampler=hmc" in run(installed / "metvae", "configs", "list", cwd=tmp_path)
    assert files(tmp_path) == set()
    printed = run(installed / "metvae", "train", *TINY, "trainer.max_epochs=1", "hydra.run.dir=run", cwd=tmp_path)
    assert "test log-likelihood" in printed
    manifest = (tmp_path / "run" / "manifest.json").read_text()
    assert '"git": null' in manifest
    assert '"status": "finished"' in (tmp_path / "run" / "status.json").read_text()
    assert str(CHECKOUT) not in manifest
