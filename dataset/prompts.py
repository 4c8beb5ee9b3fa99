"""Every prompt text of the project. Training, curation, warm start and evaluation all render through here.

The two instructions are those of the LLaVA-OneVision-1.5-RL recipe; the other thinking prompts ask for the
same two tags in other words (V-Triune samples from a pool of such prompts so that the skill does not hang on
one wording).
"""

import hashlib
from dataclasses import dataclass

from utils.sample import IMAGE_MARK, PROMPT_TYPES, SPATIAL_PROBLEM_TYPE, Sample

ANSWER_PROMPT = "Put ONLY your final answer within <answer></answer>."
THINKING_PROMPTS = (
    "Think and solve the following question step by step. Please put your thinking and analysis procedure "
    "within <think></think>. Put ONLY your final answer within <answer></answer>.",
    "Reason about the question before you answer. Write the reasoning inside <think></think> and nothing "
    "but the result inside <answer></answer>.",
    "Work through the problem one step at a time within <think></think>, then state ONLY the final answer "
    "within <answer></answer>.",
    "First look closely and analyse the question within <think></think>. Then give the final answer, and "
    "only that, within <answer></answer>.",
    "Solve this carefully. Your derivation belongs between <think> and </think>; your final answer alone "
    "belongs between <answer> and </answer>.",
    "Explain to yourself how to find the solution inside <think></think>; after that, output just the "
    "solution inside <answer></answer>.",
)
SPATIAL_SUFFIX = (
    "In your thinking, first give the (x, y, x, y) coordinates of each object that matters for the question."
)
FORMAT_GUIDANCE = {
    "multiple-choice": "Answer with the letter of the correct option.",
    "number": "Answer with a single number.",
    "math-expressions": "Answer with a number or a LaTeX expression.",
    "bbox": "Answer with one box as [x1, y1, x2, y2], in pixels unless the question says otherwise.",
    "detection": "Answer with a list of boxes, each as [x1, y1, x2, y2], in pixels unless the question says otherwise.",
    "ocrtext": "Answer with the text exactly as it is written.",
    "html-code": "Answer with the complete HTML document.",
    "svg-code": "Answer with the complete SVG document.",
    "boolean": "Answer with yes or no.",
    "general-code": "Answer with Python code alone, in the form that the question asks for.",
}


@dataclass(frozen=True, slots=True)
class PromptConfig:
    """How prompts are worded; part of a run's configuration, the same for curation and training."""

    num_thinking_prompts: int = 1  # size of the pool in use; 1 is the recipe's own prompt for every sample
    format_guidance: bool = False  # append the line of FORMAT_GUIDANCE for the sample's answer type
    seed: int = 219  # of the choice of a thinking prompt per sample

    def __post_init__(self) -> None:
        if not 1 <= self.num_thinking_prompts <= len(THINKING_PROMPTS):
            raise ValueError(
                f"num_thinking_prompts: got {self.num_thinking_prompts}, wanted 1 to {len(THINKING_PROMPTS)}"
            )


DEFAULT_PROMPTS = PromptConfig()


def thinking_prompt(sample_id: str, config: PromptConfig = DEFAULT_PROMPTS) -> str:
    """The thinking instruction of a sample: the same for the same id and seed, in any process and order."""
    if config.num_thinking_prompts == 1:
        return THINKING_PROMPTS[0]
    digest = hashlib.sha256(f"{config.seed}:{sample_id}".encode()).digest()
    return THINKING_PROMPTS[int.from_bytes(digest[:8], "big") % config.num_thinking_prompts]


def render_problem(
    problem: str,
    prompt_type: str,
    problem_type: str = "",
    answer_type: str = "",
    *,
    sample_id: str = "",
    config: PromptConfig = DEFAULT_PROMPTS,
) -> str:
    """The problem followed by its instruction on a new line; image marks stay where they are.

    Raises ``ValueError`` for an unknown prompt type.

    >>> render_problem("<image>Which digit is this?", "answer")
    '<image>Which digit is this?\\nPut ONLY your final answer within <answer></answer>.'
    """
    if prompt_type not in PROMPT_TYPES:
        raise ValueError(f"sample {sample_id}: prompt_type is {prompt_type!r}, wanted one of {PROMPT_TYPES}")
    instructions = []
    if config.format_guidance and answer_type in FORMAT_GUIDANCE:
        instructions.append(FORMAT_GUIDANCE[answer_type])
    if prompt_type == "think":
        instructions.append(thinking_prompt(sample_id, config))
        if problem_type == SPATIAL_PROBLEM_TYPE:
            instructions.append(SPATIAL_SUFFIX)
    else:
        instructions.append(ANSWER_PROMPT)
    return f"{problem}\n{' '.join(instructions)}"


def to_messages(sample: Sample, config: PromptConfig = DEFAULT_PROMPTS) -> list[dict]:
    """Chat messages of a sample: one user turn of ``{"type": "image"}`` and ``{"type": "text", "text":
    ...}`` parts.

    Raises ``ValueError`` when the number of image marks differs from the number of images.
    """
    num_marks = sample.problem.count(IMAGE_MARK)
    if num_marks != len(sample.images):
        raise ValueError(
            f"sample {sample.id}: {num_marks} {IMAGE_MARK} marks but {len(sample.images)} images"
        )
    text = render_problem(
        sample.problem,
        sample.prompt_type,
        sample.problem_type,
        sample.answer_type,
        sample_id=sample.id,
        config=config,
    )
    parts: list[dict] = []
    for position, piece in enumerate(text.split(IMAGE_MARK)):
        if position > 0:
            parts.append({"type": "image"})
        if piece:
            parts.append({"type": "text", "text": piece})
    return [{"role": "user", "content": parts}]
