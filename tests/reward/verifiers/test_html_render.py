"""html-code with `render: true`: pages drawn in a real Chromium, which reaches nothing and ends when told to."""

import http.server
import shutil
import threading
import time

import numpy as np
import psutil
import pytest

from reward.pool import RewardPool
from reward.reading import browser
from reward.reading.page_match import REACH, text_position
from reward.score import score_local

needs_browser = pytest.mark.skipif(
    not shutil.which("chromium") or not shutil.which("bwrap"), reason="bash install.sh --render"
)
PAGE = (
    "<!DOCTYPE html><body style='background:#def'><h1 style='color:#036'>Opening hours</h1>"
    "<p>Monday to Friday, nine to five</p><div style='width:300px;height:200px;background:green'></div>"
)
OTHER = "<!DOCTYPE html><ul><li>apples<li>pears<li>plums</ul><table border=1><tr><td>1<td>2</table>"


@pytest.fixture(scope="module", autouse=True)
def closed_afterwards():
    yield
    browser.close()


def score(page, reference=PAGE, **spec):
    return score_local(f"<answer>{page}</answer>", reference, "html-code", spec={"render": True, **spec})


def places(**words):
    return {word: np.array(found, dtype=float) for word, found in words.items()}


def test_words_are_credited_by_their_distance():
    reference = places(a=[[0, 0]], b=[[100, 0], [200, 0]])
    assert text_position(reference, reference) == 1.0
    assert text_position(places(a=[[0, REACH / 2]]), reference) == pytest.approx(2 * 0.5 / 4)
    assert text_position(places(a=[[0, REACH]], c=[[0, 0]]), reference) == 0.0
    # optimal, not in order of appearance: the one b belongs to the second place
    assert text_position(places(b=[[200, 0]]), reference) == pytest.approx(2 / 4)
    assert text_position(places(), reference) == 0.0
    assert text_position({}, {}) is None


@needs_browser
def test_what_a_page_looks_like_pays():
    assert score(PAGE).total == 1.0
    spelled_differently = PAGE.replace("<p>", "<div style='margin:16px 0'>").replace("</p>", "</div>")
    assert score(spelled_differently).total == pytest.approx(1.0)
    wrong_words = PAGE.replace("Monday to Friday, nine", "Closed for repairs until nine")
    assert 0.4 < score(wrong_words).total < 0.9
    other = score(OTHER)
    assert other.total < 0.1
    assert {"set_similarity", "ssim_above_blank", "blank_ssim", "text_position"} <= other.parts.keys()


@needs_browser
def test_nothing_pays_for_nothing():
    for page in ("<p></p>", "<p style='visibility:hidden'>Opening hours Monday to Friday, nine to five</p>"):
        assert score(page).total < 0.05, page
    assert score("Opening hours").status == "unparseable"
    with pytest.raises(ValueError, match="draws nothing"):
        score(PAGE, "<p></p>")


@needs_browser
def test_scripts_do_not_run_and_pages_do_not_linger():
    script = "<script>document.body.innerHTML = ''; while (true) {}</script>"
    assert score(PAGE + script).total == pytest.approx(1.0)
    refreshed = OTHER.replace("<ul>", "<meta http-equiv=refresh content='0;url=data:text/html,x'><ul>")
    assert score(refreshed, OTHER).total == 1.0
    assert score(OTHER, OTHER).total == 1.0


@needs_browser
def test_nothing_outside_the_page_is_reached():
    hits = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            self.send_error(404)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        page = (
            f"<link rel=stylesheet href={url}/css><link rel=preconnect href={url}><link rel=prefetch href={url}/p>"
            f"<img src={url}/img><iframe src={url}/frame></iframe><iframe src='file:///etc/passwd'></iframe>"
            f"<object data='file:///etc/passwd'></object><meta http-equiv=refresh content='0;url={url}/go'>{PAGE}"
        )
        rendering = browser.draw(page)
        time.sleep(0.3)
        server.shutdown()
    assert hits == []
    assert "root" not in " ".join(text for text, *_ in rendering.runs)


@needs_browser
def test_a_page_that_takes_too_long_is_a_timeout_and_the_next_is_drawn(monkeypatch):
    monkeypatch.setattr(browser, "PAGE_SECONDS", 0.001)
    with pytest.raises(browser.BrowserTimeout):
        browser.draw(PAGE)
    monkeypatch.undo()
    assert score(PAGE).total == 1.0


@needs_browser
def test_a_browser_ends_with_its_worker():
    with RewardPool(1) as pool:
        output = pool.score_blocking(f"<answer>{PAGE}</answer>", PAGE, "html-code", spec={"render": True})
        assert output.total == 1.0
        processes = [p for pid in pool.pids() for p in psutil.Process(pid).children(recursive=True)]
        assert any("chrom" in p.name() for p in processes)
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []


def test_without_a_browser_the_error_says_what_to_do(monkeypatch):
    browser.close()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(browser.BrowserUnavailable, match=r"install\.sh --render"):
        score(PAGE, PAGE + "<p>new</p>")
