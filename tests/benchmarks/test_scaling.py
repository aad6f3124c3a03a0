"""The program that writes the tables of docs/scaling.md."""

from pathlib import Path

import pytest

from benchmarks import scaling


def test_sizes_of_every_chain_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "NETWORKS", {"small": ("encoder.hidden=[4]", "decoder.hidden=[4]")})
    scaling.table_of_sizes(scaling.write_pixels(tmp_path, 700))
    _, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[1:4] for row in rows] == [
        *(["64", "1", steps] for steps in ("0", "1", "5", "10")),
        ["64", "4", "5"],
        *([latent, "1", "5"] for latent in ("16", "256")),
    ]
    held = [float(row[-1]) for row in rows]
    assert held[:4] == sorted(held[:4])
    assert held[4] > 3 * held[2]  # four chains for one
