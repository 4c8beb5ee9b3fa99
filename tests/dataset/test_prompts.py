import pytest

from dataset.encode import encode_prompt
from dataset.prompts import (
    ANSWER_PROMPT,
    DEFAULT_PROMPTS,
    FORMAT_GUIDANCE,
    SPATIAL_REQUEST,
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


def render(problem, prompt_type, problem_type="math", answer_type="number", config=DEFAULT_PROMPTS):
    kinds = {"prompt_type": prompt_type, "problem_type": problem_type, "answer_type": answer_type}
    return render_problem(Sample.from_row(make_row(problem=problem, num_images=0, **kinds)), config)


def test_the_recipes_instructions():
    assert render("1+1?", "answer") == "1+1?\nPut ONLY your final answer within <answer></answer>."
    assert render("1+1?", "think") == (
        "1+1?\nThink and solve the following question step by step. Please put your thinking and analysis procedure "
        "within <think></think>. Put ONLY your final answer within <answer></answer>."
    )


GOLDEN = {
    ("release", "answer", "math"): "Put ONLY your final answer within <answer></answer>.\n1+1?",
    ("release", "think", "math"): "Think and solve the following question step by step. Please put your thinking and "
    "analysis procedure within <think></think>. Put ONLY your final answer within <answer></answer>.\n1+1?",
    ("release", "answer", "spatial"): "Put ONLY your final answer within <answer></answer>. First give the "
    "(x, y, x, y) coordinates of each object that matters for the question.\n1+1?",
    ("release", "think", "spatial"): "Think and solve the following question step by step. Please put your thinking "
    "and analysis procedure within <think></think>. Put ONLY your final answer within <answer></answer>. First give "
    "the (x, y, x, y) coordinates of each object that matters for the question.\n1+1?",
    ("recipe", "answer", "spatial"): "1+1?\nPut ONLY your final answer within <answer></answer>.",
    ("recipe", "think", "spatial"): "1+1?\nThink and solve the following question step by step. Please put your "
    "thinking and analysis procedure within <think></think>. Put ONLY your final answer within <answer></answer>. In "
    "your thinking, first give the (x, y, x, y) coordinates of each object that matters for the question.",
}  # fmt: skip


@pytest.mark.parametrize(("layout", "prompt_type", "problem_type"), GOLDEN)
def test_layouts(layout, prompt_type, problem_type):
    text = GOLDEN[layout, prompt_type, problem_type]
    assert render("1+1?", prompt_type, problem_type, config=PromptConfig(layout)) == text


def test_the_release_puts_guidance_between_instruction_and_problem():
    guided = PromptConfig("release", format_guidance=True)
    assert render("x", "answer", "spatial", "bbox", guided) == (
        f"{ANSWER_PROMPT} {FORMAT_GUIDANCE['bbox']} {SPATIAL_REQUEST}\nx"
    )


def test_the_release_as_the_model_reads_it(processor):
    """System message, instruction, then the problem with its image where the mark is."""
    sample = Sample.from_row(make_row(problem="Count <image> well"))
    text = encode_prompt(processor, sample, prompts=PromptConfig("release")).text
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n<|im_start|>user\n"
        "Put ONLY your final answer within <answer></answer>.\n"
        "Count <|vision_start|><|image_pad|><|vision_end|> well<|im_end|>\n<|im_start|>assistant\n"
    )


def test_another_layout_is_refused():
    with pytest.raises(ValueError, match="layout: got 'before', wanted one of recipe, release"):
        PromptConfig("before")


def test_spatial_thinking_asks_for_boxes_and_spatial_answering_does_not():
    assert render("x", "think", SPATIAL_PROBLEM_TYPE).endswith(SPATIAL_SUFFIX)
    assert "(x, y, x, y)" in SPATIAL_SUFFIX
    assert SPATIAL_SUFFIX not in render("x", "answer", SPATIAL_PROBLEM_TYPE)
    assert SPATIAL_SUFFIX not in render("x", "think", "math")


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
    assert FORMAT_GUIDANCE["bbox"] not in render("x", "answer", "", "bbox")
    guided = render("x", "answer", "", "bbox", config=PromptConfig(format_guidance=True))
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
        render("x", "fast")
