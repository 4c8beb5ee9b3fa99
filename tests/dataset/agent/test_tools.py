"""The tools in their worker processes, asked for what they do and for what they must not do."""

import asyncio
import base64
import io
import json
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from dataset import corpus
from dataset.agent.pool import ToolFailed, ToolPool
from dataset.agent.registry import TOOLS, check_names, get_tool
from dataset.agent.tools import search, zoom
from dataset.agent.types import ToolError
from dataset.images import to_png_bytes
from reward.sandbox.session import SandboxUnavailable, available_layer
from reward.types import Unavailable

LIMITS = {"factor": 28, "min_pixels": 56 * 56, "max_pixels": 112 * 112}


@pytest.fixture(scope="module")
def pool():
    pool = ToolPool(num_workers=1, with_python=False)
    yield pool
    pool.close()


def gradient(width=800, height=400):
    """Red tells the column, green the row."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))


def context(image=None, size=(80, 40), region=None):
    data = base64.b64encode(to_png_bytes(image or gradient())).decode()
    return {
        "limits": LIMITS,
        "corpus": None,
        "image": {"record": {"base64": data}, "region": region, "size": size},
    }


def crop_of(reply):
    (image,) = reply["images"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image["png"]))))


def test_a_box_of_what_the_model_sees_is_cut_out_of_the_original(pool):
    arguments = {"bbox_2d": [20, 10, 60, 30]}
    reply = asyncio.run(pool.call("zoom", arguments, context(), 10.0))
    assert reply["images"][0]["region"] == [200, 100, 600, 300]
    crop = crop_of(reply)
    assert crop.shape[1] * crop.shape[0] <= LIMITS["max_pixels"]
    assert crop.shape[0] % 28 == crop.shape[1] % 28 == 0
    assert crop[0, 0].tolist() == pytest.approx([200 / 800 * 255, 100 / 400 * 255, 0], abs=4)
    assert crop[-1, -1].tolist() == pytest.approx([600 / 800 * 255, 300 / 400 * 255, 0], abs=4)
    assert not reply["without_effect"]


def test_a_crop_is_zoomed_into_again_in_the_original():
    reply = zoom.run({"bbox_2d": [50, 0, 100, 50]}, context(size=(100, 50), region=(200, 100, 400, 200)))
    assert reply["images"][0]["region"] == (300, 100, 400, 200)


@pytest.mark.parametrize(
    ("box", "region"),
    [
        ([-50, -50, 40, 20], (0, 0, 400, 200)),
        ([40, 20, 1e6, 1e6], (400, 200, 800, 400)),
        ([0, 0, 80, 40], None),
    ],
)
def test_what_lies_outside_is_clipped(box, region):
    reply = zoom.run({"bbox_2d": box}, context())
    assert reply["images"][0]["region"] == (region or (0, 0, 800, 400))
    assert reply["without_effect"] == (region is None)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"bbox_2d": [40, 10, 20, 30]},
        {"bbox_2d": [40, 10, 40, 30]},
        {"bbox_2d": [100, 50, 200, 90]},
        {"bbox_2d": [0, 0, 0.1, 0.1]},
        {"bbox_2d": [0, 0, 1e300, 1]},
        {"bbox_2d": [float("nan")] * 4},
        {"bbox_2d": ["0", 0, 1, 1]},
        {"bbox_2d": [True, 0, 1, 1]},
        {"bbox_2d": [0, 0, 1]},
        {"bbox_2d": "../../etc/passwd"},
        {"bbox_2d": {"x": 1}},
        {"point": [500, 1]},
    ],
)
def test_what_is_no_box_is_refused_with_a_message(arguments):
    with pytest.raises(ToolError, match="zoom"):
        zoom.run(arguments, context())


def test_the_model_names_no_file(pool):
    arguments = {"bbox_2d": [0, 0, 9, 9], "path": "/etc/passwd", "record": {"path": "/etc/passwd"}}
    assert len(asyncio.run(pool.call("zoom", arguments, context(), 10.0))["images"]) == 1


def test_a_sliver_is_widened():
    reply = zoom.run({"bbox_2d": [0, 20, 80, 20.5]}, context())
    left, top, right, bottom = reply["images"][0]["region"]
    assert (right - left) / (bottom - top) <= zoom.MAX_RATIO
    assert top <= 200 < bottom


@pytest.fixture
def texts(tmp_path):
    lines = [
        {"title": "Tides", "text": "The moon pulls at the sea."},
        {"title": "Bread", "text": "Flour, water, salt. " * 60 + "The moon does not matter."},
        {"text": "NEAR OR NOT"},
    ]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert corpus.main([str(tmp_path / "d.jsonl"), str(tmp_path / "c.sqlite")]) == 0
    return str(tmp_path / "c.sqlite")


def test_search_finds_passages(pool, texts):
    reply = asyncio.run(pool.call("search", {"query": "moon and sea?"}, {"corpus": texts}, 10.0))
    first, second = reply["text"].split("\n[2] ")
    assert first.startswith("[1] Tides\nThe moon pulls")
    assert "The moon does not matter." in second
    assert len(second) < 600


@pytest.mark.parametrize(
    "query", ['" OR 1 --', "title:*", "NEAR(a b)", "'; DROP TABLE documents;", "(((", "x" * 9999]
)
def test_a_query_is_words_and_never_a_language(texts, query):
    try:
        reply = search.run({"query": query, "num_results": 10}, {"corpus": texts})
    except ToolError:
        return
    assert "text" in reply
    assert search.run({"query": "moon"}, {"corpus": texts})["text"].count("moon") == 2


def test_without_a_corpus_the_run_is_told_and_not_the_model(pool):
    with pytest.raises(Unavailable, match=r"agent\.corpus"):
        asyncio.run(pool.call("search", {"query": "moon"}, {"corpus": None}, 10.0))


def test_a_corpus_is_checked(tmp_path, capsys):
    (tmp_path / "d.jsonl").write_text('{"title": "x"}\n')
    assert corpus.main([str(tmp_path / "d.jsonl"), str(tmp_path / "c.sqlite")]) == 2
    assert "document 1: wanted a text" in capsys.readouterr().err
    assert not (tmp_path / "c.sqlite").exists()


def test_names(pool):
    assert check_names(["zoom", "zoom", "python"]) == ("zoom", "python")
    for wrong in ("zoom", ["drill"], {"zoom": 1}, [3], None):
        with pytest.raises(ValueError, match="tools: got"):
            check_names(wrong)
    for name in TOOLS:
        assert get_tool(name).description.startswith(f"{name}: {{")


def run_python(pool, code, seconds=10.0):
    return asyncio.run(pool.call("python", {"code": code}, {"limits": LIMITS}, seconds))


@pytest.fixture(scope="module")
def with_python():
    try:
        available_layer()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    pool = ToolPool(num_workers=1)
    yield pool
    pool.close()


def test_python_prints_and_draws(with_python):
    assert run_python(with_python, "print(6 * 7)")["text"] == "42"
    reply = run_python(with_python, "figure = [[0, 255] * 40] * 60\nprint('drawn')")
    assert crop_of(reply).shape == (56, 84, 3)
    svg = 'figure = \'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>\''
    assert crop_of(run_python(with_python, svg)).shape == (112, 112, 3)
    assert run_python(with_python, "1 / 0")["text"] == "line 1: ZeroDivisionError: division by zero"
    assert "SyntaxError" in run_python(with_python, "def")["text"]
    assert run_python(with_python, "pass")["without_effect"]
    assert "no SVG" in run_python(with_python, "figure = 'moon'")["refused"]


def test_hostile_programs_are_contained(with_python, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("word")
    assert "word" not in run_python(with_python, f"print(open({str(secret)!r}).read())")["text"]
    assert "did not end within" in run_python(with_python, "while True: pass", 2.0)["refused"]
    assert "early" in run_python(with_python, "import os; os._exit(0)")["text"]
    assert "too much" in run_python(with_python, "while True: print('x' * 10000)")["refused"]
    assert run_python(with_python, "print(1)")["text"] == "1"


def test_a_call_is_killed_at_its_deadline(tmp_path, monkeypatch):
    (tmp_path / "agent_sleeper.py").write_text("def sleeper(task):\n    while True:\n        pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with closing(ToolPool(1, runner="agent_sleeper:sleeper")) as pool:
        with pytest.raises(ToolFailed) as failed:
            asyncio.run(pool.call("zoom", {}, {}, 0.3))
        assert failed.value.fault == "tool_timeout"
