"""The pool: one hostile completion never delays, zeroes or outlives another; no process and no descriptor is left."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from reward.pool import RewardPool
from reward.registry import VERIFIERS
from reward.workers import dispatch

ANSWER_TYPE = "svg-code"  # isolated and without a quick judgement: every completion goes to a worker
sys.path.append(str(Path(__file__).parent))  # the zygote inherits sys.path


@pytest.fixture
def deadline(monkeypatch):
    """Set the deadline of the answer type used here, in seconds."""

    def set_deadline(seconds):
        monkeypatch.setitem(VERIFIERS, ANSWER_TYPE, VERIFIERS[ANSWER_TYPE]._replace(deadline_seconds=seconds))

    return set_deadline


@pytest.fixture(scope="module")
def pool():
    with RewardPool(scorer="pool_scorers:obey") as shared:
        yield shared


def run(pool, *completions, answer="a"):
    async def all_of_them():
        return await asyncio.gather(*(pool.score(c, answer, ANSWER_TYPE) for c in completions))

    return asyncio.run(all_of_them())


def test_one_hanging_among_sixty_three_good(pool, deadline):
    deadline(2.0)
    run(pool, "good")  # the workers are up

    async def main():
        start = time.monotonic()
        hanging = asyncio.create_task(pool.score("hang", "a", ANSWER_TYPE))
        outputs = await asyncio.gather(*(pool.score("good", "a", ANSWER_TYPE) for _ in range(63)))
        still_hanging = not hanging.done()
        lost = await hanging
        return outputs, still_hanging, lost, time.monotonic() - start

    outputs, still_hanging, lost, seconds = asyncio.run(main())
    assert [output.total for output in outputs] == [1.0] * 63
    assert still_hanging
    assert (lost.status, lost.total, lost.parts["accuracy"]) == ("timeout", 0.0, 0.0)
    assert 1.9 < seconds < 12.0  # a worker that a busy machine starves gets up to three times its deadline


def test_more_hanging_than_workers_do_not_hold_up_the_good(pool, deadline):
    deadline(4.0)
    run(pool, "good", "good")  # the workers are up: otherwise the queue is sorted before anything hangs

    async def main():
        hanging = [asyncio.create_task(pool.score("hang", "a", ANSWER_TYPE)) for _ in range(6)]
        await asyncio.sleep(0.05)
        outputs = await asyncio.gather(*(pool.score("good", "b", ANSWER_TYPE) for _ in range(63)))
        all_hanging = not any(task.done() for task in hanging)
        return outputs, all_hanging, await asyncio.gather(*hanging)

    outputs, all_hanging, lost = asyncio.run(main())
    assert all(output.total == 1.0 for output in outputs)
    assert all_hanging  # three rounds of two hanging tasks give up their slots, 0.25 s each
    assert all(output.status == "timeout" for output in lost)


@pytest.mark.parametrize("command", ["segfault", "exit", "allocate 8000"])
def test_a_crash_is_that_one_tasks_status(pool, command):
    outputs = run(pool, "good", command, "good", "good")
    assert [output.status for output in outputs] == ["ok", "crash", "ok", "ok"]
    assert outputs[1].total == 0.0


def test_a_verifiers_bug_is_a_crash_and_is_logged(pool, caplog):
    assert run(pool, "bug")[0].status == "crash"
    assert "KeyError" in caplog.text


def test_an_error_of_the_data_is_raised(pool):
    with pytest.raises(ValueError, match="answer: not readable"):
        run(pool, "bad-data")
    with pytest.raises(ValueError, match="answer_type"):
        asyncio.run(pool.score("x", "a", "nonsense"))


def test_a_group_keeps_its_order_and_its_own_options(pool):
    async def main():
        commands = ["good", "bug", "sleep 0.05", "good"]
        group = await pool.score_group(commands, "a", ANSWER_TYPE)
        inline = await pool.score_group(["<answer>2</answer>", "<answer>3</answer>"] * 2, "3", "number")
        with pytest.raises(ValueError, match="num_tokens"):
            await pool.score_group(["good"], "a", ANSWER_TYPE, num_tokens=[1, 2])
        with pytest.raises(ValueError, match="not readable"):
            await pool.score_group(["good", "bad-data"], "a", ANSWER_TYPE)
        return group, inline

    group, inline = asyncio.run(main())
    assert [output.status for output in group] == ["ok", "crash", "ok", "ok"]
    assert [output.total for output in inline] == [0.0, 1.0, 0.0, 1.0]


def test_the_verifiers_themselves_in_a_pool():
    """The real scorer: SVG, mathematics and code side by side."""
    drawing = '<svg viewBox="0 0 9 9"><path d="M0 0L9 9" stroke="red"/></svg>'
    tests = '[{"stdin": "4", "stdout": "5"}]'

    async def main(pool):
        return await asyncio.gather(
            *(pool.score(f"<answer>{drawing}</answer>", drawing, "svg-code") for _ in range(8)),
            pool.score(r"\boxed{\frac{2\sqrt{3}}{4}}", r"\frac{\sqrt{3}}{2}", "math-expressions"),
            pool.score("<answer>print(int(input()) + 1)</answer>", tests, "general-code"),
        )

    with RewardPool() as pool:
        outputs = asyncio.run(main(pool))
        with pytest.raises(ValueError, match="answer"):
            asyncio.run(pool.score("<answer>x</answer>", "no drawing", "svg-code"))
    assert [output.total for output in outputs] == pytest.approx([1.0] * 10)


def test_a_timeout_is_not_tried_again(pool, deadline):
    deadline(0.3)
    before = pool.counters()
    assert run(pool, "hang")[0].status == "timeout"
    after = pool.counters()
    assert after["timeouts"] - before["timeouts"] == 1


def test_the_whole_process_group_is_killed(pool, deadline):
    deadline(0.5)
    zygote = psutil.Process(pool._dispatcher._zygote._process.pid)
    assert run(pool, "children")[0].status == "timeout"
    limit = time.monotonic() + 20.0
    while (left := _alive_children(zygote) - set(pool.pids())) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not left


def _alive_children(process):
    return {child.pid for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE}


def test_the_event_loop_keeps_running(pool, deadline):
    deadline(1.0)

    async def main():
        laps, last = [], time.monotonic()
        commands = ["hang", "segfault"] + ["sleep 0.01"] * 50
        tasks = [asyncio.create_task(pool.score(command, "a", ANSWER_TYPE)) for command in commands]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0.005)
            now = time.monotonic()
            laps.append(now - last)
            last = now
        return sorted(laps)

    laps = asyncio.run(main())
    assert len(laps) > 20
    assert laps[len(laps) * 9 // 10] < 0.2  # single stalls are the machine's


def test_several_threads_and_loops_share_a_pool(pool):
    results = []

    def body():
        results.extend(run(pool, *["good"] * 20))

    threads = [threading.Thread(target=body) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [output.total for output in results] == [1.0] * 80


def test_a_cancelled_caller_leaves_the_pool_in_order(pool):
    async def main():
        tasks = [asyncio.create_task(pool.score("sleep 0.3", "a", ANSWER_TYPE)) for _ in range(10)]
        await asyncio.sleep(0.02)
        for task in tasks[1:]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        return done, await pool.score("good", "a", ANSWER_TYPE)

    done, last = asyncio.run(main())
    assert done[0].total == last.total == 1.0
    assert all(isinstance(item, asyncio.CancelledError) for item in done[1:])


def test_a_worker_is_recycled_when_its_memory_grows():
    with RewardPool(1, recycle_megabytes=50, scorer="pool_scorers:obey") as pool:
        outputs = run(pool, "good", "grow 20", "grow 20", "grow 20", "good")
        assert pool.counters()["recycled"] == 1
    assert all(output.total == 1.0 for output in outputs)
    assert outputs[0].extracted != outputs[-1].extracted


def test_the_zygote_may_die():
    with RewardPool(scorer="pool_scorers:obey") as pool:
        run(pool, "good")
        os.kill(pool._dispatcher._zygote._process.pid, signal.SIGKILL)
        outputs = run(pool, *["good"] * 8)
        assert pool.counters()["restarts"] == 1
        assert {output.status for output in outputs} <= {"ok", "crash"}
        assert run(pool, "good")[0].total == 1.0


def test_an_idle_worker_may_die(pool):
    run(pool, "good", "good")
    for pid in pool.pids():
        os.kill(pid, signal.SIGKILL)
    assert [output.status for output in run(pool, "good", "good")] == ["ok", "ok"]


def test_a_scorer_that_cannot_be_imported_is_an_error_for_the_caller():
    with RewardPool(scorer="no_such_module:f") as pool, pytest.raises(RuntimeError, match="zygote"):
        run(pool, "good")
    with pytest.raises(ValueError, match="num_workers"):
        RewardPool(0)


def test_closing_leaves_no_process_thread_or_descriptor():
    def usage():
        gc.collect()
        children = len(psutil.Process().children(recursive=True))
        return len(os.listdir("/proc/self/fd")), threading.active_count(), children

    RewardPool(scorer="pool_scorers:obey").close()  # what the first pool loads for good
    before = usage()
    for _ in range(3):
        pool = RewardPool(scorer="pool_scorers:obey")
        run(pool, "good", "segfault", "good")
        pool.close()
        pool.close()
        with pytest.raises(RuntimeError, match="closed"):
            run(pool, "good")
    assert usage() == before


def test_tasks_in_flight_end_when_the_pool_closes():
    pool = RewardPool(scorer="pool_scorers:obey")
    run(pool, "good")
    options = dict.fromkeys(("problem_type", "prompt_type", "spec", "progress", "num_tokens"))
    futures = [pool.submit("hang", "a", ANSWER_TYPE, options) for _ in range(5)]
    time.sleep(0.1)
    pool.close()
    assert all(future.done() for future in futures)


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
def test_workers_die_with_the_parent(sig, tmp_path):
    code = (
        "import sys, time\n"
        f"sys.path[:0] = [{str(Path.cwd())!r}, {str(Path(__file__).parent)!r}]\n"
        "from reward.pool import RewardPool\n"
        "pool = RewardPool(scorer='pool_scorers:obey')\n"
        "options = dict.fromkeys(('problem_type', 'prompt_type', 'spec', 'progress', 'num_tokens'))\n"
        "pool.submit('hang', 'a', 'svg-code', options)\n"
        "pool.score_blocking('good', 'a', 'svg-code')\n"
        "print(pool._dispatcher._zygote._process.pid, *pool.pids(), flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) >= 2
    parent.send_signal(sig)
    parent.wait()
    parent.stdout.close()
    limit = time.monotonic() + 20
    while any(_running(pid) for pid in pids) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any(_running(pid) for pid in pids)


def _running(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_long_lived_pool_soak(pool, deadline):
    """Three rounds of mixed traffic: every good one right, as many workers as before, no growth of descriptors."""
    deadline(1.0)
    run(pool, "good", "good")
    descriptors = len(os.listdir("/proc/self/fd"))
    commands = ["good"] * 40 + ["sleep 0.01"] * 5 + ["segfault", "hang", "exit", "good"]
    for _ in range(3):
        outputs = run(pool, *commands)
        assert [output.status for output in outputs[:45]] == ["ok"] * 45
        assert [output.status for output in outputs[45:]] == ["crash", "timeout", "crash", "ok"]
    assert len(pool.pids()) <= 3
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 3


def test_a_worker_that_somebody_stops_is_replaced_and_its_answer_scored_by_another(tmp_path, monkeypatch):
    """SIGSTOP is nobody's answer: no timeout of the model's."""
    monkeypatch.setattr(dispatch, "_STOPPED_SECONDS", 0.5)
    with RewardPool(scorer="pool_scorers:obey") as own:
        (output,) = run(own, f"stop-once {tmp_path / 'stopped'}")
        assert (output.status, output.total) == ("ok", 1.0)
        assert own.counters()["timeouts"] == own.counters()["crashes"] == 0
        assert (tmp_path / "stopped").exists()
