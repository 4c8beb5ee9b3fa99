import math

from hypothesis import given, settings
from hypothesis import strategies as st

from reward.extract import extract
from reward.reading.boxes import Box, area, iou
from reward.score import score_local
from reward.types import STATUSES
from reward.verifiers.number import parse_quantity
from reward.verifiers.ocrtext import similarity

settings.register_profile("reward", deadline=None)  # the first detection imports SciPy
settings.load_profile("reward")

CHEAP = {
    "multiple-choice": "B",
    "number": "12",
    "bbox": "[10, 20, 110, 220]",
    "detection": "[[0, 0, 10, 10], [20, 20, 30, 30]]",
    "ocrtext": "Hello World",
    "boolean": "yes",
    "critic": "Paris",
    "any": "Paris",
}
PIECES = st.sampled_from(
    [
        "<answer>",
        "</answer>",
        "<think>",
        "</think>",
        "\\boxed{",
        "{",
        "}",
        "\\text{",
        "$",
        "**",
        "```",
        "\n",
        "B",
        "yes",
        "no",
        "12",
        "-5",
        "1e999",
        "nan",
        "[10,",
        "20,",
        "110,",
        "220]",
        "[",
        "]",
        "(",
        ")",
        ",",
        ".",
        "/",
        "%",
        "x",
        "\\frac{",
    ]
)
TEXT = st.one_of(
    st.text(max_size=60),
    st.lists(PIECES, max_size=20).map(" ".join),
    st.lists(PIECES, max_size=20).map("".join),
)
COORDINATE = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))


@st.composite
def boxes(draw):
    x, y = draw(COORDINATE), draw(COORDINATE)
    return Box(x, y, x + draw(st.floats(0.01, 1e5)), y + draw(st.floats(0.01, 1e5)))


@settings(max_examples=300, deadline=None)
@given(TEXT, st.sampled_from(sorted(CHEAP)), st.sampled_from([None, "answer", "think"]), st.booleans())
def test_whatever_is_written_the_score_is_finite_and_in_range(text, answer_type, prompt_type, wrapped):
    completion = f"<answer>{text}</answer>" if wrapped else text
    output = score_local(completion, CHEAP[answer_type], answer_type, prompt_type=prompt_type)
    assert 0.0 <= output.total <= 1.0
    assert 0.0 <= output.parts["accuracy"] <= 1.0
    assert all(math.isfinite(value) for value in output.parts.values())
    assert output.status in STATUSES
    if output.status != "ok":
        assert output.total == 0.0


@given(boxes(), boxes())
def test_iou_is_symmetric_and_bounded(first, second):
    assert iou(first, second) == iou(second, first)
    assert 0.0 <= iou(first, second) <= 1.0
    assert math.isclose(iou(first, first), 1.0)
    assert area(first) > 0


@given(boxes(), boxes(), st.floats(-1000, 1000))
def test_iou_does_not_depend_on_where_the_origin_is(first, second, shift):
    moved = [Box(b.x1 + shift, b.y1 + shift, b.x2 + shift, b.y2 + shift) for b in (first, second)]
    assert math.isclose(iou(*moved), iou(first, second), rel_tol=1e-3, abs_tol=1e-3)


@given(st.text(max_size=40), st.text(max_size=40))
def test_text_similarity_is_symmetric_and_bounded(left, right):
    assert similarity(left, right) == similarity(right, left)
    assert 0.0 <= similarity(left, right) <= 1.0
    assert (similarity(left, right) == 1.0) == (left == right)


@given(st.integers(-(10**12), 10**12))
def test_a_number_is_read_however_it_is_written(value):
    for text in (
        str(value),
        f"{value:,}",
        f"{value}.0",
        f"{value}.",
        f"${value}$",
        f"\\text{{{value}}}",
        f"{value} cm",
        f" {value}\n",
    ):
        quantity = parse_quantity(extract(f"<answer>{text}</answer>").text)
        assert quantity is not None
        assert quantity.value == value


@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=500))
def test_fractions_in_three_spellings(value):
    top, bottom = value.numerator, value.denominator
    for text in (f"{top}/{bottom}", f"\\frac{{{top}}}{{{bottom}}}", f"({top})/({bottom})"):
        assert parse_quantity(text).value == value


@given(st.sampled_from("ABCDEFGH"), st.sampled_from("ABCDEFGH"))
def test_a_letter_in_any_wrapping_counts_the_same(letter, reference):
    spellings = [
        "{0}",
        "({0})",
        "{0}.",
        "{0})",
        "**{0}**",
        "\\text{{{0}}}",
        "The answer is {0}.",
        "${0}$",
        "\\boxed{{{0}}}",
        "{0}) some text",
    ]
    for spelling in spellings:
        output = score_local(f"<answer>{spelling.format(letter)}</answer>", reference, "multiple-choice")
        assert output.total == float(letter == reference)


@given(
    TEXT.filter(lambda text: "think>" not in text and "answer>" not in text), st.sampled_from(sorted(CHEAP))
)
def test_text_around_the_answer_does_not_change_the_accuracy(text, answer_type):
    bare = score_local(f"<answer>{CHEAP[answer_type]}</answer>", CHEAP[answer_type], answer_type)
    padded = f"<think>{text}<answer>wrong</answer></think>{text}<answer>{CHEAP[answer_type]}</answer>{text}"
    assert score_local(padded, CHEAP[answer_type], answer_type).parts == bare.parts
    assert bare.total == 1.0
