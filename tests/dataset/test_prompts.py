import pytest

from dataset.prompts import (
    ANSWER_PROMPT,
    FORMAT_GUIDANCE,
    SPATIAL_SUFFIX,
    THINKING_PROMPTS,
    PromptConfig,
    render_problem,
    thinking_prompt,
    to_messages,
)
from reward.registry import ANSWER_TYPES
from tests.dataset.conftest import make_row
from utils.sample import SPATIAL_PROBLEM_TYPE, Sample


def test_the_recipes_instructions():
    assert render_problem("1+1?", "answer") == "1+1?\nPut ONLY your final answer within <answer></answer>."
    assert render_problem("1+1?", "think") == (
        "1+1?\nThink and solve the following question step by step. Please put your thinking and analysis procedure "
        "within <think></think>. Put ONLY your final answer within <answer></answer>."
    )


def test_spatial_thinking_asks_for_boxes_and_spatial_answering_does_not():
    assert render_problem("x", "think", SPATIAL_PROBLEM_TYPE).endswith(SPATIAL_SUFFIX)
    assert "(x, y, x, y)" in SPATIAL_SUFFIX
    assert SPATIAL_SUFFIX not in render_problem("x", "answer", SPATIAL_PROBLEM_TYPE)
    assert SPATIAL_SUFFIX not in render_problem("x", "think", "math")


def test_pool_is_seeded_by_sample_and_uses_every_prompt():
    config = PromptConfig(num_thinking_prompts=len(THINKING_PROMPTS), seed=1)
    chosen = [thinking_prompt(f"s/{n}", config) for n in range(300)]
    assert chosen == [thinking_prompt(f"s/{n}", config) for n in range(300)]
    assert set(chosen) == set(THINKING_PROMPTS)
    other = PromptConfig(num_thinking_prompts=len(THINKING_PROMPTS), seed=2)
    assert chosen != [thinking_prompt(f"s/{n}", other) for n in range(300)]


@pytest.mark.parametrize("prompt", [ANSWER_PROMPT, *THINKING_PROMPTS])
def test_every_prompt_asks_for_the_tags(prompt):
    assert prompt.count("<answer>") == prompt.count("</answer>") == 1
    assert ("<think>" in prompt) == (prompt != ANSWER_PROMPT) == ("</think>" in prompt)


def test_format_guidance_is_off_by_default_and_names_real_types():
    assert set(FORMAT_GUIDANCE) <= set(ANSWER_TYPES)
    assert FORMAT_GUIDANCE["bbox"] not in render_problem("x", "answer", "", "bbox")
    guided = render_problem("x", "answer", "", "bbox", config=PromptConfig(format_guidance=True))
    assert guided == f"x\n{FORMAT_GUIDANCE['bbox']} {ANSWER_PROMPT}"


@pytest.mark.parametrize("size", [0, len(THINKING_PROMPTS) + 1])
def test_pool_size_is_checked(size):
    with pytest.raises(ValueError, match="num_thinking_prompts"):
        PromptConfig(num_thinking_prompts=size)


def test_messages_put_images_where_the_marks_are():
    sample = Sample.from_row(make_row(num_images=2, problem="Is <image> left of <image>?"))
    (message,) = to_messages(sample)
    assert message["role"] == "user"
    assert [part["type"] for part in message["content"]] == ["text", "image", "text", "image", "text"]
    assert [part["text"] for part in message["content"] if "text" in part] == [
        "Is ",
        " left of ",
        f"?\n{ANSWER_PROMPT}",
    ]


def test_messages_without_images():
    (message,) = to_messages(Sample.from_row(make_row(num_images=0, problem="1+1?")))
    assert message["content"] == [{"type": "text", "text": f"1+1?\n{ANSWER_PROMPT}"}]


def test_marks_and_images_must_agree():
    with pytest.raises(ValueError, match="sample set/00000: 2 <image> marks but 1 images"):
        to_messages(Sample.from_row(make_row(problem="<image><image>?")))


def test_unknown_prompt_type_is_refused():
    with pytest.raises(ValueError, match="prompt_type"):
        render_problem("x", "fast")
