"""Maps against masks: overlap and pointing by hand, floors that need no network, the middle against the edge."""

import numpy as np
import pytest

from cxr_helpers.data import load_dataset
from cxr_helpers.study import box_masks, floors, localisation, middle_share


def boxed(*boxes: tuple[float, float, float, float]) -> np.ndarray:
    return box_masks(np.array(boxes), 8)


def test_a_box_holds_the_pixels_whose_centre_is_in_it() -> None:
    (mask,) = boxed((0.25, 0.0, 0.5, 0.75))
    expected = np.zeros((8, 8), dtype=bool)
    expected[0:6, 2:4] = True
    np.testing.assert_array_equal(mask, expected)


def test_overlap_and_pointing_are_those_counted_by_hand() -> None:
    truth = boxed((0.0, 0.0, 0.5, 0.5), (0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0))  # 16 pixels each
    maps = np.zeros((3, 8, 8))
    maps[0, :4, :4], maps[1, :4, 2:6], maps[2, 4:, 4:] = 2, 1, -1  # found whole, by half, shunned
    maps[1, 0, 5] = 3
    table = localisation(maps, truth, 0.25)
    assert table.iou.tolist() == pytest.approx([1, 8 / 24, 0]) and table.pointing.tolist() == [1, 0, 0]
    assert localisation(maps, truth, 0.125).iou[0] == pytest.approx(0.5)
    np.testing.assert_array_equal(localisation(7 * maps - 3, truth, 0.25), table)  # in any unit
    coarse = localisation(np.array([[[1.0, 0.0], [0.0, 0.0]]]), truth[:1], 0.25)
    assert coarse.pointing[0] == 1 and coarse.iou[0] > 0.6
    with pytest.raises(ValueError, match="truth must be a finding in every image"):
        localisation(maps, truth & False, 0.25)
    with pytest.raises(ValueError, match="maps must be as many as masks, 3, got 2"):
        localisation(maps[:2], truth, 0.25)


def test_the_constant_box_is_the_medoid_of_train_and_the_usual_map_is_one_for_all() -> None:
    train = boxed((0, 0, 0.5, 0.5), (0, 0, 0.5, 0.625), (0, 0, 0.5, 0.75), (0.75, 0.75, 1, 1))
    truth = boxed((0, 0, 0.5, 0.625), (0.5, 0.5, 1, 1))
    usual = np.zeros((2, 2))
    usual[1, 1] = 1
    found = floors(train, truth, usual)
    assert found["constant box"].iou.tolist() == [1, 0] and found["constant box"].pointing.tolist() == [1, 0]
    assert found["usual map"].pointing.tolist() == [0, 1] and found["usual map"].iou[1] > 0.5
    assert list(floors(train, truth)) == ["constant box"]


def test_on_drawn_films_the_masks_themselves_are_perfect_and_the_floor_is_not() -> None:
    data = load_dataset("phantom", 64, max_train_images=80, max_eval_images=60)
    train, test = (s.masks[s.labels == 1][:, 0].numpy() for s in (data.train, data.test) if s.masks is not None)
    perfect = localisation(test + 0.0, test, test.mean())
    floor = floors(train, test, train.mean(axis=0))
    assert perfect.pointing.mean() == 1 and perfect.iou.mean() > 0.6
    assert all(0.02 < table.iou.mean() < 0.5 for table in floor.values())


def test_the_middles_share_is_the_area_of_a_flat_map_and_blind_to_counter_evidence() -> None:
    maps = np.ones((4, 4, 4))
    maps[1, 1:3, 1:3], maps[2, 1:3, 1:3], maps[3] = 3, -5, -1
    shares = middle_share(maps)
    assert shares[:3] == pytest.approx([0.25, 12 / 24, 0]) and np.isnan(shares[3])
    assert middle_share(np.ones((1, 7, 3)), 0.4)[0] == pytest.approx(0.16)
