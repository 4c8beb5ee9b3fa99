"""Signs of reward hacking as plain numbers, counted over scored completions: what to look at when rewards rise.

Each trainer rank adds the completions it consumed in a step; merged over the ranks, `numbers()` gives the metrics.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

from reward.extract import answer_region
from reward.reading.references import reference_texts
from reward.types import RewardOutput
from reward.verifiers.multiple_choice import affirmed_letters

WHOLE_IMAGE_SHARE = 0.9  # a box over more of the image than this says nothing about where the object is
BLANK_MARGIN = 0.01  # a drawing whose SSIM beats an empty canvas by less than this draws nothing
_ANSWER_KEY_CHARS = 80


class RewardCounters:
    """Accumulates scored completions; every number it gives is finite, and a share lies in [0, 1]."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = defaultdict(_zero_sum)  # name -> [sum, count]
        self._answers: dict[str, Counter[str]] = defaultdict(Counter)
        self._given: Counter[str] = Counter()
        self._wanted: Counter[str] = Counter()

    def add(
        self, output: RewardOutput, completion: str, answer: str | Sequence[str], answer_type: str
    ) -> None:
        """Count one scored completion of a sample."""
        if output.status == "no_answer":
            self._mean("no_answer_reward", output.total)
        self._mean("several_answers", float(num_answers(completion) > 1))
        if output.extracted:
            key = " ".join(output.extracted[:_ANSWER_KEY_CHARS].casefold().split())
            self._answers[answer_type][key] += 1
        if answer_type == "multiple-choice":
            self._given.update(affirmed_letters((output.extracted or "")[:1000], {}))
            self._wanted.update(affirmed_letters(reference_texts(answer, answer_type)[0], {}))
        if "image_share" in output.parts:
            self._mean("whole_image_boxes", float(output.parts["image_share"] >= WHOLE_IMAGE_SHARE))
        if "blank_ssim" in output.parts:
            self._mean("blank_render_ssim", output.parts["blank_ssim"])
            self._mean("no_better_than_blank", float(output.parts["ssim_above_blank"] <= BLANK_MARGIN))

    def merge(self, other: "RewardCounters") -> None:
        """Add what another one counted; the result does not depend on how completions were dealt out."""
        for name, (total, count) in other._sums.items():
            self._sums[name][0] += total
            self._sums[name][1] += count
        for answer_type, answers in other._answers.items():
            self._answers[answer_type].update(answers)
        self._given.update(other._given)
        self._wanted.update(other._wanted)

    def numbers(self) -> dict[str, float]:
        """Every sign as `name -> number`; utils/metric_names.py explains each."""
        found = {name: total / count for name, (total, count) in self._sums.items()}
        for answer_type, answers in self._answers.items():
            found[f"constant_answer/{answer_type}"] = max(answers.values()) / answers.total()
        if self._given and self._wanted:
            found["option_position_bias"] = total_variation(self._given, self._wanted)
            for name, letters in (("options_chosen", self._given), ("options_correct", self._wanted)):
                found |= {f"{name}/{letter}": n / letters.total() for letter, n in sorted(letters.items())}
        return found

    def _mean(self, name: str, value: float) -> None:
        self._sums[name][0] += value
        self._sums[name][1] += 1.0


def _zero_sum() -> list[float]:
    return [0.0, 0.0]  # a named function, so that counters can be pickled between ranks


def num_answers(completion: str) -> int:
    """How many answers a completion offers outside of its thinking, in the convention that counts."""
    start, end = answer_region(completion)
    return completion.count("</answer>", start, end) or completion.count("\\boxed", start, end)


def total_variation(given: Counter[str], wanted: Counter[str]) -> float:
    """Half the summed difference of two distributions of option letters, in [0, 1]; 0 when they agree."""
    letters = given.keys() | wanted.keys()
    return 0.5 * sum(abs(given[c] / given.total() - wanted[c] / wanted.total()) for c in letters)
