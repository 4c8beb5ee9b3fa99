"""One way to ask for a score: training, curation, evaluation and audit read the same settings."""

import pytest

from reward import score
from reward.registry import ANSWER_TYPES
from reward.settings import DEFAULT_SETTINGS, make_settings, read_settings
from reward.tools.audit import audit_rows
from utils.sample import Sample

SAMPLE = Sample("a/1", (), "?", ("5",), "math", "number", "a", "think", {"tolerance": 1})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def half(answer):\n    return 0.5 if answer != 'I don\\'t know' else 0.0\n")
    yield f"{path}:half"
    ANSWER_TYPES.pop("halves", None)


def test_arguments_of_a_score():
    arguments = DEFAULT_SETTINGS.arguments(SAMPLE, "<answer>5.5</answer>", num_tokens=9, progress=0.5)
    assert arguments == {
        "completion": "<answer>5.5</answer>", "answer": ["5"], "answer_type": "number", "problem_type": "math",
        "prompt_type": "think", "spec": {"tolerance": 1}, "progress": 0.5, "num_tokens": 9,
    }  # fmt: skip
    assert score(**arguments).parts == {"accuracy": 1.0, "format": 0.0}


def test_overlong_is_added_where_the_sample_does_not_say_otherwise():
    settings = make_settings({}, 10, 20)
    assert score(**settings.arguments(SAMPLE, "\\boxed{5}", num_tokens=15)).parts["overlong"] == -0.5
    own = Sample("a/1", (), "?", ("5",), "math", "number", "a", "think", {"overlong": None})
    assert "overlong" not in score(**settings.arguments(own, "\\boxed{5}", num_tokens=15)).parts
    with pytest.raises(ValueError, match=r"reward.overlong_buffer_tokens=30: wanted 0 \(off\) to .*=20"):
        make_settings({}, 30, 20)


def test_settings_of_a_configuration_and_its_defaults(tmp_path, file):
    (tmp_path / "base.yaml").write_text(
        f"gconfig: {{max_new_tokens: 100, temperature: 1}}\nreward: {{verifiers: {{halves: '{file}'}}}}\n"
    )
    (tmp_path / "stage.yaml").write_text("defaults: [base, _self_]\nreward: {overlong_buffer_tokens: 40}\n")
    settings = read_settings(tmp_path / "stage.yaml")
    assert settings.to_dict() == {
        "verifiers": {"halves": file},
        "overlong": {"max_tokens": 100, "buffer_tokens": 40},
    }
    assert ANSWER_TYPES["halves"] == file
    assert read_settings("configs/base.yaml") == DEFAULT_SETTINGS
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match=r"list.yaml: wanted a configuration"):
        read_settings(tmp_path / "list.yaml")


def test_audit_scores_as_training_does(file):
    """A type of one's own, long completions fined, the sample's own spec kept."""
    settings = make_settings({"halves": file}, 10, 20)
    row = {"id": "1", "answer": ["x"], "answer_type": "halves", "source": "s", "spec": None}
    result = audit_rows("s", "halves", [row], settings)
    assert result.means["self"] == 0.5
    assert "its own reference scores 0.500 (ok)" in result.failures[0]
