"""What bash completes, asked of bash."""

import subprocess
from pathlib import Path

import pytest

from utils.completion.__main__ import COMMANDS, script

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = "python -m areal.launcher.local trains/grpo.py "


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    """completed(line) -> what a <TAB> behind the line offers."""
    path = tmp_path_factory.mktemp("completion") / "completion.bash"
    path.write_text(script())

    def _completed(line):
        words = line.split(" ")
        quoted = " ".join(f"'{word}'" for word in words)
        command = (
            f"source {path}; compopt() {{ :; }}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
            "_grpo_complete; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        result = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True
        )
        assert not result.stderr
        return result.stdout.split()

    return _completed


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (LAUNCH + "--config configs/digits_cpu_stage2", ["configs/digits_cpu_stage2.yaml"]),
        (LAUNCH + "--config x actor.optimizer.weight_d", ["actor.optimizer.weight_decay="]),
        ("python -m utils.doctor --config x loss.kl_c", ["loss.kl_coefficient="]),
        (LAUNCH + "--dr", ["--dry-run"]),
        (LAUNCH + "--config configs/recipes/gs", ["configs/recipes/gspo.yaml"]),
        ("python -m utils.vi", ["utils.viewer"]),
        (LAUNCH + "--config x actor.path=README", ["README.md"]),
        (LAUNCH + "--config x actor.path = README", ["README.md"]),
        ("python -m dataset.insp", ["dataset.inspect"]),
        ("python -m dataset.inspect READ", ["README.md"]),
        ("python trains/grp", ["trains/grpo.py"]),
    ],
)  # fmt: skip
def test_what_is_offered(line, offered, completed):
    assert completed(line) == offered


def test_a_file_elsewhere_is_offered_too(completed):
    assert completed(LAUNCH + "--config tests/conf") == ["tests/conftest.py"]


def test_a_section_offers_all_its_keys(completed):
    offered = completed(LAUNCH + "--config x buffer.")
    assert "buffer.freshness=" in offered
    assert len(offered) == 4


def test_every_command_is_there():
    """Whatever has a `__main__`, or runs as a module, but for what the Makefile alone calls."""
    for command in COMMANDS:
        if not command.startswith("areal"):
            path = ROOT / command.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), command
