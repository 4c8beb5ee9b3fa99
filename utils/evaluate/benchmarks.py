"""The benchmarks of the recipe's table, and the task of lmms-eval 0.7.3 that measures each in either mode.

`fast` is the task as it is usually run. `thinking` is lmms-eval's reasoning variant where there is one: it reads the
answer out of <answer></answer> behind <think></think>, which is how these models were trained to write. Three variants
of 0.7.3 do not fit, and the task itself is used in both modes: RealWorldQA's lowers the reference ("a") and not the
answer, ChartQA's allows no 5 %, and MathVision's finds no LaTeX in its references, so that 0.5 is not \\frac{1}{2}.
Files are named as they lie below `lmms_eval/tasks`; `python -m utils.evaluate list` prints this table.
"""

from __future__ import annotations

from dataclasses import dataclass

REASONING = "acc_score"  # what most reasoning variants call their accuracy


@dataclass(frozen=True)
class Task:
    """One task file of lmms-eval and the metric to report: `scale` is what stands in the results for a perfect run."""

    file: str
    metric: str
    scale: float = 1.0

    @property
    def is_reasoning(self) -> bool:
        """Whether the task reads <think> and <answer> itself."""
        return "reasoning/" in self.file


@dataclass(frozen=True)
class Benchmark:
    """One line of the table. Published numbers are those of the project page for 8B: before, thinking, fast."""

    name: str
    title: str
    group: str
    fast: Task
    thinking: Task
    published: tuple[float, float, float]
    cluster: str | None = None  # column that says which samples share a document
    judge: bool = False  # may ask a model of OpenAI's interface to read an answer
    is_gated: bool = False  # known to fall in thinking mode

    def task(self, mode: str) -> Task:
        return {"fast": self.fast, "thinking": self.thinking}[mode]


GENERAL, REASON, CHART, OTHER = "General VQA", "Reasoning", "OCR & Chart", "Others"
ROWS = (
    Benchmark(
        "mmstar", "MMStar", GENERAL,
        Task("mmstar/mmstar.yaml", "average"),
        Task("mmstar/reasoning/mmstar_reasoning.yaml", REASONING), (67.7, 68.2, 68.3)),
    Benchmark(
        "mmbench_en", "MMBench (en)", GENERAL,
        Task("mmbench/mmbench_en_dev.yaml", "gpt_eval_score", 100),
        Task("mmbench/reasoning/mmbench_en_dev_reasoning.yaml", REASONING), (84.1, 85.7, 85.7), judge=True),
    Benchmark(
        "mmbench_cn", "MMBench (cn)", GENERAL,
        Task("mmbench/mmbench_cn_dev.yaml", "gpt_eval_score", 100),
        Task("mmbench/reasoning/mmbench_cn_dev_reasoning.yaml", REASONING), (81.0, 84.2, 81.5), judge=True),
    Benchmark(
        "mme_realworld_en", "MME-RealWorld (en)", GENERAL,
        Task("mme_realworld/mme_realworld.yaml", "mme_realworld_score"),
        Task("mme_realworld/reasoning/mme_realworld_reasoning.yaml", REASONING), (61.7, 63.4, 63.3)),
    Benchmark(
        "mme_realworld_cn", "MME-RealWorld (cn)", GENERAL,
        Task("mme_realworld/mme_realworld_cn.yaml", "mme_realworld_score"),
        Task("mme_realworld/reasoning/mme_realworld_cn_reasoning.yaml", REASONING), (56.1, 56.1, 56.3)),
    Benchmark(
        "seedbench", "SeedBench (image)", GENERAL,
        Task("seedbench/seedbench.yaml", "seed_image"),
        Task("seedbench/reasoning/seedbench_reasoning.yaml", "seed_image_acc_score"), (77.3, 76.7, 77.6)),
    Benchmark(
        "cv_bench", "CV-Bench", GENERAL,
        Task("cv_bench/cv_bench.yaml", "cv_bench_acc"),
        Task("cv_bench/reasoning/cv_bench_reasoning.yaml", "cv_bench_acc_score"), (80.7, 82.9, 81.1)),
    Benchmark(
        "seedbench_2_plus", "SEED-Bench-2-Plus", GENERAL,
        Task("seedbench_2_plus/seedbench_2_plus.yaml", "seedbench_2_plus_all"),
        Task("seedbench_2_plus/reasoning/seedbench_2_plus_reasoning.yaml", "seedbench_2_plus_all_acc_score"),
        (69.2, 69.5, 69.2)),
    Benchmark(
        "realworldqa", "RealWorldQA", GENERAL,
        Task("realworldqa/realworldqa.yaml", "exact_match"),
        Task("realworldqa/realworldqa.yaml", "exact_match"), (68.1, 68.4, 70.6)),
    Benchmark(
        "mathvista", "MathVista (mini)", REASON,
        Task("mathvista/mathvista_testmini_format.yaml", "llm_as_judge_eval", 100),
        Task("mathvista/reasoning/mathvista_testmini_cot.yaml", REASONING), (69.6, 72.3, 71.8), judge=True),
    Benchmark(
        "wemath", "WeMath", REASON,
        Task("wemath/reasoning/wemath_testmini_thinking.yaml", "wemath_loose"),
        Task("wemath/reasoning/wemath_testmini_thinking.yaml", "wemath_loose"),
        (61.5, 69.4, 60.8), cluster="ID"),
    Benchmark(
        "mathvision", "MathVision", REASON,
        Task("mathvision/mathvision_test.yaml", "mathvision_standard_eval", 100),
        Task("mathvision/mathvision_test.yaml", "mathvision_standard_eval", 100), (25.6, 34.4, 26.2)),
    Benchmark(
        "mmmu_val", "MMMU (val)", REASON,
        Task("mmmu/mmmu_val.yaml", "mmmu_acc"),
        Task("mmmu/reasoning/mmmu_val_reasoning.yaml", REASONING), (55.4, 58.8, 54.9)),
    Benchmark(
        "mmmu_pro_standard", "MMMU-Pro (standard)", REASON,
        Task("mmmu_pro/mmmu_pro_standard.yaml", "mmmu_acc"),
        Task("mmmu_pro/reasoning/mmmu_pro_standard_cot.yaml", REASONING), (37.4, 39.9, 38.0)),
    Benchmark(
        "mmmu_pro_vision", "MMMU-Pro (vision)", REASON,
        Task("mmmu_pro/mmmu_pro_vision.yaml", "mmmu_acc"),
        Task("mmmu_pro/reasoning/mmmu_pro_vision_cot.yaml", REASONING), (25.2, 35.7, 29.0)),
    Benchmark(
        "chartqa", "ChartQA", CHART,
        Task("chartqa/chartqa.yaml", "relaxed_overall"),
        Task("chartqa/chartqa.yaml", "relaxed_overall"), (86.5, 87.4, 87.0)),
    Benchmark(
        "charxiv_dq", "CharXiv (DQ)", CHART,
        Task("charxiv/charxiv_val_descriptive.yaml", "descriptive_acc"),
        Task("charxiv/reasoning/charxiv_val_descriptive.yaml", REASONING),
        (70.9, 68.4, 71.2), cluster="figure_path", judge=True, is_gated=True),
    Benchmark(
        "docvqa", "DocVQA", CHART,
        Task("docvqa/docvqa_val.yaml", "anls"),
        Task("docvqa/reasoning/docvqa_val_reasoning.yaml", "anls"),
        (95.0, 91.9, 95.0), cluster="docId", is_gated=True),
    Benchmark(
        "ocrbench", "OCRBench", CHART,
        Task("ocrbench/ocrbench.yaml", "ocrbench_accuracy"),
        Task("ocrbench/reasoning/ocrbench_reasoning.yaml", "ocrbench_accuracy_acc_score"), (82.9, 81.7, 82.3)),
    Benchmark(
        "ai2d", "AI2D (w M)", CHART,
        Task("ai2d/ai2d.yaml", "exact_match"),
        Task("ai2d/reasoning/ai2d_reasoning.yaml", REASONING), (84.2, 83.7, 84.3)),
    Benchmark(
        "ai2d_no_mask", "AI2D (w/o M)", CHART,
        Task("ai2d/ai2d_no_mask.yaml", "exact_match"),
        Task("ai2d/ai2d_no_mask.yaml", "exact_match"), (94.1, 93.7, 93.9)),
    Benchmark(
        "infovqa", "InfoVQA", CHART,
        Task("infovqa/infovqa_val.yaml", "anls"),
        Task("infovqa/reasoning/infovqa_val_reasoning.yaml", "anls"),
        (78.4, 76.6, 78.7), cluster="image_url"),
    Benchmark(
        "pixmo_count", "PixmoCount", OTHER,
        Task("pixmo_count/pixmo_count.yaml", "acc"),
        Task("pixmo_count/reasoning/pixmo_count_reasoning.yaml", REASONING), (62.2, 65.7, 71.1)),
    Benchmark(
        "countbench", "CountBench", OTHER,
        Task("countbench/countbench.yaml", "acc"),
        Task("countbenchqa/reasoning/countbenchqa_reasoning.yaml", REASONING), (88.2, 86.8, 88.6)),
    Benchmark(
        "vl_rewardbench", "VL-RewardBench", OTHER,
        Task("vl_rewardbench/vl_rewardbench.yaml", "vlreward_score"),
        Task("vl_rewardbench/vl_rewardbench.yaml", "vlreward_score"),
        (47.7, 44.0, 49.7), judge=True, is_gated=True),
    Benchmark(
        "vstar", "V*", OTHER,
        Task("vstar_bench/vstar_bench.yaml", "vstar_overall_acc", 100),
        Task("vstar_bench/reasoning/vstar_bench_reasoning.yaml", "vstar_overall_acc_score"), (78.0, 79.1, 78.0)),
)  # fmt: skip
BENCHMARKS = {row.name: row for row in ROWS}
GROUPS = tuple(dict.fromkeys(row.group for row in ROWS))


def listing() -> str:
    """The table as text: name here, name on the project page, task per mode, published numbers."""
    lines = [f"{'name':<20}{'benchmark':<22}{'fast':<42}{'thinking':<56}{'published'}"]
    lines += [
        f"{row.name:<20}{row.title:<22}{row.fast.file:<42}{row.thinking.file:<56}"
        + " ".join(f"{value:.1f}" for value in row.published)
        + (" (judge)" if row.judge else "")
        for row in ROWS
    ]
    return "\n".join(lines)
