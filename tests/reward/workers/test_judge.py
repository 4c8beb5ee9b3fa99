"""A judge over HTTP against a local fake one: slow, failing, talkative, gone; and replayed from the cache."""

import asyncio
import json
import re
import threading
import time
from collections import Counter

import aiohttp
import pytest
from aiohttp import web

import reward
from reward.pool import RewardPool
from reward.reading import judge_text
from reward.settings import group_rewards, make_settings
from reward.types import RewardOutput
from reward.workers import judge
from utils.sample import Sample


class FakeJudge:
    """Answers `SCORE: 0.N` for an answer that ends in digit N; `hang`, `error`, ... do as they say, `together` waits
    until eight are there."""

    def __init__(self):
        self.seen, self.in_flight, self.most_in_flight, self.bodies = Counter(), 0, 0, []
        self.eight = asyncio.Barrier(8)

    def __enter__(self):
        self.loop, started = asyncio.new_event_loop(), threading.Event()

        async def start():
            app = web.Application()
            app.router.add_post("/v1/chat/completions", self.reply)
            self.runner = web.AppRunner(app, shutdown_timeout=0.1)
            await self.runner.setup()
            site = web.TCPSite(self.runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1/chat/completions"
            started.set()

        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(start(), self.loop)
        assert started.wait(10)
        return self

    def __exit__(self, *_):
        async def stop():
            await self.runner.cleanup()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:  # those that hang
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    async def reply(self, request):
        body = await request.json()
        self.bodies.append((body, request.headers.get("Authorization")))
        answer = re.search(r"<judged>\n(.*)\n</judged>", body["messages"][0]["content"], re.DOTALL).group(1)
        self.seen[answer] += 1
        if answer.startswith("hang"):
            await asyncio.sleep(60)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if answer.startswith("together"):
                await self.eight.wait()
                await asyncio.sleep(0.05)  # a ninth would be seen
            if answer.startswith("error") or (answer.startswith("once") and self.seen[answer] == 1):
                return web.Response(status=503, text="overloaded")
            if answer.startswith("refuse"):
                return web.Response(status=401, text="no key")
            said = {"silent": "I like it.", "loud": "SCORE: 7", "twice": "SCORE: 0\nno,\nSCORE: 1"}.get(
                answer, f"Well.\nSCORE: 0.{answer[-1]}"
            )
            return web.json_response({"choices": [{"message": {"content": said}}]})
        finally:
            self.in_flight -= 1


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(judge, "_judge", None)
    monkeypatch.setattr(judge, "BACKOFF_SECONDS", 0.001)


@pytest.fixture
def fake():
    with FakeJudge() as server:
        yield server


@pytest.fixture(scope="module")
def pool():
    with RewardPool(1) as shared:
        yield shared


def score(pool, fake, answer, **params):
    spec = {"verifier": "http", "url": fake.url, "model": "m", **params}
    return pool.score_blocking(f"<answer>{answer}</answer>", "a reference", "any", spec=spec)


def test_a_thousand_calls_with_stalls_and_errors(pool, fake, tmp_path, monkeypatch):
    answers = [f"{('hang' if i % 10 == 3 else 'error' if i % 10 == 7 else 'fine')} {i}" for i in range(1000)]
    spec = {
        "verifier": "http", "url": fake.url, "model": "m", "cache_dir": str(tmp_path), "timeout_seconds": 1.0,
        "retries": 2, "deadline_seconds": 60.0, "concurrency": 128,
    }  # fmt: skip
    # Requests by answer, and those that got no reply: on a machine that stalls, fine ones are among them.
    sent, lost = Counter(), Counter()
    post = judge.Judge._post

    async def counting_post(client, params, body):
        answer = re.search(rb"judged>\\n(\w+ \d+)\\n", body).group(1).decode()
        sent[answer] += 1
        try:
            return await post(client, params, body)
        except (TimeoutError, aiohttp.ClientError, OSError):
            lost[answer] += 1
            raise

    monkeypatch.setattr(judge.Judge, "_post", counting_post)

    async def ask_all():
        laps = []

        async def beat():  # the event loop of the step goes on meanwhile
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                laps.append(time.monotonic() - before)

        heart = asyncio.create_task(beat())
        calls = [
            pool.score(f"<answer>{a}</answer>", "r", "any", spec=spec, prompt_type="answer") for a in answers
        ]
        outputs = await asyncio.gather(*calls)
        heart.cancel()
        return outputs, sorted(laps)[len(laps) // 2]

    start = time.monotonic()
    outputs, usual_lap = asyncio.run(ask_all())
    assert time.monotonic() - start < 90.0  # one by one, the hanging ones alone took 300 s
    assert usual_lap < 0.5
    assert Counter(output.status for output in outputs) == {"ok": 800, "judge_error": 200}
    assert "no reply in 1 s" in outputs[3].trace[0]
    assert any("status 503: overloaded" in output.trace[0] for output in outputs[7::10])
    assert [outputs[i].parts["accuracy"] for i in (0, 1, 2, 4)] == [0.0, 0.1, 0.2, 0.4]
    for answer in answers:  # tried until it is answered, three times at most
        assert sent[answer] == (lost[answer] + 1 if answer.startswith("fine") else 3), answer
    counted = pool.counters()
    assert (counted["judge_errors"], counted["judge_requests"]) == (200, sent.total())

    # The same again, the judge gone: byte for byte what was said, and nothing is asked
    files = sorted(tmp_path.rglob("*.json"))
    before = {file: file.read_bytes() for file in files}
    assert len(files) == 800
    fake.seen.clear()
    spec["retries"] = 0
    spec["timeout_seconds"] = 0.05
    again, _ = asyncio.run(ask_all())
    good = [i for i, output in enumerate(outputs) if output.status == "ok"]
    assert [again[i] for i in good] == [outputs[i] for i in good]
    assert not any(answer.startswith("fine") for answer in fake.seen)
    assert {file: file.read_bytes() for file in sorted(tmp_path.rglob("*.json"))} == before


def test_no_more_are_asked_at_once_than_allowed(pool, fake):
    async def ask():
        spec = {"verifier": "http", "url": fake.url, "model": "m", "concurrency": 8}
        return await asyncio.gather(
            *(pool.score(f"<answer>together {i}</answer>", "r", "any", spec=spec) for i in range(24))
        )

    assert all(output.status == "ok" for output in asyncio.run(ask()))
    assert fake.most_in_flight == 8


def test_a_deadline_counts_the_waiting(pool, fake):
    start = time.monotonic()
    output = score(pool, fake, "hang", deadline_seconds=0.3)
    assert time.monotonic() - start < 15.0  # the judge alone would take 60 s
    assert (output.status, output.trace) == ("judge_timeout", ("no reply in 0.3 s",))


def test_what_is_tried_again_and_what_is_not(pool, fake):
    assert score(pool, fake, "once 4").parts["accuracy"] == 0.4
    assert fake.seen["once 4"] == 2
    assert score(pool, fake, "refuse").status == "judge_error"
    assert fake.seen["refuse"] == 1


def test_how_a_reply_is_read(pool, fake):
    assert score(pool, fake, "twice").parts["accuracy"] == 1.0  # the last line counts
    assert "no match of" in score(pool, fake, "silent").trace[0]
    assert "a score of '7', wanted 0 to 1" in score(pool, fake, "loud").trace[0]
    assert score(pool, fake, "loud", max_score=10).parts["accuracy"] == 0.7
    by_name = {"pattern": "(Well|SCORE)", "values": {"SCORE": 0.25}}
    assert score(pool, fake, "x 9", **by_name).parts["accuracy"] == 0.25


def test_a_budget_and_a_question_asked_at_once(pool, fake):
    async def together():
        spec = {"verifier": "http", "url": fake.url, "model": "m", "budget": 3}
        same = [pool.score("<answer>same 5</answer>", "r", "any", spec=spec) for _ in range(8)]
        return await asyncio.gather(*same)

    assert {output.parts["accuracy"] for output in asyncio.run(together())} == {0.5}
    assert fake.seen["same 5"] == 1
    statuses = [score(pool, fake, f"other {i}", budget=3).status for i in range(4)]
    assert statuses == ["ok", "ok", "judge_error", "judge_error"]
    assert "the budget of 3 requests is spent" in score(pool, fake, "more 1", budget=3).trace[0]


def test_what_is_asked(pool, fake, monkeypatch):
    monkeypatch.setenv("A_KEY", "secret")
    settings = make_settings({}, 0, 10)
    spec = {"verifier": "http", "url": fake.url, "model": "m", "api_key_variable": "A_KEY"}
    sample = Sample("1", (), "Which {answer}?", ("one", "two"), "p", "any", "s", "answer", spec)
    output = reward.score(**settings.arguments(sample, "<answer>three {reference} 3</answer>", num_tokens=1))
    assert output.parts == {"accuracy": 0.3, "format": 1.0}
    body, key = fake.bodies[0]
    asked = body["messages"][0]["content"]
    assert asked.startswith("Which {answer}?\n\nReference answer:\n<reference>\none\ntwo\n</reference>")
    assert "<judged>\nthree {reference} 3\n</judged>" in asked  # nothing within an answer is filled in
    assert (key, body["temperature"], body["model"]) == ("Bearer secret", 0.0, "m")
    assert score(pool, fake, " ").status == "no_answer"
    assert len(fake.bodies) == 1


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"url": None}, "spec.url: got None"),
        ({"url": "ftp://x"}, "spec.url: got 'ftp://x'"),
        ({"model": ""}, "spec.model"),
        ({"template": "Well?"}, "spec.template"),
        ({"pattern": "("}, "spec.pattern"),
        ({"pattern": "SCORE"}, "spec.pattern"),
        ({"concurrency": 0}, "spec.concurrency: got 0"),
        ({"api_key_variable": "NO_SUCH_KEY"}, "NO_SUCH_KEY"),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_settings_that_cannot_be_used(pool, params, said):
    spec = {"verifier": "http", "url": "http://127.0.0.1:1/v1", "model": "m", **params}
    with pytest.raises(ValueError, match=re.escape(said)):
        pool.score_blocking("<answer>a</answer>", "r", "any", spec=spec)


def test_a_type_may_be_a_whole_spec(pool, fake):
    spec = {"verifier": "http", "url": fake.url, "model": "m"}
    settings = make_settings({"essay": spec}, 0, 10)
    try:
        sample = Sample("1", (), "Which?", ("one",), "p", "essay", "s", "answer", {"max_score": 0.8})
        arguments = settings.arguments(sample, "<answer>x 8</answer>", num_tokens=1)
        assert pool.score_blocking(**arguments).total == 1.0
        assert json.loads(json.dumps(settings.to_dict()))["verifiers"]["essay"] == spec
        with pytest.raises(ValueError, match=r"reward.verifiers.letter: got {}"):
            make_settings({"letter": {}}, 0, 10)
    finally:
        reward.registry.ANSWER_TYPES.pop("essay")
        reward.registry.VERIFIERS.pop("essay", None)


def test_rollouts_that_nobody_judged_are_neither_favoured_nor_blamed():
    def output(total, status="ok"):
        return RewardOutput(total, {"accuracy": total}, status, "a")

    lost = output(0.0, "judge_timeout")
    assert group_rewards([output(1.0), lost, output(0.0), output(0.5)]) == [1.0, 0.5, 0.0, 0.5]
    assert group_rewards([output(0.25), output(0.0, "timeout")]) == [0.25, 0.0]
    assert group_rewards([lost, lost]) == [0.0, 0.0]


def test_equal_questions_are_equal_bytes():
    params = {**judge_text.DEFAULTS, "url": "http://a/v1", "model": "m"}
    body = judge_text.request_body(params, ["r"], "a", "c")
    assert body == judge_text.request_body(dict(reversed(params.items())), ["r"], "a", "c")
    assert judge_text.cache_key(params, body) != judge_text.cache_key({**params, "url": "http://b/v1"}, body)
