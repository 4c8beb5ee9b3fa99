"""Discrete-event model of the asynchronous pipeline: rollout servers, ring buffer, trainer, weight exchange.

What is modelled, and how:

- A server decodes up to `max_running_requests` requests together. One token of each of b running requests
  takes `decode_seconds(b)`, interpolated between measured points; a request's prefill stalls its server. The first of
  a group there pays for the prompt, the others `shared_prefill_seconds`; an exchange makes the server forget.
- A group is `group_size` requests of one prompt; the client prepares one group after another. It is ready
  `reward_seconds` after its last response.
- Groups are submitted while (in flight + ready + consumed) < (eta + version + 1) * groups_per_step, the
  executor's capacity rule, and at most `max_concurrent_groups` are in flight.
- The trainer takes the oldest `groups_per_step` ready groups, trains, then exchanges weights. It computes every
  token of a response, and a prompt once for each response or (`share_prompts`) for each part of a group. A ready
  group with any token generated more than eta versions before the moment of consumption is evicted.
- Decoding stands still during the exchange; interrupted requests then go on after a prefill of their own.

Everything random (lengths, speed of a request, dropped groups) comes from one seed and is drawn per group
in order of submission, so that runs that differ in one setting see the same work.
"""

import heapq
import itertools
import math
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from utils.doctor.pipeline_parameters import Parameters


@dataclass(eq=False)  # two groups are never the same
class Group:
    """One prompt's requests; `oldest_version` is that of its first generated token."""

    work: list[float]  # tokens of each response, stretched by the request's speed
    num_tokens: int
    dropped: bool
    num_trained: int = 0  # tokens that the trainer computes, prompts included
    num_parts: int = 1  # times that it computes the prompt
    oldest_version: int | None = None
    unfinished: int = 0


@dataclass
class Result:
    """Rates are over the steps after the warm-up; counts over the whole run, in groups."""

    step_seconds: float = 0.0
    tokens_per_second: float = 0.0  # response tokens trained on
    tokens_per_group: float = 0.0  # response tokens of a group trained on
    trainer_wait_share: float = 0.0
    server_idle_share: float = 0.0  # no request running, weight exchange included
    frozen_share: float = 0.0  # decoding stood still for a weight exchange
    evicted_share: float = 0.0  # of the groups that became ready
    gaps: Counter = field(default_factory=Counter)  # version gap of the oldest token, per consumed group
    consumption_times: list[float] = field(default_factory=list)
    submitted: int = 0
    consumed: int = 0
    evicted: int = 0
    dropped: int = 0
    ready: int = 0
    in_flight: int = 0


class Server:
    """Requests that decode in step: `progress` counts the tokens that each running one has received."""

    def __init__(self, p: Parameters) -> None:
        counts, seconds = zip(*sorted(p.decode_seconds), strict=True)
        self.token_seconds = np.interp(range(p.max_running_requests + 1), counts, seconds).tolist()
        self.p = p
        self.progress = 0.0
        self.stall = 0.0
        self.running: list[tuple[float, int, Group]] = []  # heap by the progress at which each is done
        self.queue: deque[tuple[float, Group]] = deque()
        self.order = itertools.count()
        self.known: set[Group] = set()  # groups whose prompt is in the cache

    def __len__(self) -> int:
        return len(self.running) + len(self.queue)

    def admit(self, version: int) -> None:
        while self.queue and len(self.running) < self.p.max_running_requests:
            work, group = self.queue.popleft()
            heapq.heappush(self.running, (self.progress + work, next(self.order), group))
            self.stall += self.prefill(group)
            if group.oldest_version is None:
                group.oldest_version = version

    def prefill(self, group: Group) -> float:
        shared = self.p.shared_prefill_seconds
        is_known = group in self.known
        self.known.add(group)
        return self.p.prefill_seconds if shared is None or not is_known else shared

    def seconds_to_next(self, slowdown: float) -> float:
        if not self.running:
            return math.inf
        left = max(self.running[0][0] - self.progress, 0.0)
        return self.stall + left * self.token_seconds[len(self.running)] * slowdown

    def advance(self, seconds: float, slowdown: float) -> None:
        stalled = min(self.stall, seconds)
        self.stall -= stalled
        if self.running:
            self.progress += (seconds - stalled) / (self.token_seconds[len(self.running)] * slowdown)

    def pop_finished(self) -> list[Group]:
        finished = []
        while self.running and self.stall <= 0 and self.running[0][0] <= self.progress * (1 + 1e-12) + 1e-9:
            finished.append(heapq.heappop(self.running)[2])
        return finished

    def interrupt(self) -> None:
        """Running requests keep their tokens; their caches are gone, so each is prefilled again."""
        self.known.clear()
        self.stall += sum(self.prefill(group) for _, _, group in self.running)


class Pipeline:
    """State of one run; `run` moves it from event to event."""

    def __init__(self, p: Parameters) -> None:
        self.p, self.result, self.random = p, Result(), np.random.default_rng(p.seed)
        self.servers = [Server(p) for _ in range(p.num_servers)]
        self.now, self.version = 0.0, 0
        # Seconds left; waiting -> training -> syncing -> waiting.
        self.phase, self.phase_left = "waiting", math.inf
        self.scoring: list[tuple[float, int, Group]] = []  # heap by the time the reward is there
        self.buffer: list[Group] = []
        self.preparing: deque[tuple[float, Group]] = deque()  # by the time the client sends the requests
        self.order = itertools.count()
        self.seconds: Counter = Counter()  # spent waiting, training, syncing, with a server idle
        self.tokens = 0
        self.turn = itertools.cycle(self.servers)

    def run(self) -> Result:
        self.submit()
        while self.version < self.p.num_steps:
            if self.phase == "waiting" and self.consume():
                continue
            self.step()
        r, s, steps = self.result, self.seconds, self.p.num_steps - self.p.warmup_steps
        total = s["waiting"] + s["training"] + s["syncing"]
        r.step_seconds, r.tokens_per_second = total / steps, self.tokens / total
        r.tokens_per_group = self.tokens / (steps * self.p.groups_per_step)
        r.trainer_wait_share, r.frozen_share = s["waiting"] / total, s["syncing"] / total
        r.server_idle_share = s["idle"] / (total * self.p.num_servers)
        r.evicted_share = r.evicted / max(r.evicted + r.consumed + len(self.buffer), 1)
        r.ready = len(self.buffer)
        return r

    def step(self) -> None:
        """Move to the next event: a response, a reward, the end of the trainer's phase."""
        decoding = self.phase != "syncing"
        training = self.phase == "training"
        slowdown = self.p.contention if training else 1.0
        is_shared = training and any(server.running for server in self.servers)
        phase_slowdown = self.p.train_contention if is_shared else 1.0
        next_response = min(s.seconds_to_next(slowdown) for s in self.servers) if decoding else math.inf
        next_reward = self.scoring[0][0] - self.now if self.scoring else math.inf
        next_request = self.preparing[0][0] - self.now if self.preparing else math.inf
        seconds = max(min(next_response, next_reward, next_request, self.phase_left * phase_slowdown), 0.0)
        if math.isinf(seconds):
            raise RuntimeError(f"the pipeline stands still at step {self.version}: nothing runs and no batch")
        if self.version >= self.p.warmup_steps:
            self.seconds[self.phase] += seconds
            self.seconds["idle"] += seconds * sum(not (s.running and decoding) for s in self.servers)
        self.now += seconds
        self.phase_left -= seconds / phase_slowdown
        if decoding:
            for server in self.servers:
                server.advance(seconds, slowdown)
                for group in server.pop_finished():
                    self.finish_response(group)
                server.admit(self.version)
        self.send_prepared()
        while self.scoring and self.scoring[0][0] <= self.now:
            self.finish_group(heapq.heappop(self.scoring)[2])
        if self.phase_left <= 1e-12:
            self.end_phase()
        self.submit()

    def submit(self) -> None:
        r, p = self.result, self.p
        while (
            r.in_flight < p.max_concurrent_groups
            and r.in_flight + len(self.buffer) + r.consumed < (p.eta + self.version + 1) * p.groups_per_step
        ):
            group = self.draw_group()
            r.submitted += 1
            r.in_flight += 1
            begin = max(self.now, self.preparing[-1][0]) if self.preparing else self.now
            self.preparing.append((begin + p.client_seconds, group))
        self.send_prepared()

    def send_prepared(self) -> None:
        while self.preparing and self.preparing[0][0] <= self.now:
            group = self.preparing.popleft()[1]
            own = next(self.turn)
            for work in group.work:
                server = own if self.p.has_affinity else min(self.servers, key=len)
                server.queue.append((work, group))
                if self.phase != "syncing":
                    server.admit(self.version)

    def draw_group(self) -> Group:
        p, size = self.p, self.p.group_size
        if p.measured_tokens:
            lengths = self.random.choice(p.measured_tokens, size)
        else:
            lengths = p.median_tokens * np.exp(p.sigma_tokens * self.random.standard_normal(size))
        lengths = np.clip(np.rint(lengths), 1, p.max_tokens)
        speed = np.exp(p.latency_sigma * self.random.standard_normal(size))
        dropped = bool(self.random.random() < p.drop_share)
        total = int(lengths.sum())
        parts = self.num_parts(total)
        trained = total + parts * p.prompt_tokens
        return Group((lengths * speed).tolist(), total, dropped, trained, parts, unfinished=size)

    def num_parts(self, tokens: int) -> int:
        """Times that the trainer computes the prompt of a group whose responses have so many tokens."""
        p = self.p
        if not p.share_prompts:
            return p.group_size
        room = max(p.tokens_per_mb - p.prompt_tokens, 1)
        return -(-tokens // room) if p.tokens_per_mb else 1

    def finish_response(self, group: Group) -> None:
        group.unfinished -= 1
        if group.unfinished == 0:
            heapq.heappush(self.scoring, (self.now + self.p.reward_seconds, next(self.order), group))

    def finish_group(self, group: Group) -> None:
        self.result.in_flight -= 1
        if group.dropped:
            self.result.dropped += 1
        else:
            self.buffer.append(group)

    def consume(self) -> bool:
        """Evict what is too old, then start training if a whole batch is left."""
        r, p = self.result, self.p
        fresh = [g for g in self.buffer if self.version - g.oldest_version <= p.eta]
        r.evicted += len(self.buffer) - len(fresh)
        self.buffer = sorted(fresh, key=lambda g: g.oldest_version)
        self.submit()
        if len(self.buffer) < p.groups_per_step:
            return False
        batch, self.buffer = self.buffer[: p.groups_per_step], self.buffer[p.groups_per_step :]
        r.consumed += len(batch)
        r.gaps.update(self.version - g.oldest_version for g in batch)
        r.consumption_times.append(self.now)
        tokens = sum(g.num_tokens for g in batch)
        self.tokens += tokens * (self.version >= p.warmup_steps)
        work = p.train_seconds_per_token * sum(g.num_trained for g in batch)
        work += p.train_seconds_per_prompt * sum(g.num_parts for g in batch)
        seconds = p.train_fixed_seconds + work / p.num_trainers
        self.phase, self.phase_left = "training", seconds
        return True

    def end_phase(self) -> None:
        if self.phase == "training":
            self.phase, self.phase_left = "syncing", self.p.sync_seconds
            return
        self.phase, self.phase_left = "waiting", math.inf
        self.version += 1
        for server in self.servers:
            server.interrupt()
            server.admit(self.version)


def simulate(p: Parameters) -> Result:
    """Run `p.num_steps` training steps and return the rates and counts."""
    return Pipeline(p).run()
