"""Asynchronous GRPO for a vision-language model, read from top to bottom.

    python -m areal.launcher.local trains/grpo.py --config configs/digits_cpu_stage1.yaml

SGLang servers answer prompts all the time; finished groups of G scored answers wait in a ring buffer. One iteration:

1. prepare_batch        take the oldest groups; no token in them is more than eta weight versions old
2. compute_logp         proximal log-probabilities: the same tokens under the weights as they are now (with one
                        minibatch step 4 has them anyway)
3. compute_advantages   reward against the group's mean and standard deviation
4. ppo_update           decoupled PPO: clip the ratio to the proximal policy, weigh by the capped behavior weight
5. update_weights       pause the rollout, hand over the weights, count up the version, resume
6. evaluate, save       rollout goes on meanwhile

Kept from GRPO: the group baseline. Dropped: the KL penalty (off by default) and the sequence-mean loss (token mean
over the batch instead). Added: asymmetric clipping, and the behavior weight that makes stale tokens usable. With
`loss.estimator: gae` it is PPO: a critic's values take the place of the group's mean.
"""

import sys

from areal.api import SaveLoadMeta

from trains import heartbeat
from trains.capsule import Capsules
from trains.config import load
from trains.evaluation import evaluate
from trains.guards import SkipCounter, check_parity
from trains.host.recovery import ResumableData
from trains.parity import probe
from trains.report import Report, reported_failure
from trains.setup import Run, build, run_directory


def main(argv: list[str]) -> None:
    heartbeat.start()
    run = build(load(argv))
    report, skips = Report(run), SkipCounter(run.config.actor.max_skipped_steps)
    actor, rollout = run.actor, run.rollout
    capsules = Capsules(run.config, actor, run_directory(run.config))
    with report.phase("evaluate"):
        if is_evaluation_wanted_first(run, report):
            report.evaluation(run.start_step, evaluate(run))

    for step in range(run.start_step, run.total_steps):
        run.progress.step = step
        with report.phase("rollout"):
            batch = actor.prepare_batch(run.train_dataloader, workflow=run.workflow)

        with report.phase("proximal"):
            # otherwise they come out of step 4's own forward pass, under the same weights
            if actor.needs_proximal_pass:
                for group, logprobs in zip(batch, actor.compute_logp(batch), strict=True):
                    group["proximal_logprobs"] = logprobs
            if run.critic is not None:
                for group, values in zip(batch, run.critic.compute_values(batch), strict=True):
                    group["values"] = values
            if run.reference is not None:
                for group, logprobs in zip(batch, run.reference.compute_logp(batch), strict=True):
                    group["reference_logprobs"] = logprobs
            # do the servers compute the same policy? one of them has until the exchange to answer
            comparison = probe(actor, rollout, batch, run.config.gconfig.temperature)

        with report.phase("advantages"):
            actor.compute_advantages(batch)

        with report.phase("save"):
            capsules.before_update(step, batch)

        with report.phase("update"):
            update = actor.ppo_update(batch)
            if run.critic is not None:
                update["critic"] = run.critic.update(batch)

        with report.phase("exchange"):
            new_weights = run.weight_meta.with_version(step + 1)
            actor.stage_weights(new_weights)  # files are written while rollout goes on
            comparison.finish()
            rollout.pause()
            actor.update_weights(new_weights)
            run.set_version(step + 1)
            rollout.resume()

        with report.phase("evaluate"):
            if is_evaluation_due(run, step):
                report.evaluation(step + 1, evaluate(run))

        record = report.step(step, batch, update)
        capsules.after_step(record)
        skips.update(update["num_skipped"])
        if step == run.start_step:
            check_parity(record, run.config.actor.dtype, run.config.actor.parity_threshold)

        # a checkpoint says that its step is done: what is to be known of the step is on the disk before
        with report.phase("save"):
            save(run, step)

    with report.phase("finish"):
        finish(run, report)


def save(run: Run, step: int) -> None:
    """Checkpoints for people every `saver.freq_steps`, for recovery every `recover.freq_steps`."""
    info, engine = run.step_info(step), run.actor
    tokens = {"tokenizer": engine.tokenizer, "processor": engine.processor}
    run.saver.save(engine, info.epoch, info.epoch_step, info.global_step, **tokens)
    data = ResumableData(run.train_dataloader, run.rollout, engine.entropy_coefficient)
    is_last = step + 1 == run.total_steps
    run.recover.dump(
        engine, info, run.saver, run.evaluator, run.stats_logger, data, is_last=is_last, **tokens
    )


def is_evaluation_wanted_first(run: Run, report: Report) -> bool:
    """Before training, and where a resumed run has no step left to do and its last evaluation is not there."""
    if run.eval_dataloader is None or report.has_evaluation(run.start_step):
        return False
    return (
        run.config.evaluator.eval_before_train if run.start_step == 0 else run.start_step >= run.total_steps
    )


def is_evaluation_due(run: Run, step: int) -> bool:
    """Every `evaluator.freq_steps`, and after the last step. Asked before `save`, which stores the count."""
    if run.eval_dataloader is None:
        return False
    info, due = run.step_info(step), []
    run.evaluator.evaluate(lambda: due.append(step), info.epoch, info.epoch_step, info.global_step)
    return bool(due) or step + 1 == run.total_steps


def finish(run: Run, report: Report) -> None:
    """The final checkpoint, in a place that the next stage's configuration can name."""
    checkpoint = run_directory(run.config) / "final"
    run.actor.save(
        SaveLoadMeta(
            path=str(checkpoint),
            weight_format="hf",
            with_optim=False,
            tokenizer=run.actor.tokenizer,
            processor=run.actor.processor,
            base_model_path=run.config.actor.path,
        )
    )
    report.finish(checkpoint)
    run.close()


if __name__ == "__main__":
    with reported_failure():
        main(sys.argv[1:])
