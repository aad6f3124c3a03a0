"""docs/results.md: it says what is kept, and what is not measured."""

from pathlib import Path

import numpy as np

from benchmarks import posterior_figure, results_page, study_figure, study_records
from benchmarks.study_plan import Study, Unit
from tests.benchmarks.studies import GRID, record


def test_the_page_in_the_repository_is_the_one_that_the_records_make() -> None:
    assert results_page.PAGE.read_text(encoding="utf-8") == results_page.page()


def test_a_grid_shows_what_is_best_in_each_setting(home: Path) -> None:
    for setting, row, seed, nats in [
        ("wide", "VAE", 0, -5.0),
        ("wide", "VAE", 1, -6.0),
        ("wide", "IWAE-2", 0, -4.0),
        ("narrow", "VAE", 0, -7.0),
        ("narrow", "IWAE-2", 0, -8.0),
    ]:
        study_records.keep(GRID, record(Unit(setting, row, seed), nats))
    lines = list(results_page.grid_table(GRID))
    assert lines[2] == "| wide | `decoder.hidden=[32]` | -5.50 ± 0.71 | **-4.00** |"
    assert lines[3] == "| narrow | `decoder.hidden=[4]` | **-7.00** | -8.00 |"
    assert lines[-1].endswith("seeds of a cell: 1, 2.")


def test_rows_less_the_first_are_compared_datum_by_datum(home: Path) -> None:
    paired = Study(**{**GRID.__dict__, "paired": True})
    for row, seed, values in [
        ("VAE", 0, [-1.0, -9.0, -5.0]),
        ("IWAE-2", 0, [-0.5, -8.0, -5.0]),
        ("VAE", 1, [-2.0, -9.0, -5.0]),
        ("IWAE-2", 1, [-1.5, -9.0, -5.0]),
        ("IWAE-2", 2, [90.0, 90.0, 90.0]),  # no such seed of the first row
    ]:
        one = record(Unit("wide", row, seed), sum(values) / 3, per_datum=values)
        study_records.keep(paired, one)
    lines = list(results_page.grid_table(paired))
    assert lines[0].endswith("| VAE | IWAE-2 | IWAE-2 less VAE |")
    # By datum 1/2, 1/2 and 0 over the seeds: a mean of 1/3, a standard deviation of 0.289.
    assert lines[2].endswith("| +0.33 (0.17) |")
    assert lines[3].endswith("| not measured |")


def test_estimates_of_each_datum_are_those_that_rows_are_compared_by(tmp_path: Path) -> None:
    (tmp_path / "per_datum.csv").write_text("datum,importance,ais\n0,-1.234,-1.126\n1,-2.0,\n2,-3.5,-3.25\n")
    assert study_records.per_datum(tmp_path / "per_datum.csv", "ais") == [-1.13, -3.25]
    one = record(Unit("wide", "VAE", 0), -5.0)
    assert study_records.compared_by(one) == "importance"
    one["estimators"]["ais"] = {"nats": -4.0, "standard_error_over_data": 0.5}
    assert (study_records.compared_by(one), study_records.likelihood(one)) == ("ais", (-4.0, 0.5))


def test_a_grid_in_detail_has_a_table_for_each_setting(home: Path) -> None:
    detailed = Study(**{**GRID.__dict__, "detail": True})
    study_records.keep(detailed, record(Unit("wide", "VAE", 0), -5.0))
    study_records.keep(detailed, record(Unit("narrow", "VAE", 0), -7.0))
    lines = list(results_page.tables(detailed))
    assert lines[0] == "wide, `decoder.hidden=[32]`:"
    narrow = lines.index("narrow, `decoder.hidden=[4]`:")
    assert ["-5.00 (0.25)" in " ".join(part) for part in (lines[:narrow], lines[narrow:])] == [True, False]
    assert ["-7.00 (0.25)" in " ".join(part) for part in (lines[:narrow], lines[narrow:])] == [False, True]
    missing = "Not measured: IWAE-2 (`sampler=none objective=iwae`)."
    assert lines.count(missing) == 2
    records = study_records.records_of(detailed)
    figure = study_figure._curves(detailed, records)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["wide", "narrow"]
    study_figure.plt.close(figure)
    study_figure.write_figure(detailed, records, home / "figure.png")
    assert (home / "figure.png").stat().st_size > 5000


def test_a_figure_of_posteriors_shows_the_encoder_and_where_a_chain_ends() -> None:
    study = Study(**{**GRID.__dict__, "detail": True, "figure": "posteriors"})
    records = [
        record(Unit("narrow", "VAE", seed), -5.0, posterior={"kl_start": kl, "kl_end": kl, "data": 3})
        for seed, kl in ((0, 1.0), (1, 2.0))
    ]
    records.append(record(Unit("narrow", "IWAE-2", 0), -5.0, posterior={"kl_start": 3.0, "kl_end": 0.5, "data": 3}))
    records.append(record(Unit("wide", "VAE", 0), -5.0))
    figure = posterior_figure.posterior_figure(study, records)
    (axis,) = figure.axes  # of "wide" nothing was measured
    assert axis.get_title() == "narrow"
    assert [text.get_text() for text in axis.get_yticklabels()] == ["IWAE-2", "VAE"]
    points = [tuple(np.asarray(line.get_xydata())[0]) for line in axis.lines]
    assert points == [(3.0, 0), (0.5, 0), (1.5, 1)]
    study_figure.plt.close(figure)


def test_changes_since_the_commit_are_told() -> None:
    one = record(Unit("wide", "VAE", 0), -5.0)
    assert "with changes" not in results_page.made_on([one | {"changed": []}])
    assert "with changes in metvae_cli/build.py" in results_page.made_on([one | {"changed": ["metvae_cli/build.py"]}])


def test_the_posteriors_of_encoder_and_chain_are_both_shown() -> None:
    reference = {"data": [3, 9], "kl_start": [0.5, 1.5], "kl_end": [0.25, 0.25], "r_hat": [1.0, 1.0]}
    found = study_records.posterior({"sampler": {"reference": reference}})
    assert found == {"kl_start": 1.0, "kl_end": 0.25, "data": 2}
    assert study_records.posterior({}) == study_records.posterior({"sampler": {"steps": {}}}) == {}
    cell = results_page.COLUMNS["KL to the posterior: encoder; chain's end"]
    other = record(Unit("", "VAE", 1), -2.0, posterior={"kl_start": 2.0, "kl_end": 0.5, "data": 2})
    assert cell([record(Unit("", "VAE", 0), -2.0, posterior=found), other]) == "1.50 ± 0.71; 0.38 ± 0.18"
    assert cell([record(Unit("", "VAE", 0), -2.0)]) == "-"


def test_a_row_without_records_is_not_measured(home: Path) -> None:
    plain = Study(**{**GRID.__dict__, "grid": {}})
    unit = Unit("", "VAE", 0)
    study_records.keep(plain, record(unit, -5.0, words=plain.words(unit)))
    head, _, first, blank, second = results_page.table(plain)
    assert "-5.00 (0.25) | -5.50 | 0.50 | 30, 0.50 | 2.0 | 2 | 7 | 0 |" in first
    assert first.count("|") == head.count("|")
    assert (blank, second) == ("", "Not measured: IWAE-2 (`sampler=none objective=iwae`).")
    nothing = Study(**{**plain.__dict__, "name": "other"})
    assert list(results_page.table(nothing)) == [
        "Not measured: VAE (`sampler=none objective=elbo`); IWAE-2 (`sampler=none objective=iwae`)."
    ]


def test_the_spread_over_seeds_is_not_the_error_over_data() -> None:
    records = [record(Unit("wide", "VAE", seed), nats) for seed, nats in enumerate((-5.0, -6.0))]
    assert results_page.COLUMNS["importance sampling"](records) == "-5.50 ± 0.71 (0.25)"
    agreement = {"ais - importance": {"nats": 0.1, "standard_error_over_data": 0.02}}
    both = [one | {"agreement": agreement} for one in records]
    # All seeds have the same data: their errors are not independent, and more seeds do not make them smaller.
    assert results_page.COLUMNS["AIS - importance, same data"](both) == "+0.100 (0.020)"
