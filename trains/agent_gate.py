"""What a configuration's section `agent` contradicts; part of the gate (trains/gate.py)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataset.agent.registry import check_names
from dataset.agent.tools.search import check as check_corpus
from reward.sandbox.session import SandboxUnavailable, available_layer


def check_agent(config: Any) -> Iterator[str]:
    """A sentence for each contradiction: key, value got, value wanted."""
    agent, sampling = config.agent, config.gconfig
    try:
        names = check_names(list(agent.tools))
    except ValueError as error:
        yield f"agent.{error}"
        return
    try:
        agent.weights()
    except ValueError as error:
        yield str(error)
    if not agent.enabled:
        if names:
            yield f"agent.tools={list(names)} has no effect with agent.enabled=false; write agent.enabled: true"
        return
    if agent.max_tokens is not None and agent.max_tokens < sampling.max_new_tokens:
        yield (
            f"agent.max_tokens={agent.max_tokens} (a whole conversation behind its prompt) is below "
            f"gconfig.max_new_tokens={sampling.max_new_tokens} (one turn); write at least as many"
        )
    if config.loss.loss_mode == "constant":
        yield (
            "loss.loss_mode='constant' with agent.enabled=true: its denominator is the longest answer of one turn; "
            "write token-mean or sequence-mean"
        )
    if config.reward.overlong_buffer_tokens:
        yield (
            f"reward.overlong_buffer_tokens={config.reward.overlong_buffer_tokens} with agent.enabled=true: its limit "
            "is that of one turn; write 0, and agent.call_cost for shorter conversations"
        )
    if config.rehearsal.reference_share:
        yield (
            f"rehearsal.reference_share={config.rehearsal.reference_share} with agent.enabled=true: a reference answer "
            "is no conversation; rehearse with agent.enabled=false"
        )
    if "search" in names:
        yield from _check_corpus(agent.corpus)
    if "python" in names:
        try:
            available_layer()
        except SandboxUnavailable as error:
            yield f"agent.tools holds python: {error}"


def _check_corpus(path: str | None) -> Iterator[str]:
    if path is None:
        yield "agent.corpus=null with the tool search: name a corpus (python -m dataset.corpus makes one)"
    elif not Path(path).is_file():
        yield f"agent.corpus={path!r} does not exist (working directory: {Path.cwd()})"
    else:
        opened = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
        try:
            check_corpus(opened, path)
        except ValueError as error:
            yield f"agent.corpus: {error}"
        finally:
            opened.close()
