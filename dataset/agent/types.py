"""The records of a conversation with tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# Everything that can go wrong with a call, or end a conversation early: each is counted under its name.
FAULTS = (
    "malformed_call",  # not one JSON object with a name and arguments, or cut off before </tool_call>
    "several_calls",  # more than one call in a turn
    "unknown_tool",
    "bad_arguments",  # a tool refuses what it is given
    "call_beside_answer",  # the turn answers and calls: the answer counts
    "repeated_call",  # the same call again, which is not run
    "too_many_images",  # a reply's image is left out
    "long_reply",  # a reply's text is cut
    "tool_timeout",  # its worker was killed
    "tool_crash",  # its worker died, or the tool has a bug
    "too_many_turns",  # a call in the last turn that is allowed
    "no_room",  # the budget of tokens is used up
)


class ToolError(ValueError):
    """The model asked for something that a tool does not do; the message goes to the model."""


class Tool(NamedTuple):
    """One tool.

    description: what the prompt says of it, one line.
    run(arguments, context): {"text": str, "images": [{"bytes", "region", "parent"}], "without_effect": bool}, every key
        optional; runs in a worker process that is killed at its deadline. Raises ToolError for what it refuses.
    terminal: its call ends the conversation: `run` is called in our own process and returns the final answer's text.
    wants_image: whether it gets the image that argument `image` (from 0) names.
    other_names: under which a model may know it.
    """

    description: str
    run: Callable[[Mapping[str, Any], Mapping[str, Any]], Any]
    terminal: bool = False
    wants_image: bool = False
    other_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class AgentSettings:
    """Section `agent` of a configuration: what a conversation may use, and where it ends.

    tools: names of `dataset.agent.registry`; a row's own `tools` in its spec come in their place. Empty: one turn.
    max_turns: turns of the model, the answer's among them.
    max_images: images that tools may add.
    max_tool_seconds: deadline of a call.
    max_tokens: everything behind the prompt: generated tokens, replies and their images.
    max_reply_chars: of a reply's text; what is longer is cut.
    corpus: what `search` looks into, see `dataset.agent.tools.search`.
    """

    tools: tuple[str, ...] = ()
    max_turns: int = 4
    max_images: int = 4
    max_tool_seconds: float = 5.0
    max_tokens: int = 4096
    max_reply_chars: int = 2000
    corpus: str | None = None


class Call(NamedTuple):
    """A well-formed call."""

    name: str  # of the registry
    arguments: Mapping[str, Any]


class Turn(NamedTuple):
    """How a turn of the model is to be read: a call, a fault that the model is told of, or (neither) the end."""

    call: Call | None = None
    fault: str | None = None  # of FAULTS
    message: str = ""  # to the model, where there is a fault


@dataclass
class Step:
    """One turn and what came back, for people, records and rewards."""

    text: str  # the model's
    call: Call | None = None
    fault: str | None = None
    reply: str | None = None  # None: the conversation ended here
    num_images: int = 0  # in the reply
    without_effect: bool = False  # the call succeeded and told the model nothing new
    num_tokens: int = 0  # generated

    def to_record(self) -> dict[str, Any]:
        """Plain data."""
        call = None if self.call is None else {"name": self.call.name, "arguments": dict(self.call.arguments)}
        return {
            "text": self.text,
            "call": call,
            "fault": self.fault,
            "reply": self.reply,
            "num_images": self.num_images,
            "without_effect": self.without_effect,
            "num_tokens": self.num_tokens,
        }


class Generated(NamedTuple):
    """What an engine returns for one turn; the lists are equally long."""

    tokens: list[int]
    logprobs: list[float]
    versions: list[int]
    stop_reason: str  # "stop" or "length"


@dataclass
class Trajectory:
    """What stands behind the prompt, token by token, and the story of it.

    `tokens`, `mask` (1: generated), `logprobs` (0.0 on replies), `versions` (-1 on replies) and `token_types` (1:
    image) are equally long. `images` are those of the replies, base64 PNG, in order; `pixel_values` and `grids` have an
    entry for each reply with images.
    """

    tokens: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    token_types: list[int] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    pixel_values: list[Any] = field(default_factory=list)
    grids: list[Any] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    completion: str = ""  # what the rewards judge
    truncated: bool = False  # cut off by a limit of tokens
    num_interruptions: int = 0  # turns that a weight update cut, counted once for each cut

    def add_generated(self, turn: Generated) -> None:
        """Append a turn of the model. Raises ValueError for lists of unequal length."""
        if not len(turn.tokens) == len(turn.logprobs) == len(turn.versions):
            raise ValueError(
                f"{len(turn.tokens)} tokens with {len(turn.logprobs)} log-probabilities and {len(turn.versions)} "
                "versions"
            )
        self.tokens += turn.tokens
        self.mask += [1] * len(turn.tokens)
        self.logprobs += turn.logprobs
        self.versions += turn.versions
        self.token_types += [0] * len(turn.tokens)
        self.num_interruptions += len(set(turn.versions)) - 1

    def add_reply(self, tokens: list[int], token_types: list[int]) -> None:
        """Append a tool's reply, which nothing is trained on."""
        self.tokens += tokens
        self.mask += [0] * len(tokens)
        self.logprobs += [0.0] * len(tokens)
        self.versions += [-1] * len(tokens)
        self.token_types += token_types
