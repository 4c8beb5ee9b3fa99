"""The one parser of tool calls, rule by rule."""

import json

import pytest

from dataset.agent.calls import MAX_CALL_CHARS, read_turn
from dataset.agent.types import FAULTS

TOOLS = ("zoom", "python", "search")
ZOOM = '{"name": "zoom", "arguments": {"bbox_2d": [1, 2, 3, 4]}}'


def tagged(body):
    return f"<tool_call>{body}</tool_call>"


@pytest.mark.parametrize(
    "text",
    [
        tagged(ZOOM),
        f"Let me look. {tagged(ZOOM)} And then",
        f"<think>a {tagged('{}')} b</think>\n{tagged(ZOOM)}",
        tagged(f"\n{ZOOM}\n"),
        tagged(ZOOM.replace("arguments", "parameters")),
        tagged(
            json.dumps({"name": "image_zoom_in_tool", "arguments": json.dumps({"bbox_2d": [1, 2, 3, 4]})})
        ),
        tagged("[1, 2, 3, 4]"),
        tagged("(1, 2, 3, 4)"),
    ],
)
def test_calls(text):
    turn = read_turn(text, TOOLS)
    assert turn.fault is None
    assert turn.call.name == "zoom"
    assert list(turn.call.arguments["bbox_2d"]) == [1, 2, 3, 4]


def test_a_point_is_a_zoom_too():
    assert read_turn(tagged("(10, 20.5)"), TOOLS).call == ("zoom", {"point": [10.0, 20.5]})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (tagged("{"), "malformed_call"),
        (tagged(""), "malformed_call"),
        (tagged('["zoom"]'), "malformed_call"),
        (tagged('{"name": 3}'), "malformed_call"),
        (tagged('{"name": "zoom", "arguments": [1, 2]}'), "malformed_call"),
        (tagged('{"name": "zoom", "arguments": {"bbox_2d": [NaN, 0, 1, 1]}}'), "malformed_call"),
        (tagged('{"name": "zoom", "arguments": {"x": Infinity}}'), "malformed_call"),
        ("<tool_call>" + ZOOM, "malformed_call"),
        (tagged("[" * 50_000), "malformed_call"),
        (tagged("[" * (MAX_CALL_CHARS // 2) + "]" * (MAX_CALL_CHARS // 2)), "malformed_call"),
        (tagged('{"name": "python", "arguments": {"code": "' + "x" * 10_000_000 + '"}}'), "malformed_call"),
        (tagged(f"1{'0' * 6000}"), "malformed_call"),
        (tagged(ZOOM) * 2, "several_calls"),
        (tagged(tagged(ZOOM)), "several_calls"),
        (tagged('{"name": "answer", "arguments": {"answer": 1}}'), "unknown_tool"),
        (tagged('{"name": "../../bin/sh"}'), "unknown_tool"),
    ],
)
def test_faults_have_a_kind_and_a_message_for_the_model(text, fault):
    turn = read_turn(text, TOOLS)
    assert turn.call is None
    assert turn.fault == fault
    assert fault in FAULTS
    assert 0 < len(turn.message) < 400


@pytest.mark.parametrize(
    "text",
    ["", "<answer>3</answer>", "It is 3.", "<think>" + tagged(ZOOM), f"<think>{tagged(ZOOM)}</think>3"],
)
def test_everything_else_ends_the_conversation(text):
    assert read_turn(text, TOOLS) == (None, None, "")


def test_an_answer_counts_before_a_call():
    assert read_turn(tagged(ZOOM) + "<answer>3</answer>", TOOLS) == (None, "call_beside_answer", "")
    # one that was only begun is none
    assert read_turn(tagged(ZOOM) + "<answer>3", TOOLS).call is not None


def test_without_tools_nothing_is_a_call():
    assert read_turn(tagged(ZOOM), ()) == (None, None, "")
