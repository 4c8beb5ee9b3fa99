"""Settings without engines: what is postponed is the same thing later, and the doctor needs none of it."""

import subprocess
import sys

import pytest

from tests.utils.doctor.machines import ROOT

HEAVY = ("torch", "transformers", "areal.infra", "openai")
SAME_THINGS = """
from trains.host import settings
settings.import_alone()
import sys
assert not {"torch", "transformers", "areal", "areal.infra"} & sys.modules.keys(), "left behind"
from areal.api import cli_args
assert cli_args.is_valid_attn_impl("org/repo") and not cli_args.is_valid_attn_impl("nonsense")
from areal.utils import timeutil
assert timeutil.dist.is_available() and timeutil.torch.tensor([1]).shape == (1,)
from areal.infra.platforms import current_platform
from areal.engine import fsdp_utils
assert timeutil.current_platform.device_type == current_platform.device_type
assert fsdp_utils.apply_fsdp2
"""
DOCTOR = """
import runpy, sys
try:
    runpy.run_module("utils.doctor", run_name="__main__")
except SystemExit as end:
    print("status", end.code)
print("loaded", *[name for name in {heavy!r} if name in sys.modules])
"""


def run(program, *words):
    command = [sys.executable, "-W", "ignore", "-c", program, *words]
    return subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    ).stdout.splitlines()


def test_what_is_postponed_is_the_real_thing_later():
    run(SAME_THINGS)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--config", "nowhere.yaml"], "2", "--config nowhere.yaml does not exist"),
        (["--config", "configs/base.yaml", "actor.lr=1"], "1", "did you mean actor.optimizer.lr?"),
        (["--config", "configs/llavaov15-8b_stage2_grpo.yaml", "trial_name=a b"], "1", "trial_name='a b'"),
        (
            ["--config", "configs/digits_cpu_stage1.yaml", "actor.path=./nowhere"],
            "3",
            "actor.path='./nowhere'",
        ),
    ],
    ids=str,
)
def test_the_doctor_answers_without_engines(words, status, message):
    """Seconds of imports before an answer are what this is for; a time would depend on the machine."""
    *said, ended, loaded = run(DOCTOR.format(heavy=HEAVY), *words)
    assert any(message in line for line in said), said
    assert (ended, loaded.strip()) == (f"status {status}", "loaded")
