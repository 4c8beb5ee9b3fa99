"""Pages of runs of paper: what they show is what the shards hold, hostile text stays text, broken runs are shown."""

import base64
import json
import os
import re
import shutil
import zlib
from html.parser import HTMLParser

import pytest

from tests.utils.viewer.runs import HOSTILE, make_run
from utils.viewer import cli
from utils.viewer.boxes import boxes_of
from utils.viewer.curves import thinned
from utils.viewer.groups import earlier_turns, groups_of, shortened
from utils.viewer.pages import MAX_PAGE_BYTES, number, script_json
from utils.viewer.reading import RunFolder
from utils.viewer.rendering import html_source, svg_source
from utils.viewer.site import MAX_STEP_PAGES, Site

RUNS_SCRIPTS = {"assets/viewer.js", "assets/bokeh.min.js", "assets/bokeh-api.min.js"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    rows = {
        name: make_run(folder / name, hostile=name == "hostile", seed=i)
        for i, name in enumerate(("a", "b", "hostile"))
    }
    assert cli.main([str(folder / "a"), str(folder / "b"), "--output", str(folder / "both")]) == 0
    assert cli.main([str(folder / "hostile")]) == 0
    return folder, rows


class Elements(HTMLParser):
    """Start tags with attributes, and the text of a page."""

    def __init__(self, markup):
        super().__init__()
        self.tags, self.text, self.packed = [], "", []
        self.inside = None
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("class") if tag == "script" else None

    def handle_data(self, data):
        if self.inside == "packed":
            self.packed.append(data.strip())
        else:
            self.text += data

    def handle_endtag(self, tag):
        self.inside = None


def unpacked(page):
    """A page with what it holds packed."""
    outer = Elements(page.read_text())
    return [outer, *(Elements(zlib.decompress(base64.b64decode(text)).decode()) for text in outer.packed)]


def test_a_page_shows_what_the_shard_holds(site):
    folder, rows = site
    outer, *groups = unpacked(folder / "both" / "digits-seed0" / "step-000003.html")
    wanted = [row for row in rows["a"] if row["step"] == 3]
    assert len(groups) == len({row["group"] for row in wanted}) == 4
    shown = [attrs for tag, attrs in outer.tags if tag == "tbody"]
    for place, attrs in enumerate(shown):
        members = [row for row in wanted if row["group"] == place]
        rewards = [row["reward"] for row in members]
        mean = sum(rewards) / len(rewards)
        assert float(attrs["data-reward"]) == pytest.approx(mean)
        assert float(attrs["data-variance"]) == pytest.approx(
            sum((r - mean) ** 2 for r in rewards) / len(rewards)
        )
        assert float(attrs["data-length"]) == 5
        assert attrs["data-behind"] == "1"
        for row in members:
            assert row["completion"].split("</think>")[1] in groups[place].text
            assert row["trace"][0] in groups[place].text
        tokens = [
            json.loads(attrs["data-tokens"]) for _, attrs in groups[place].tags if "data-tokens" in attrs
        ]
        assert [t["text"] for t in tokens] == [row["tokens"] for row in members]
        assert tokens[0]["behavior"] == [round(value, 4) for value in members[0]["behavior_logprobs"]]
        assert tokens[0]["version"] == [1, 1, 2, 2, 2]
        images = [
            attrs["src"]
            for tag, attrs in groups[place].tags
            if tag == "img" and not attrs["src"].startswith("data:")
        ]
        assert all((folder / "both" / "digits-seed0" / src).is_file() for src in images)
        shown = [os.path.relpath(src, "rollouts") for src in images]
        assert len([name for row in members for name in row["reply_images"]]) == sum(
            attrs.get("alt", "").endswith("of the tools' replies") for _, attrs in groups[place].tags
        ), shown


def test_boxes_are_drawn_as_shares_of_the_image(site):
    row = next(row for row in site[1]["a"] if row["answer_type"] == "bbox")
    (reference,), (predicted,) = boxes_of(row)
    assert reference[:4] == pytest.approx((10 / 112, 10 / 84, 50 / 112, 40 / 84))
    assert predicted.y == pytest.approx(12 / 84)
    permille = {
        **row,
        "extracted": "[0, 0, 500, 1000]",
        "spec": '{"coordinates": "permille"}',
        "answer": ["[0,0,9,9]"],
    }
    assert boxes_of(permille)[1][0][:4] == (0, 0, 0.5, 1)
    assert boxes_of({**row, "image_sizes": []}) == ([], []), "pixels of an unknown image"
    assert boxes_of({**row, "answer_type": "number"}) == ([], [])


def test_drawings_stand_beside_the_reference(site):
    folder, _ = site
    _, *groups = unpacked(folder / "both" / "digits-seed0" / "step-000003.html")
    drawings = [
        attrs["src"]
        for tag, attrs in groups[2].tags
        if tag == "img" and attrs["src"].startswith("data:image/svg")
    ]
    frames = [attrs for tag, attrs in groups[3].tags if tag == "iframe"]
    assert len(drawings) == len(frames) == 8, "predicted and reference of four rollouts"
    assert {attrs["sandbox"] for attrs in frames} == {""}
    assert b"<circle" in base64.b64decode(drawings[0].split(",")[1])


def test_hostile_text_stays_text(site):
    folder, _ = site
    parts = [part for page in (folder / "hostile" / "viewer").rglob("*.html") for part in unpacked(page)]
    assert parts
    for part in parts:
        for tag, attrs in part.tags:
            assert not any(name.startswith("on") for name in attrs), attrs
            assert tag not in ("use", "object", "embed", "base"), tag
            if tag == "script":
                assert (
                    attrs.get("type") in ("application/json", "text/plain")
                    or attrs["src"].removeprefix("../") in RUNS_SCRIPTS
                )
            for name in ("src", "href", "action"):
                assert not re.match(r"\s*(https?:|//|javascript:)", attrs.get(name) or ""), attrs
    text = "".join(part.text for part in parts)
    assert "{{ 7 * 7 }}" in text, "no template of its own"
    assert HOSTILE[0] in text
    assert HOSTILE[1] in text


def test_same_sample_across_steps_and_two_runs_side_by_side(site):
    folder, rows = site
    _, *histories = unpacked(folder / "both" / "digits-seed0" / "samples.html")
    assert "step 1: reward" in histories[0].text
    assert "step 2: reward" in histories[0].text
    outer, *pairs = unpacked(folder / "both" / "compare.html")
    assert len(pairs) == len(
        {row["sample_id"] for row in rows["a"]} & {row["sample_id"] for row in rows["b"]}
    )
    assert "digits/seed0, step" in pairs[0].text
    assert "digits/seed1, step" in pairs[0].text
    assert "seed" in outer.text.split("Settings that differ")[1]


def test_nothing_in_a_drawing_runs_or_asks():
    page = (
        "<p onclick=x style='background:url(http://a/b);color:red'>hi<script>1</script> there"
        "<img src=http://a onerror=1>"
        "<style>@import url(http://x); p{background:u\\72l(//y)}</style><a href=javascript:1>l</a>"
        "<meta http-equiv=refresh content='0;url=http://a'>"
        "<link rel=prefetch href=http://a><iframe src=http://a></iframe><form action=http://a>"
    )
    source, _ = html_source(page)
    assert "hi there" in source
    assert "color:red" in source
    assert not re.search(
        r"http:|onclick|onerror|<script|javascript|url\(|@import|<meta http-equiv=.refresh", source
    )
    assert html_source("<div>" * 50_000)[0] is None
    assert (
        svg_source("<svg xmlns='http://www.w3.org/2000/svg'><image href='http://a/b.png'/></svg>")[0] is None
    )
    assert svg_source("no drawing") == (None, "no svg element")


def test_a_run_that_was_cut_off_is_shown(tmp_path):
    make_run(tmp_path / "run", finished=False)
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-40] + '\n{"step": "x"}\nnull\n')
    shard = tmp_path / "run" / "rollouts" / "step-000002-rank0.parquet"
    shard.write_bytes(shard.read_bytes()[:200])
    (tmp_path / "run" / "rollouts" / ".step-000009-rank0.parquet.1.tmp").write_bytes(b"x")
    assert cli.main([str(tmp_path / "run")]) == 0
    index = (tmp_path / "run" / "viewer" / "index.html").read_text()
    assert "cut off: the last record is step 5 of 6" in index
    assert "3 lines of its records could not be read" in index
    assert "cannot be read" in (tmp_path / "run" / "viewer" / "digits-seed0" / "step-000002.html").read_text()


@pytest.mark.parametrize("kept", [("run.json",), ("metrics.jsonl",), ("rollouts",)])
def test_any_part_of_a_run_alone_is_shown(tmp_path, kept):
    make_run(tmp_path / "whole", num_steps=2)
    for name in kept:
        source = tmp_path / "whole" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(
            source, (tmp_path / "run").joinpath(name) if source.is_dir() else _made(tmp_path / "run")
        )
    assert cli.main([str(tmp_path / "run")]) == 0


def _made(folder):
    folder.mkdir()
    return folder


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert cli.main([str(tmp_path)]) == 1
    assert "holds no records of a run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([str(tmp_path), "--steps", "3-x"])


def test_a_long_run_gets_some_pages_of_steps_and_those_asked_for(tmp_path):
    make_run(tmp_path / "run", num_steps=1)
    site = Site(tmp_path / "out", wanted_steps=(7,))
    run = RunFolder(tmp_path / "run")
    run.shards = {step: [] for step in range(1, 2 * MAX_STEP_PAGES + 1)}
    steps = site._steps_with_pages(run, [])
    assert len(steps) <= MAX_STEP_PAGES
    assert {1, 7, 2 * MAX_STEP_PAGES} <= set(steps)


def test_following_writes_only_what_is_new(tmp_path):
    make_run(tmp_path / "run", num_steps=3, finished=False)
    site = Site(tmp_path / "out")
    site.write([tmp_path / "run"], follow=True)
    pages = {
        path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "digits-seed0").glob("step-*")
    }
    assert 'http-equiv="refresh"' in (tmp_path / "out" / "index.html").read_text()
    make_run(tmp_path / "more", num_steps=4)
    shutil.copy(tmp_path / "more" / "rollouts" / "step-000004-rank0.parquet", tmp_path / "run" / "rollouts")
    site.write([tmp_path / "run"], follow=True)
    later = {
        path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "digits-seed0").glob("step-*")
    }
    assert {name for name, time in later.items() if pages.get(name) != time} == {
        "step-000003.html",
        "step-000004.html",
    }


def test_a_page_stays_below_its_limit(tmp_path):
    make_run(tmp_path / "run", num_steps=1)
    site = Site(tmp_path / "out")

    def long(run, step, page, load=site._load):
        groups, faults = load(run, step, page)
        for group in groups:
            for rollout in group["rollouts"]:
                rollout["after"] = os.urandom(120_000).hex()
        return groups, faults

    site._load = long
    site.write([tmp_path / "run"])
    page = tmp_path / "out" / "digits-seed0" / "step-000001.html"
    assert page.stat().st_size <= MAX_PAGE_BYTES
    assert "Texts are cut to" in page.read_text()


def test_small_things():
    assert thinned((list(range(5000)), [float(i == 777) for i in range(5000)]))[1].count(1.0) == 1, (
        "peaks stay"
    )
    assert len(thinned((list(range(5000)), [0.0] * 5000))[0]) <= 600
    assert shortened("abc", 3) == "abc"
    assert "7 characters left out" in shortened("abcdefghij" * 1, 3)
    assert "<" not in script_json(["</script>"])
    assert [number(v) for v in (None, 3, 0.5, 1e-7)] == ["-", "3", "0.500", "1.0e-07"]


def test_earlier_turns_are_what_stands_before_the_last_one():
    tokens = ["<tool_call>7", "</tool_call>", "reply", "7", "<|im_end|>"]
    assert earlier_turns({"completion": "7", "tokens": tokens}) == "<tool_call>7</tool_call>reply"
    assert earlier_turns({"completion": "7", "tokens": ["7", "<|im_end|>"]}) == ""
    assert earlier_turns({"completion": "", "tokens": tokens}) == ""
    assert earlier_turns({"completion": "7", "tokens": None}) == ""


def test_versions_that_drew_an_answer_are_named_once(tmp_path):
    """A tool's reply stands between turns and was drawn by none."""
    (row, *_) = make_run(tmp_path / "run", num_steps=1, group_size=1)
    row |= dict.fromkeys(("tokens", "token_ids"))
    row["versions"] = [{"version": v, "num_tokens": 1} for v in (3, -1, 3, 4)]
    (group,) = groups_of([row], tmp_path / "run", str)
    assert group["rollouts"][0]["versions"] == [3, 4]
