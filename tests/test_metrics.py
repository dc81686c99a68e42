"""Metrics against counts made by hand and against plain NumPy."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from segwright.large import value_counts
from segwright.metrics import Counts, NearF1, ThresholdSweep, dilate, scores


def test_binary_scores_by_hand():
    """Image 1: tp 1, fp 1, fn 0; image 2: tp 0, fp 0, fn 2. Together IoU 1/4, Dice 2/5, precision 1/2, recall 1/3."""
    counts = Counts(1)
    counts.add(np.array([[1, 1], [0, 0]]), np.array([[1, 0], [0, 255]]))
    counts.add(np.array([[0, 0], [1, 0]]), np.array([[1, 1], [255, 0]]))
    got = scores(counts.total())
    assert got == pytest.approx({"iou": 1 / 4, "dice": 2 / 5, "precision": 1 / 2, "recall": 1 / 3})
    assert [scores(row)["iou"] for row in counts.rows] == pytest.approx([1 / 2, 0])


def test_the_data_set_is_counted_not_the_batches():
    """Per-image means would give (1 + 0) / 2; the counts say 9 / 10."""
    counts = Counts(1)
    counts.add(np.ones((3, 3), int), np.ones((3, 3), int))
    counts.add(np.zeros((1, 1), int), np.ones((1, 1), int))
    assert scores(counts.total())["iou"] == pytest.approx(0.9)


def test_several_classes_average_over_those_that_occur():
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 3, (40, 50)), rng.integers(0, 3, (40, 50))
    truth[:5] = 255
    counts = Counts(5)
    counts.add(prediction, truth)
    valid = truth != 255
    expected = [
        (valid & (truth == c) & (prediction == c)).sum() / (valid & ((truth == c) | (prediction == c))).sum()
        for c in range(3)
    ]
    assert scores(counts.total())["iou"] == pytest.approx(np.mean(expected))


def test_nothing_to_find_and_nothing_found_is_perfect_but_a_false_alarm_is_not():
    empty = Counts(1)
    empty.add(np.zeros((2, 2), int), np.zeros((2, 2), int))
    assert scores(empty.total())["iou"] == 1
    empty.add(np.ones((2, 2), int), np.zeros((2, 2), int))
    assert scores(empty.total()) == {"iou": 0, "dice": 0, "precision": 0, "recall": 0}


def test_the_sweep_counts_as_a_threshold_does():
    rng = np.random.default_rng(1)
    truth = (rng.random((60, 70)) < 0.2).astype(np.uint8)
    truth[:3] = 255
    probability = np.clip(0.3 * truth + 0.7 * rng.random(truth.shape), 0, 1).astype(np.float32)
    sweep = ThresholdSweep()
    sweep.add(probability, truth)
    threshold, iou = sweep.best()

    def plain(t: float) -> float:
        hit, valid = probability >= t, truth != 255
        return (hit & (truth == 1)).sum() / (valid & (hit | (truth == 1))).sum()

    assert iou == pytest.approx(plain(threshold), abs=1e-3)
    assert iou >= max(plain(t) for t in np.arange(0.05, 1, 0.05)) - 1e-6


def test_of_equally_good_thresholds_the_middle_of_the_longest_run_is_taken():
    """0.1 and 0.9 lie in bins 20 and 180: thresholds of bins 21 to 180 tell them apart, the middle is 100 of 200."""
    sweep = ThresholdSweep()
    sweep.add(np.array([[0.1, 0.9]]), np.array([[0, 1]]))
    assert sweep.best() == (0.5, 1.0)


def test_a_longer_run_of_equally_good_thresholds_beats_an_earlier_one():
    """True pixels in bins 41 and 161, a false one in 61: IoU 2/3 up to threshold 41, then 1/3, from 62 on 1/2.
    True ones in 61 and 161, false ones in 41 and twice in 81: 2/5 up to 41, 2/4 up to 61, 1/4 up to 81, 1/2 up to 161.
    """
    sweep = ThresholdSweep()
    sweep.add(np.array([[0.205, 0.805, 0.305]]), np.array([[1, 1, 0]]))
    assert sweep.best() == (21 / 200, pytest.approx(2 / 3))
    sweep = ThresholdSweep()
    sweep.add(np.array([[0.305, 0.805, 0.205, 0.405, 0.405]]), np.array([[1, 1, 0, 0, 0]]))
    assert sweep.best() == (121 / 200, 0.5)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that is allocated at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_counts_of_a_large_image_take_memory_for_a_strip_of_it_and_are_those_of_the_whole():
    """Four million pixels: less than 2 bytes for each, where the whole at once takes 9 to 20."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (2001, 2003), dtype=np.uint8)
    truth[:5] = 255
    prediction, probability = np.roll(truth, 1) % 3, rng.random(truth.shape, np.float32)
    counts, sweep, values = Counts(3), ThresholdSweep(), []
    assert peak_bytes(lambda: counts.add(prediction, truth)) < 2 * truth.size
    assert peak_bytes(lambda: sweep.add(probability, truth)) < 2 * truth.size
    assert peak_bytes(lambda: values.append(value_counts(truth))) < 2 * truth.size
    assert np.array_equal(values[0], np.bincount(truth.ravel(), minlength=256))
    for true in range(3):
        for found in range(3):
            assert counts.confusion[true, found] == np.sum((truth == true) & (prediction == found))
    bins = np.floor(probability * 200).astype(int)
    assert np.array_equal(sweep.positive, np.bincount(bins[truth == 1], minlength=201))
    assert np.array_equal(sweep.negative, np.bincount(bins[truth == 0], minlength=201))


def test_dilation_is_euclidean():
    rng = np.random.default_rng(2)
    mask = rng.random((30, 40)) < 0.02
    assert np.array_equal(dilate(mask, 2), distance_transform_edt(~mask) <= 2)


def test_near_f1_forgives_two_pixels_not_three():
    truth = np.zeros((9, 20), np.uint8)
    truth[4] = 1
    for shift, expected in ((0, 1.0), (2, 1.0), (3, 0.0)):
        near = NearF1()
        near.add(np.roll(truth, shift, 0), truth)
        assert near.f1() == expected
