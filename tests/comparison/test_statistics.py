"""Means, intervals and shares of variance against numpy and scipy."""

import numpy as np
import pytest
from scipy import stats

from metvae_cli.comparison.statistics import moments, paired_difference, share_of_variance


def test_moments_are_those_of_numpy_and_scipy() -> None:
    values = [1.0, 4.0, 2.5, -3.0]
    found = moments(values, 0.9)
    assert found is not None
    assert found.count == 4
    assert found.mean == pytest.approx(np.mean(values))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    assert found.se == pytest.approx(stats.sem(values))
    low, high = stats.t.interval(0.9, 3, loc=np.mean(values), scale=stats.sem(values))
    assert found.ci == pytest.approx((high - low) / 2)


def test_one_value_has_no_spread_and_none_has_no_mean() -> None:
    found = moments([2.0])
    assert found is not None
    assert (found.mean, found.sd, found.se, found.ci) == (2.0, None, None, None)
    assert moments([]) is None


def test_paired_differences_are_those_of_the_paired_t_test_on_common_seeds() -> None:
    ours, theirs = {0: 1.0, 1: 3.5, 2: 2.0, 7: 99.0}, {2: 1.0, 0: 0.5, 1: 2.0, 8: -99.0}
    found = paired_difference(ours, theirs)
    judge = stats.ttest_rel([1.0, 3.5, 2.0], [0.5, 2.0, 1.0]).confidence_interval(0.95)
    assert found is not None
    assert found.pairs == 3
    assert found.mean == pytest.approx(1.0)
    assert (found.low, found.high) == pytest.approx((judge.low, judge.high))
    # Unpaired, the same numbers would give another interval.
    unpaired = stats.ttest_ind([1.0, 3.5, 2.0], [0.5, 2.0, 1.0]).confidence_interval(0.95)
    assert found.low != pytest.approx(unpaired.low)


def test_an_interval_is_clear_only_if_it_leaves_zero_out() -> None:
    near = paired_difference({0: 1.0, 1: -0.9}, {0: 0.0, 1: 0.0})
    far = paired_difference({0: 1.0, 1: 1.01}, {0: 0.0, 1: 0.0})
    single = paired_difference({0: 1.0}, {0: 0.0})
    assert near is not None and far is not None and single is not None  # noqa: PT018
    assert (near.clear, far.clear, single.clear) == (False, True, False)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_the_share_is_eta_squared_of_a_one_way_analysis() -> None:
    groups = {"a": [1.0, 2.0, 3.0], "b": [2.0, 4.0], "c": [9.0, 7.0, 8.0, 8.5]}
    levels = [level for level, values in groups.items() for _ in values]
    values = [value for own in groups.values() for value in own]
    found = share_of_variance("key", levels, values)
    f, between, within = stats.f_oneway(*groups.values()).statistic, 2, len(values) - 3
    assert found is not None
    assert found.share == pytest.approx(f * between / (f * between + within))
    assert found.adjusted == pytest.approx((f - 1) * between / (f * between + within))
    assert [level for level, _ in found.levels] == ["c", "b", "a"]


def test_the_adjusted_share_of_what_does_not_matter_is_zero_on_average() -> None:
    generator = np.random.default_rng(0)
    shares = [share_of_variance("key", list("aabbccdd"), generator.normal(size=8).tolist()) for _ in range(400)]
    adjusted = [share.adjusted for share in shares if share is not None and share.adjusted is not None]
    raw = [share.share for share in shares if share is not None]
    error = np.std(adjusted) / np.sqrt(len(adjusted))
    assert abs(np.mean(adjusted)) < 5 * error
    assert np.mean(raw) > 0.3  # what the adjustment is for


def test_nothing_is_explained_of_what_does_not_vary() -> None:
    assert share_of_variance("key", ["a", "b"], [1.0, 1.0]) is None
    assert share_of_variance("key", ["a", "a"], [1.0, 2.0]) is None
