"""One evaluation from start to end: server, gateway, lmms-eval, and a look at what came back.

lmms-eval writes a request that failed down as an answer and scores it as a wrong one, and its chat model for
transformers does so with an empty text: both are found here, and the run fails, with the counts.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from dataset.curate.server import Server, ServerOptions
from utils.evaluate import prepare, results
from utils.evaluate.gateway import Gateway
from utils.evaluate.prepare import Options

GENERATION_ERROR = "in generating"  # what lmms-eval's transformers models say before they answer with nothing
GRACE_SECONDS = 10


class EvaluationFailed(RuntimeError):
    """lmms-eval ended with an error, or answers are missing; the message has what is known."""


def judge_environment(url: str | None, model: str | None) -> dict[str, str]:
    """What the tasks that ask a judge read, each under a name of its own."""
    found: dict[str, str] = {}
    if url is not None:
        base = url.rstrip("/")
        found = {
            "OPENAI_API_URL": f"{base}/chat/completions",
            "OPENAI_BASE_URL": base,
            "OPENAI_API_BASE": base,
            "JUDGE_BASE_URL": base,
            "API_TYPE": "openai",
            "OPENAI_API_KEY": os.environ.get("OPENAI_API_KEY", "none"),
        }
        found["JUDGE_API_KEY"] = found["OPENAI_API_KEY"]
    if model is not None:
        found |= {"MODEL_VERSION": model, "JUDGE_MODEL_NAME": model}
    return found


async def run(
    output: Path,
    names: Sequence[str],
    options: Options,
    *,
    server: ServerOptions | None,
    addresses: Sequence[str] = (),
    variables: dict[str, str],
) -> None:
    """Run `command.sh` of a prepared folder; with the server backend, on a server started here unless `addresses` are
    given. Raises ``EvaluationFailed``, and ``ServerFailed`` or ``EngineDead`` for servers that do not answer.
    """
    started: Server | None = None
    gateway: Gateway | None = None
    try:
        if options.backend == "server":
            if not addresses:
                assert server is not None
                started = Server(server, "evaluate")
                addresses = [await started.start()]
            gateway = Gateway(str(output / "model"), addresses)
            variables = variables | {"BASE_URL": await gateway.start()}
        status, log = await _lmms_eval(output, variables)
    finally:
        if gateway is not None:
            await gateway.close()
        if started is not None:
            started.stop()
    if gateway is not None:
        print(f"{gateway.num_served} answers, {gateway.num_cut} of them cut off at the longest length")
    check(output, names, status, log)


async def _lmms_eval(output: Path, variables: dict[str, str]) -> tuple[int, Path]:
    """Its exit status and its log. Killed with everything that it started when this is cancelled."""
    log = output / "lmms_eval.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            "bash",
            str(output / "command.sh"),
            env={**os.environ, **variables},
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return await process.wait(), log
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), GRACE_SECONDS)
            except TimeoutError:
                os.killpg(process.pid, signal.SIGKILL)
            raise


def check(output: Path, names: Sequence[str], status: int, log: Path) -> None:
    """Raises ``EvaluationFailed`` unless every task has results and every sample an answer of the model's."""
    text = log.read_text(errors="replace")
    tail = "\n".join(text.splitlines()[-15:])
    if status:
        raise EvaluationFailed(f"lmms-eval ended with status {status}; end of {log}:\n{tail}")
    if num := text.count(GENERATION_ERROR):
        raise EvaluationFailed(f"the model failed at {num} batches, which count as wrong answers; see {log}")
    found = results.newest_files(output)
    if missing := [name for name in names if name not in found]:
        raise EvaluationFailed(f"no results of {', '.join(missing)}; end of {log}:\n{tail}")
    failed = {name: results.num_failed(found[name]) for name in names}
    if any(failed.values()):
        counts = ", ".join(f"{name} {num}" for name, num in failed.items() if num)
        raise EvaluationFailed(f"requests failed and count as wrong answers: {counts}; {log} says why")


def environment_python() -> Path:
    """Python of the evaluation environment. Raises FileNotFoundError before `make evaluation-env`."""
    python = prepare.ENVIRONMENT / "bin" / "python"
    if not (prepare.ENVIRONMENT / "installed").is_file():
        raise FileNotFoundError("lmms-eval is not installed: make evaluation-env")
    return python
