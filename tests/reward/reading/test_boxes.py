# ruff: noqa: E501 - the case tables read better unwrapped
import math
import time

import pytest

from reward.reading.boxes import Box, iou, meant, read_boxes
from reward.score import score_local
from reward.verifiers.bbox import EPS_SCHEDULE, eps_at
from reward.verifiers.detection import average_precision, matched_overlaps

GOLD = "[10, 20, 110, 220]"


def bbox(answer, reference=GOLD, progress=None, **spec):
    return score_local(f"<answer>{answer}</answer>", reference, "bbox", spec=spec, progress=progress).parts[
        "accuracy"
    ]


def detect(answer, reference, **spec):
    return score_local(f"<answer>{answer}</answer>", reference, "detection", spec=spec).parts["accuracy"]


PERFECT = [
    "[10, 20, 110, 220]",
    "[10，20，110，220]",
    '{"bbox_2d": [10, 20, 110, 220], "label": "cat [1]"}',
    "[10,20,110,220]",
    "[10 20 110 220]",
    "(10, 20, 110, 220)",
    "10, 20, 110, 220",
    "[10.0, 20.0, 110.0, 220.0]",
    "[1e1, 2e1, 1.1e2, 2.2e2]",
    "[[10, 20, 110, 220]]",
    "[[10, 20], [110, 220]]",
    "(10,20),(110,220)",
    "<|box_start|>(10,20),(110,220)<|box_end|>",
    '{"bbox_2d": [10, 20, 110, 220]}',
    '[{"bbox_2d": [10, 20, 110, 220], "label": "cat"}]',
    '```json\n[{"bbox_2d": [10, 20, 110, 220], "label": "cat"}]\n```',
    '{"bbox": [10, 20, 110, 220], "score": 0.9}',
    '{"x1": 10, "y1": 20, "x2": 110, "y2": 220}',
    '["10", "20", "110", "220"]',
    "The box is [10, 20, 110, 220].",
    "$[10, 20, 110, 220]$",
    "\\text{[10, 20, 110, 220]}",
    "**[10, 20, 110, 220]**",
]

WORTHLESS = [
    "", "none", "[]", "[[]]", "[10]", "[10, 20]", "[10, 20, 110]", "[10, 20, 110, 220, 1]", "[110, 20, 10, 220]", "[10, 220, 110, 20]",
    "[110, 220, 10, 20]", "[10, 20, 10, 220]", "[10, 20, 110, 20]", "[0, 0, 0, 0]", "[10, 20, nan, 220]", "[10, 20, inf, 220]",
    "[10, 20, 1e999, 220]", "[-inf, -inf, inf, inf]", "[10, 20, 110, abc]", "[a, b, c, d]", "[500, 500, 600, 600]", "10 20 110",
    "[-1e308, -1e308, 1e308, 1e308]", "[10; 20; 110; x]", "[-110, -220, -10, -20]", "{}", "{'x1': 10}", "[10, 20, 110, 220", "[[10,20],[110]]",
    "[1e-320, 1e-320, 2e-320, 2e-320]", "10:20:110:220", "x" * 1000, "[None, 20, 110, 220]",
]  # fmt: skip


@pytest.mark.parametrize("answer", PERFECT)
def test_the_box_in_every_notation(answer):
    assert bbox(answer) == 1.0


@pytest.mark.parametrize("answer", WORTHLESS)
def test_not_a_box_or_no_overlap(answer):
    assert bbox(answer) == 0.0


def test_iou_on_the_page():
    # 100 x 200 against the same shifted by 50 to the right: I = 50 * 200, A1 = A2 = 20000
    assert bbox("[60, 20, 160, 220]") == pytest.approx(10000 / (20000 + 20000 - 10000))
    # twice as wide: I = 20000, A1 = 40000, A2 = 20000
    assert bbox("[10, 20, 210, 220]") == pytest.approx(0.5)
    assert bbox("[110, 20, 210, 220]") == 0.0  # they touch


@pytest.mark.parametrize("count", [2, 3, 10])
def test_several_boxes_share_the_credit(count):
    assert bbox("[" + ", ".join([GOLD] * count) + "]") == pytest.approx(1 / count)
    spam = [GOLD] + [f"[{i}, 0, {i + 50}, 50]" for i in range(count - 1)]
    assert bbox("[" + ", ".join(spam) + "]") == pytest.approx(1 / count)


def test_a_malformed_second_box_costs_too():
    assert bbox("[10, 20, 110, 220], [1, 2, 3]") == pytest.approx(0.5)


def test_eps_cuts_and_rises():
    half = "[10, 20, 210, 220]"
    assert bbox(half, eps=0.5) == pytest.approx(0.5)
    assert bbox(half, eps=0.51) == 0.0
    near = "[10, 20, 110, 210]"  # IoU 0.95
    assert bbox(near, eps_schedule=True, progress=0.0) == pytest.approx(0.95)
    assert bbox(near, eps_schedule=True, progress=0.2) == pytest.approx(0.95)
    assert bbox(near, eps_schedule=True, progress=0.25) == 0.0
    assert bbox(near, eps_schedule=True) == pytest.approx(0.95)  # no progress: the fixed eps, here 0
    assert bbox(near, eps_schedule=[[0.5, 0.9], [1.0, 0.96]], progress=0.6) == 0.0


@pytest.mark.parametrize(
    ("progress", "eps"), [(0.0, 0.85), (0.0999, 0.85), (0.1, 0.95), (0.2499, 0.95), (0.25, 0.99), (1.0, 0.99)]
)
def test_schedule_of_the_recipe(progress, eps):
    assert eps_at(progress, {"eps": 0.0, "eps_schedule": True}) == eps
    assert eps_at(progress, {"eps": 0.0, "eps_schedule": EPS_SCHEDULE}) == eps


def test_formats_and_coordinates():
    assert bbox("[10, 20, 100, 200]", box_format="xywh") == 1.0
    assert bbox("[60, 120, 100, 200]", box_format="cxcywh") == 1.0
    assert bbox("[20, 10, 220, 110]", box_format="yxyx") == 1.0
    assert bbox("[10, 20, 0, 200]", box_format="xywh") == 0.0
    frame = {"reference_coordinates": "absolute", "image_size": [200, 400]}
    assert bbox("[0.05, 0.05, 0.55, 0.55]", coordinates="normalized", **frame) == pytest.approx(1.0)
    assert bbox("[50, 50, 550, 550]", coordinates="permille", **frame) == pytest.approx(1.0)
    assert bbox("[10, 20, 110, 220]", coordinates="permille", **frame) < 0.1
    assert bbox("[0.05, 0.05, 0.55, 0.55]", coordinates="absolute") == 0.0  # absolute by default


@pytest.mark.parametrize("answer_type", ["bbox", "detection"])
def test_a_reference_within_0_and_1_is_normalized(answer_type):
    """Half of [0, 0, 0.5, 1] is predicted; the same numbers in pixels, or over 1, are no such box."""
    reference = "[0, 0, 0.5, 1]"
    for written, accuracy in (("[0, 0, 0.5, 1]", 1.0), ("[0, 0, 0.5, 0.8]", 0.8), ("[0, 0, 100, 200]", 0.0)):
        output = score_local(
            completion=f"<answer>{written}</answer>", answer=reference, answer_type=answer_type
        )
        assert output.parts["accuracy"] == pytest.approx(accuracy, abs=1e-4)
    spec = {"coordinates": "permille", "reference_coordinates": "normalized"}
    written = "<answer>[0, 0, 500, 1000]</answer>"
    output = score_local(completion=written, answer=reference, answer_type=answer_type, spec=spec)
    assert output.parts["accuracy"] == 1.0


def test_how_coordinates_are_meant():
    inside, outside = Box(0.0, 0.1, 1.0, 0.9), Box(0.0, 0.1, 1.01, 0.9)
    silent = {"coordinates": None, "reference_coordinates": None}
    assert meant(silent, [inside]) == "normalized"
    assert meant(silent, [inside, outside]) == "absolute"
    assert meant(silent | {"coordinates": "permille"}, [inside]) == "permille"
    assert meant(silent | {"reference_coordinates": "normalized"}, [inside]) == "absolute"
    whole = score_local(
        completion="<answer>[0, 0, 1, 0.5]</answer>", answer="[0.1, 0.1, 0.2, 0.2]", answer_type="bbox"
    )
    assert whole.parts["image_share"] == 0.5, "the size of the image is known in these coordinates"


@pytest.mark.parametrize(
    "spec",
    [
        {"eps": 2},
        {"eps": "0.5"},
        {"eps_schedule": [[0.5, 2.0]]},
        {"eps_schedule": "yes"},
        {"box_format": "xyz"},
        {"coordinates": "pixels"},
        {"coordinates": "normalized", "reference_coordinates": "absolute"},
        {"image_size": [0, 1]},
        {"epsilon": 0.5},
    ],
)
def test_bad_settings_name_the_key(spec):
    with pytest.raises(ValueError, match=r"spec\."):
        bbox(GOLD, **spec)


@pytest.mark.parametrize("reference", ["x", "[1,2,3]", "[5,5,1,1]", "[1,2,3,4],[5,6,7,8]", "[nan,1,2,3]"])
def test_unreadable_reference_is_our_error(reference):
    with pytest.raises(ValueError, match="answer"):
        bbox(GOLD, reference)


def test_best_of_several_references():
    assert bbox(GOLD, ["[500, 500, 600, 600]", GOLD]) == 1.0


TWO = "[[0, 0, 10, 10], [20, 20, 30, 30]]"


@pytest.mark.parametrize(
    ("answer", "accuracy"),
    [
        (TWO, 1.0),
        ("[[20, 20, 30, 30], [0, 0, 10, 10]]", 1.0),
        ('[{"bbox_2d": [20, 20, 30, 30]}, {"bbox_2d": [0, 0, 10, 10]}]', 1.0),
        ("[0, 0, 10, 10]", 2 * 1 / 3),  # one of two: F1 = 2 * 1 / (1 + 2)
        ("[[0, 0, 10, 10], [0, 0, 10, 10]]", 0.5),  # a duplicate matches nothing: 2 * 1 / 4
        (
            "[[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]]",
            2 * 2 / 5 * 2 / 3,
        ),  # one too many: 2/3 penalty
        ("[[0, 0, 10, 8], [20, 20, 30, 30]]", 2 * 1.8 / 4),
        ("[[0, 0, 10, 4], [20, 20, 30, 30]]", 2 * 1 / 4),  # IoU 0.4 is below the threshold
        ("[50, 50, 60, 60]", 0.0),
        ("[]", 0.0),
        ("nothing", 0.0),
        ("[30, 30, 20, 20]", 0.0),
    ],
)
def test_detection_arithmetic(answer, accuracy):
    assert detect(answer, TWO) == pytest.approx(accuracy)


def test_spamming_boxes_loses():
    spam = [f"[{x}, {y}, {x + 10}, {y + 10}]" for x in range(0, 100, 10) for y in range(0, 100, 10)]
    assert detect("[" + ",".join(spam) + "]", TWO) < 0.01
    assert detect("[" + ",".join(spam * 30) + "]", TWO) == 0.0


def test_matching_is_optimal_not_greedy():
    # greedy takes 0.9 and is left with 0.1; the best pairing is 0.8 + 0.8
    assert sorted(matched_overlaps([[0.9, 0.8], [0.8, 0.1]])) == [0.8, 0.8]


def test_labels_count_where_the_reference_has_them():
    gold = '[{"bbox_2d": [0,0,10,10], "label": "cat"}, {"bbox_2d": [20,20,30,30], "label": "dog"}]'
    swapped = '[{"bbox_2d": [0,0,10,10], "label": "dog"}, {"bbox_2d": [20,20,30,30], "label": "cat"}]'
    assert detect(gold, gold) == 1.0
    assert detect(swapped, gold) == 0.0
    assert detect(TWO, gold) == 0.0
    assert detect(gold, TWO) == 1.0


def test_average_precision_by_hand():
    # ranks: hit, miss, hit of 2 wanted: AP = 0.5 * 1 + 0.5 * 2/3
    assert average_precision([[1, 0], [0, 0], [0, 1]], 2, 0.5) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precision([], 2, 0.5) == 0.0
    assert detect(TWO, TWO, metric="map") == 1.0
    assert detect("[0, 0, 10, 10]", TWO, metric="map") == pytest.approx(0.5)


def test_iou_survives_extremes():
    tiny = Box(0.0, 0.0, 1e-200, 1e-200)
    huge = Box(-1e7, -1e7, 1e7, 1e7)
    for first in (tiny, huge):
        for second in (tiny, huge):
            assert math.isfinite(iou(first, second))


@pytest.mark.parametrize(
    "unit",
    [
        "[",
        "]",
        "[1,2,3,4]",
        "(1,2)",
        "{",
        '{"label":"a"',
        "1,",
        "[1,2,3,",
        "nan,",
        "-",
        '"',
        '{"bbox_2d":[1,2,3,4],"label":"x"},',
    ],
)
def test_hostile_repetition_is_fast(unit):
    started = time.process_time()
    read_boxes((unit * 50_000)[:50_000])
    assert time.process_time() - started < 1.0
