"""Intervals and paired differences, beside values worked out by hand or drawn one by one."""

import numpy as np
import pytest

from segwright import bootstrap
from segwright.metrics import scores

ROWS = np.array([[[8, 1, 1], [3, 0, 1]], [[2, 2, 0], [0, 1, 3]], [[5, 0, 5], [4, 4, 0]], [[9, 0, 1], [0, 0, 0]]])
"""Four images, two classes."""


def test_scores_of_counts_are_those_of_the_metrics():
    for counts in (ROWS.sum(0), ROWS[0], ROWS[3]):
        assert bootstrap.mean_of_present(bootstrap.iou(counts)) == pytest.approx(scores(counts)["iou"])
        assert bootstrap.mean_of_present(bootstrap.dice(counts)) == pytest.approx(scores(counts)["dice"])


def test_a_class_that_does_not_occur_has_no_score():
    assert np.isnan(bootstrap.iou(ROWS[3])[1])
    assert bootstrap.iou(ROWS[0]) == pytest.approx([8 / 10, 3 / 4])
    assert np.isnan(bootstrap.mean_of_present(bootstrap.iou(np.zeros((2, 3), int))))


def test_a_draw_is_a_sum_of_as_many_images_as_there_are():
    """With counts that are the image's own power of 10 a sum says which images it is made of."""
    rows = 10 ** np.arange(4)[:, None, None] * np.ones((4, 1, 3), int)
    digits = bootstrap.draw(rows, draws=500, seed=3)[:, 0, 0]
    times = np.stack([digits // 10**place % 10 for place in range(4)], 1)
    assert (times.sum(1) == 4).all()
    assert times.mean(0) == pytest.approx([1, 1, 1, 1], abs=0.15)


def test_an_interval_is_that_of_draws_made_one_by_one():
    drawn = bootstrap.mean_of_present(bootstrap.iou(bootstrap.draw(ROWS, draws=5_000)))
    rng = np.random.default_rng(9)
    own = [scores(ROWS[rng.integers(0, 4, 4)].sum(0))["iou"] for _ in range(2_000)]
    assert bootstrap.interval(drawn, 4) == pytest.approx(tuple(np.quantile(own, [0.025, 0.975])), abs=0.03)


def test_parts_make_the_same_draws_as_the_whole(monkeypatch):
    whole = bootstrap.draw(ROWS, draws=50, seed=1)
    monkeypatch.setattr(bootstrap, "AT_ONCE", 8 * len(ROWS) * 7)
    np.testing.assert_array_equal(bootstrap.draw(ROWS, draws=50, seed=1), whole)


def test_images_that_are_all_alike_leave_no_doubt():
    drawn = bootstrap.iou(bootstrap.draw(np.repeat(ROWS[:1], 6, axis=0)))
    assert bootstrap.interval(drawn[:, 0], 6) == pytest.approx((0.8, 0.8))


def test_a_class_on_one_image_of_many_has_no_interval():
    """It is missing from (1 - m/n)^n of the draws: of 36 % for one image of 40, of 4 % for three; of none, from all."""
    rows = np.zeros((40, 3, 3), int)
    rows[7, 0] = rows[:3, 1] = [5, 1, 1]
    drawn = bootstrap.iou(bootstrap.draw(rows))
    assert [bootstrap.interval(drawn[:, k], 40) is None for k in range(3)] == [True, False, True]


def test_a_draw_without_anything_to_find_is_no_draw_in_which_all_was_found():
    """One class on half of four images, with an IoU of 0.8 on each: draws without it would count as 1."""
    rows = np.zeros((4, 1, 3), int)
    rows[:2, 0] = [8, 1, 1]
    mean = bootstrap.mean_of_present(bootstrap.iou(bootstrap.draw(rows)))
    assert np.nanmax(mean) == pytest.approx(0.8)


def test_one_image_has_neither_interval_nor_difference():
    """All draws of it are the same, which is no knowledge of other images."""
    first, second = np.full(2000, 0.5), np.full(2000, 0.6)
    assert bootstrap.interval(first, 1) is None
    found = bootstrap.difference(first, second, 0.1, 1)
    assert (found.value, found.between, found.p) == (0.1, None, 1.0)


@pytest.mark.parametrize(("images", "p"), [(5, 1 / 16), (6, 1 / 32), (40, 2 / 2001)])
def test_few_images_cannot_make_p_smaller_than_as_many_coins_can(images, p):
    """All images better: so is each draw. But n fair coins show one side with a chance of 2 * 2^-n."""
    assert bootstrap.difference(np.full(2000, 0.5), np.full(2000, 0.6), 0.1, images).p == pytest.approx(p)


def test_a_small_but_steady_difference_is_real_when_paired():
    """Every image is a little better, so each draw is; the runs' own intervals overlap widely."""
    rng = np.random.default_rng(0)
    hits = rng.integers(20, 80, 60)
    first = np.stack([hits, 100 - hits, np.zeros(60, int)], 1)[:, None]
    second = first + np.array([1, -1, 0])
    drawn = bootstrap.iou(bootstrap.draw(np.stack([first, second], 1)))[..., 0]
    assert bootstrap.interval(drawn[:, 0], 60)[1] > bootstrap.interval(drawn[:, 1], 60)[0] + 0.05
    found = bootstrap.difference(drawn[:, 0], drawn[:, 1], 0.01, 60)
    assert found.between == pytest.approx((0.01, 0.01))
    assert found.p == pytest.approx(2 / 2001)


def test_no_difference_has_p_1():
    drawn = bootstrap.iou(bootstrap.draw(ROWS))[..., 0]
    assert bootstrap.difference(drawn, drawn, 0.0, 4).p == 1.0


def test_p_is_uniform_where_there_is_no_difference():
    """Of 150 pairs of equally good runs about 5 % have p < 0.05."""
    rng, low = np.random.default_rng(1), 0
    for _ in range(150):
        hits = rng.binomial(100, 0.6, (50, 2))
        rows = np.stack([hits, 100 - hits, 0 * hits], -1)[:, :, None]
        drawn = bootstrap.iou(bootstrap.draw(rows, draws=200))[..., 0]
        value = float(np.diff(bootstrap.iou(rows.sum(0))[:, 0])[0])
        low += bootstrap.difference(drawn[:, 0], drawn[:, 1], value, 50).p < 0.05
    assert 2 <= low <= 18


def test_holm_by_hand():
    """Sorted .01 .02 .04 times 3, 2, 1: .03 .04 .04, never below the one before."""
    assert bootstrap.holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert bootstrap.holm([0.6, 0.9]) == [1.0, 1.0]
