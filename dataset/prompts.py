"""Every prompt text of the project and its place. Training, curation, warm start and evaluation render through here.

The two instructions are those of the LLaVA-OneVision-1.5-RL recipe; the other thinking prompts ask for the
same two tags in other words (V-Triune samples from a pool of such prompts so that the skill does not hang on
one wording).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from dataset.agent.registry import get_tool
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
SPATIAL_REQUEST = "First give the (x, y, x, y) coordinates of each object that matters for the question."
RELEASE_SYSTEM = "You are a helpful AI assistant."
TOOLS_PROMPT = (
    "Before you answer you may call tools, one a turn: "
    '<tool_call>{"name": NAME, "arguments": {...}}</tool_call>. Tools:'
)
LAYOUTS = (
    "recipe",
    "release",
)  # the instruction behind the problem; as the public release: before it, see `frame`
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

    layout: str = "recipe"  # one of LAYOUTS
    num_thinking_prompts: int = 1  # size of the pool in use; 1 is the recipe's own prompt for every sample
    format_guidance: bool = False  # append the line of FORMAT_GUIDANCE for the sample's answer type
    seed: int = 219  # of the choice of a thinking prompt per sample
    # of a conversation (dataset/agent), for samples whose spec names none; None: there is none, whatever a spec names
    tools: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.tools is not None:
            object.__setattr__(self, "tools", tuple(self.tools))
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout: got {self.layout!r}, wanted one of {', '.join(LAYOUTS)}")
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


def tools_prompt(names: Sequence[str]) -> str:
    """What the prompt says of the tools that may be called. Raises ``ValueError`` for an unknown name."""
    return "\n".join([TOOLS_PROMPT, *(f"- {get_tool(name).description}" for name in names)])


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around a problem."""

    system: str | None  # None: the chat template's own
    before: str
    after: str

    @property
    def messages(self) -> list[dict]:
        """Those that come before the user's turn."""
        if self.system is None:
            return []
        return [{"role": "system", "content": [{"type": "text", "text": self.system}]}]


def frame(
    prompt_type: str,
    problem_type: str = "",
    answer_type: str = "",
    *,
    sample_id: str = "",
    config: PromptConfig = DEFAULT_PROMPTS,
    tools: Sequence[str] | None = None,
) -> Frame:
    """The instruction in its place. `recipe`: behind the problem on a line of its own; guidance comes first, and a
    spatial problem asks for coordinates where the model is to think. `release`: a system message, and before the
    problem the instruction, guidance, and for any spatial problem the request for coordinates. Tools (`tools`, or those
    of `config`) are described behind the instruction, on lines of their own.

    Raises ``ValueError`` for an unknown prompt type.
    """
    if prompt_type not in PROMPT_TYPES:
        raise ValueError(f"sample {sample_id}: prompt_type is {prompt_type!r}, wanted one of {PROMPT_TYPES}")
    is_thinking, is_spatial = prompt_type == "think", problem_type == SPATIAL_PROBLEM_TYPE
    instruction = thinking_prompt(sample_id, config) if is_thinking else ANSWER_PROMPT
    guidance = (
        [FORMAT_GUIDANCE[answer_type]] if config.format_guidance and answer_type in FORMAT_GUIDANCE else []
    )
    names = config.tools if tools is None else tools
    described = "\n" + tools_prompt(names) if names else ""
    if config.layout == "release":
        request = [SPATIAL_REQUEST] if is_spatial else []
        return Frame(RELEASE_SYSTEM, " ".join([instruction, *guidance, *request]) + described + "\n", "")
    request = [SPATIAL_SUFFIX] if is_spatial and is_thinking else []
    return Frame(None, "", "\n" + " ".join([*guidance, instruction, *request]) + described)


def render_problem(sample: Sample, config: PromptConfig = DEFAULT_PROMPTS) -> str:
    """The user's turn as text: the problem, image marks where they are, within its `frame`.

    >>> render_problem(sample_of("<image>Which digit is this?"))
    '<image>Which digit is this?\\nPut ONLY your final answer within <answer></answer>.'
    """
    around = _frame_of(sample, config)
    return f"{around.before}{sample.problem}{around.after}"


def to_messages(sample: Sample, config: PromptConfig = DEFAULT_PROMPTS) -> list[dict]:
    """Chat messages of a sample: the layout's system message, if it has one, and one user turn of ``{"type": "image"}``
    and ``{"type": "text", "text": ...}`` parts.

    Raises ``ValueError`` when the number of image marks differs from the number of images.
    """
    num_marks = sample.problem.count(IMAGE_MARK)
    if num_marks != len(sample.images):
        raise ValueError(
            f"sample {sample.id}: {num_marks} {IMAGE_MARK} marks but {len(sample.images)} images"
        )
    parts: list[dict] = []
    for position, piece in enumerate(render_problem(sample, config).split(IMAGE_MARK)):
        if position > 0:
            parts.append({"type": "image"})
        if piece:
            parts.append({"type": "text", "text": piece})
    return [*_frame_of(sample, config).messages, {"role": "user", "content": parts}]


def _frame_of(sample: Sample, config: PromptConfig) -> Frame:
    return frame(
        sample.prompt_type,
        sample.problem_type,
        sample.answer_type,
        sample_id=sample.id,
        config=config,
        tools=None if config.tools is None else (sample.spec or {}).get("tools"),
    )
