"""`python -m benchmarks.replicas`: what it prints, and that wrong words are one line."""

import pytest

from benchmarks import measuring, replicas
from tests.runs import own_globals


def run(*words: str) -> int:
    with own_globals():
        return replicas.main(words)


def test_the_table_says_what_its_columns_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "BLOCK_SECONDS", 0.0)
    assert run("--experiments", "digits_vae", "--counts", "1,2", "--seconds", "0.1") == 0
    machine, legend, head, row = capsys.readouterr().out.splitlines()
    assert machine.startswith("cpu: ")
    assert "R: of R runs side by side, in those of one" in legend
    assert head.split() == ["experiment", "alone", "R=1", "R=2"]
    assert row.split()[0] == "digits_vae"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--experiments", "digits_va"], "no 'digits_va'; did you mean digits_vae?"),
        (["--experiments", "infer_ring_posterior"], "no 'infer_ring_posterior'"),
        (["--counts", "2,x"], "'x' is not a positive whole number"),
        (["--counts", "0"], "'0' is not a positive whole number"),
        (["--seconds", "-1"], "'-1' is not a positive number of seconds"),
        (["--threads", "4096"], "this machine has"),
        (["--bogus"], "--bogus"),
    ],
)
def test_wrong_words_are_refused_in_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(*words)
    assert end.value.code == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("bench: error: ")
    assert found.err.count("\n") == 1
    assert said in found.err
