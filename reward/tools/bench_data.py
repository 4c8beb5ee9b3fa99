"""Synthetic rollouts for the benchmark: prompts of each answer type with G completions of mixed quality.

The content is made up, the sizes are those of the recipe's data: thinking of a few hundred words, drawings of some
forty elements, pages of six thousand characters, long texts of two thousand.
"""

import random
from typing import NamedTuple

GROUP = 16

# Prompts per answer type in a step of 32 prompts x 16 rollouts = 512 trajectories. There is no general-code in the
# recipe's sources; it is timed on its own.
STEP_MIX = {
    "math-expressions": 9,
    "multiple-choice": 6,
    "number": 5,
    "bbox": 3,
    "ocrtext": 3,
    "html-code": 2,
    "svg-code": 2,
    "boolean": 1,
    "any": 1,
}


class Prompt(NamedTuple):
    """One prompt with its rollouts."""

    answer_type: str
    answer: str
    completions: list[str]


def make_prompt(kind: str, seed: int) -> Prompt:
    """A prompt of an answer type (or of `ocrtext-long`) with 16 rollouts; the same for the same seed."""
    source = random.Random(f"{kind}-{seed}")
    answer, candidates = _ANSWERS[kind](source)
    rollouts = [_thinking(source) + f"<answer>{source.choice(candidates)}</answer>" for _ in range(GROUP)]
    return Prompt(kind.removesuffix("-long"), answer, rollouts)


def make_step(seed: int) -> list[Prompt]:
    """The prompts of one step, in random order."""
    prompts = [make_prompt(kind, seed * 100 + i) for kind, count in STEP_MIX.items() for i in range(count)]
    random.Random(seed).shuffle(prompts)
    return prompts


def _words(source: random.Random, count: int) -> list[str]:
    return ["".join(source.choices("abcdefghilmnoprstu", k=source.randint(2, 9))) for _ in range(count)]


def _thinking(source: random.Random) -> str:
    return f"<think>{' '.join(_words(source, 250))}</think>"


def _math(source: random.Random) -> tuple[str, list[str]]:
    a, b, c = (source.randint(2, 19) for _ in range(3))
    answer = source.choice(
        [rf"\frac{{{a}\sqrt{{{b}}}}}{{{c}}}", rf"x^{{2}}+{a}x-{b}", rf"\left({a},{b}\right)", f"{a}/{b}"]
    )
    return answer, [
        answer,
        answer,
        answer.replace(str(a), str(a + 1)),
        rf"{b}+\sqrt{{{a}}}",
        f"{c}.5",
        f"x={answer}",
    ]


def _letter(source: random.Random) -> tuple[str, list[str]]:
    answer = source.choice("ABCD")
    return answer, ["A", "(B)", "C.", "The answer is D", f"**{answer}**"]


def _number(source: random.Random) -> tuple[str, list[str]]:
    answer = source.randint(1, 4000)
    return str(answer), [str(answer), f"{answer:,}", f"{answer}.0", f"{answer + 1} cm", f"${answer}$"]


def _box(source: random.Random) -> tuple[str, list[str]]:
    x, y = source.randint(0, 500), source.randint(0, 500)
    boxes = [[x + d, y + d, x + 120 + d, y + 90] for d in (0, 3, 10, 60)]
    return str(boxes[0]), [str(box) for box in boxes]


def _text(source: random.Random, num_words: int) -> tuple[str, list[str]]:
    words = _words(source, num_words)
    candidates = [" ".join(words)]
    for changes in (1, 3, 10):
        copy = list(words)
        for _ in range(max(1, changes * num_words // 100)):
            copy[source.randrange(num_words)] = source.choice(words)
        candidates.append(" ".join(copy))
    return candidates[0], candidates


def _page(source: random.Random) -> tuple[str, list[str]]:
    def page(num_cards: int) -> str:
        cards = "".join(
            f'<div class="card c{i}"><h2>{" ".join(_words(source, 4))}</h2><p>{" ".join(_words(source, 20))}</p>'
            f'<a href="#{i}"><img src="i{i}.png" width="{source.randint(9, 99)}"></a></div>'
            for i in range(num_cards)
        )
        style = ".card{margin:4px;color:#223344} h2{font-size:20px}"
        return f"<!DOCTYPE html><html><head><style>{style}</style></head><body>{cards}</body></html>"

    answer = page(24)
    return answer, [answer, answer[: len(answer) // 2], page(24), answer.replace("card", "box")]


def _drawing(source: random.Random) -> tuple[str, list[str]]:
    def shape() -> str:
        x, y, r = (source.randint(5, 190) for _ in range(3))
        color = f"#{source.randrange(1 << 24):06x}"
        return source.choice(
            [
                f'<circle cx="{x}" cy="{y}" r="{r // 5}" fill="{color}" opacity="0.8"/>',
                f'<rect x="{x}" y="{y}" width="{r // 3}" height="{r // 4}" rx="3" fill="{color}"/>',
                f'<path d="M{x} {y} L{y} {r} Q{r} {x} {y} {y} C{x} {r} {r} {x} {x} {x} Z" stroke="{color}"/>',
            ]
        )

    def drawing(shapes: list[str]) -> str:
        head = '<svg xmlns="http://www.w3.org/2000/svg" width="200" height="200" viewBox="0 0 200 200">'
        return head + "".join(shapes) + "</svg>"

    shapes = [shape() for _ in range(40)]
    # Rollouts differ from each other and from the reference, as sampled ones do.
    variants = [drawing(shapes[: source.randint(20, 39)] + [shape() for _ in range(5)]) for _ in range(12)]
    return drawing(shapes), [*variants, variants[0][:-300]]


def _boolean(source: random.Random) -> tuple[str, list[str]]:
    return source.choice(["yes", "no"]), ["yes", "No.", "true", "not sure"]


def _exact(source: random.Random) -> tuple[str, list[str]]:
    words = _words(source, 3)
    return words[0], words


def _code(source: random.Random) -> tuple[str, list[str]]:
    tests = [{"stdin": f"{i} {i + 1}\n", "stdout": f"{2 * i + 1}\n"} for i in range(5)]
    right = "a, b = map(int, input().split())\nprint(a + b)"
    return str({"tests": tests}).replace("'", '"').replace("\\\\n", "\\n"), [right, right.replace("+", "-")]


_ANSWERS = {
    "math-expressions": _math,
    "multiple-choice": _letter,
    "number": _number,
    "bbox": _box,
    "ocrtext": lambda source: _text(source, 25),
    "ocrtext-long": lambda source: _text(source, 300),
    "html-code": _page,
    "svg-code": _drawing,
    "boolean": _boolean,
    "any": _exact,
    "general-code": _code,
}
