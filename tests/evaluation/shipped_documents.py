"""Three synthetic documents for every benchmark, in the columns that its task's own functions read, with answers.

`write` lays them out as the Hub does (`owner/name/CONFIG/SPLIT.parquet` with a card), so that the shipped task files
find them unchanged: another data set, configuration, split or column in a new lmms-eval is a test that fails. The
first pixel of an image says which document it belongs to; that is how the scripted model knows what it is asked.
"""

import base64
import io
from dataclasses import dataclass, field

from PIL import Image

SIZE = 56
LETTERS = {"A": "a fox", "B": "a hen", "C": "an owl", "D": "a cat"}
OPTIONS = list(LETTERS.values())
RIGHT, WRONG = True, False


@dataclass
class Documents:
    """One data set. `answers[i]` is what a model that is right (two of three are) or wrong writes for row i."""

    path: str
    split: str
    rows: list
    answers: list
    config: str = "default"
    points: float = 100 * 2 / 3  # what the benchmark's own score must come to, in either mode
    points_thinking: float | None = None
    images: tuple = ("image",)
    benchmarks: tuple = field(default_factory=tuple)


def picture(number, document):
    """An image whose first pixel is (number of the data set, number of the document, 7)."""
    image = Image.new("RGB", (SIZE, SIZE), (250, 250, 250))
    image.putpixel((0, 0), (number, document, 7))
    return image


def encoded(image):
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def three(**columns):
    """Three rows; a list gives a value per row, anything else stands in all."""
    return [
        {key: value[i] if isinstance(value, tuple) else value for key, value in columns.items()}
        for i in range(3)
    ]


def mmbench(config, benchmark):
    rows = three(
        index=(0, 1, 2), question="Which animal?", hint="nan", answer=("A", "B", "C"), **LETTERS, category="object",
        **{"L2-category": "perception"}, source="made", split="dev", comment="")  # fmt: skip
    return Documents(
        "lmms-lab-encoder/MMBench", "dev", rows, ["A", "B", "A"], config, benchmarks=(benchmark,)
    )


def mme_realworld(name, benchmark):
    rows = three(
        index=(0, 1, 2), question="Which animal?", answer=("A", "B", "C"), category="Perception/Remote Sensing",
        **{"multi-choice options": [f"({k}) {v}" for k, v in LETTERS.items()], "l2-category": "count"})  # fmt: skip
    return Documents(
        f"yifanzhang114/{name}", "train", rows, ["A", "B", "A"], images=(), benchmarks=(benchmark,)
    )


def mmmu_rows(**columns):
    return three(
        question="What is in <image 1>?",
        options=str(OPTIONS),
        answer=("A", "B", "C"),
        subject="Accounting",
        **columns,
    )


TWO_OF_THREE = ["A", "B", "A"]
SPLIT_OF_MATHVISTA = {
    "split": "testmini", "language": "english", "source": "made", "category": "math", "task": "vqa", "context": "chart",
    "grade": "high school", "skills": ["arithmetic"]}  # fmt: skip
ALL = [
    Documents(
        "Lin-Chen/MMStar", "val",
        three(index=(0, 1, 2), question="Which? A: fox, B: hen, C: owl, D: cat", answer=("A", "B", "C"),
              category="math", l2_category="geometry"),
        TWO_OF_THREE, benchmarks=("mmstar",)),
    mmbench("en", "mmbench_en"),
    mmbench("cn", "mmbench_cn"),
    mme_realworld("MME-RealWorld-Lmms-eval", "mme_realworld_en"),
    mme_realworld("MME-RealWorld-CN-Lmms-eval", "mme_realworld_cn"),
    Documents(
        "lmms-lab-encoder/SEED-Bench", "test",
        three(question="Which animal?", choice_a="a fox", choice_b="a hen", choice_c="an owl", choice_d="a cat",
              answer=("A", "B", "C"), data_type="image", question_id=("0", "1", "2")),
        TWO_OF_THREE, images=(["image"],), benchmarks=("seedbench",)),
    Documents(
        "nyu-visionx/CV-Bench", "test",
        three(idx=(0, 1, 2), prompt="Which? (A) fox (B) hen (C) owl", question="Which?", choices=OPTIONS[:3],
              answer=("(A)", "(B)", "(C)"), type="2D", task="Count", source=("ADE20K", "COCO", "Omni3D")),
        TWO_OF_THREE, benchmarks=("cv_bench",)),
    Documents(
        "doolayer/SEED-Bench-2-Plus", "test",
        three(question="Which animal?", choice_A="a fox", choice_B="a hen", choice_C="an owl", choice_D="a cat",
              answer=("A", "B", "C"), question_image_type=("chart", "map", "web"), question_id=("0", "1", "2")),
        TWO_OF_THREE, benchmarks=("seedbench_2_plus",)),
    Documents(
        "lmms-lab-encoder/RealWorldQA", "test",
        three(question="Which way? A. left B. right C. ahead", answer=("A", "B", "3")),
        ["A", "B", "4"], benchmarks=("realworldqa",)),
    Documents(
        "AI4Math/MathVista", "testmini",
        three(pid=("1", "2", "3"), question="How many?", image="i.png", choices=([], [], ["x", "y"]), unit="",
              precision=1.0, answer=("3", "4", "x"), question_type=("free_form", "free_form", "multi_choice"),
              answer_type=("integer", "integer", "text"), metadata=SPLIT_OF_MATHVISTA, query="How many?"),
        ["3", "4", "B"], images=("decoded_image",), benchmarks=("mathvista",)),
    Documents(  # one problem of two steps and the whole; the second step is wrong, the whole right: mastered, loosely
        "We-Math/We-Math", "testmini",
        three(ID="1", split="testmini", question="Which?", option="A. 1; B. 2; C. 3", answer=("A", "B", "C"),
              key=("2steps_1", "2steps_2", "2steps_multi"),
              **{"knowledge concept": "area", "question number": 1, "knowledge concept description": "area"}),
        ["A", "C", "C"], points=100.0, images=("image_path",), benchmarks=("wemath",)),
    Documents(
        "MathLLMs/MathVision", "test",
        three(id=("1", "2", "3"), question="How much?", options=([], ["1", "2"], []), image="i.png",
              answer=("\\frac{1}{2}", "B", "7"), solution="", level=1, subject="algebra"),
        ["0.5", "B", "8"], images=("decoded_image",), benchmarks=("mathvision",)),
    Documents(
        "lmms-lab-encoder/MMMU", "validation",
        [row | {"id": f"validation_Accounting_{i}", "question_type": kind, "answer": answer,
                "options": str(OPTIONS) if kind == "multiple-choice" else "[]"}
         for i, (row, kind, answer) in enumerate(zip(
             mmmu_rows(), ("multiple-choice", "open", "multiple-choice"), ("A", "12", "C"), strict=True))],
        ["A", "12", "A"], images=("image_1",), benchmarks=("mmmu_val",)),
    Documents(
        "MMMU/MMMU_Pro", "test", mmmu_rows(id=("test_1", "test_2", "test_3")), TWO_OF_THREE,
        "standard (10 options)", images=("image_1",), benchmarks=("mmmu_pro_standard",)),
    Documents(
        "MMMU/MMMU_Pro", "test",
        three(id=("test_1", "test_2", "test_3"), options=str(OPTIONS), answer=("A", "B", "C"), subject="Art"),
        TWO_OF_THREE, "vision", benchmarks=("mmmu_pro_vision",)),
    Documents(
        "lmms-lab-encoder/ChartQA", "test",
        three(type=("human_test", "augmented_test", "human_test"), question="How much?", answer=("12", "Yes", "40")),
        ["12.3", "yes", "50"], benchmarks=("chartqa",)),
    Documents(  # three figures, each asked four times
        "princeton-nlp/CharXiv", "validation",
        three(figure_path=("f0", "f1", "f2"), subplot_loc=None, subplot_row=0, subplot_col=0, num_subplots=1,
              reasoning_q="Which?", reasoning_a="A", reasoning_q_source=1,
              **{f"descriptive_q{i}": i for i in (1, 2, 3, 4)},
              **{f"descriptive_a{i}": ("left", "right", "up") for i in (1, 2, 3, 4)}),
        ["left", "right", "down"], benchmarks=("charxiv_dq",)),
    Documents(
        "lmms-lab-encoder/DocVQA", "validation",
        three(questionId=("0", "1", "2"), question="Which year?", question_types=["x"], docId=(5, 5, 6),
              answers=(["1999"], ["2001"], ["2003"])),
        ["1999", "2001", "no"], "DocVQA", benchmarks=("docvqa",)),
    Documents(
        "echo840/OCRBench", "test",
        three(dataset="IIIT5K", question="What is written?", question_type="Regular Text Recognition",
              answer=(["FOX"], ["HEN"], ["OWL"])),
        ["FOX", "HEN", "CAT"], points=0.2, points_thinking=100 * 2 / 3, benchmarks=("ocrbench",)),  # of 1,000
    Documents(
        "lmms-lab-encoder/ai2d", "test",
        three(question="Which animal?", options=OPTIONS, answer=("0", "1", "2")), ["A", "B", "A"],
        benchmarks=("ai2d",)),
    Documents(
        "Efficient-Large-Model/ai2d-no-mask", "test",
        three(question="Which animal?", options=OPTIONS, answer=("0", "1", "2")), ["A", "B. a hen", "A"],
        benchmarks=("ai2d_no_mask",)),
    Documents(
        "lmms-lab-encoder/DocVQA", "validation",
        three(questionId=("0", "1", "2"), question="Which year?", image_url="http://x/1",
              answers=(["1999"], ["2001"], ["2003"])),
        ["1999", "2001", "no"], "InfographicVQA", benchmarks=("infovqa",)),
    Documents(
        "kcz358/pixmo-count", "test", three(question="<image>How many dots?", answer=("3", "4", "5")), ["3", "4", "6"],
        benchmarks=("pixmo_count",)),
    Documents(
        "vikhyatk/CountBenchQA", "test", three(question="How many dots?", number=(3, 4, 5)), ["3", "4", "6"],
        benchmarks=("countbench",)),
    Documents(  # equal lengths of the two responses: the order is kept, and ranking [0, 1] makes the first the better
        "MMInstruction/VL-RewardBench", "test",
        three(id=("RLAIF-V-1", "RLAIF-V-2", "RLAIF-V-3"), query="Which?", response=["fox", "hen"],
              human_ranking=([0, 1], [1, 0], [0, 1])),
        ["Answer 1", "Answer 2", "Answer 2"], benchmarks=("vl_rewardbench",)),
    Documents(
        "lmms-lab-encoder/vstar-bench", "test",
        three(text="Which? (A) fox (B) hen (C) owl (D) cat", category="direct_attributes", label=("A", "B", "C"),
              question_id=("0", "1", "2")),
        TWO_OF_THREE, benchmarks=("vstar",)),
]  # fmt: skip


def by_benchmark():
    """benchmark -> its documents."""
    return {name: documents for documents in ALL for name in documents.benchmarks}


def write(root):
    """All data sets below `root`, as on the Hub."""
    import datasets
    import yaml

    cards = {}
    for number, documents in enumerate(ALL):
        rows = []
        for position, row in enumerate(documents.rows):
            image = picture(number, position)
            row = dict(row)  # noqa: PLW2901
            for column in documents.images:
                if isinstance(column, list):
                    row[column[0]] = [image]
                else:
                    row[column] = image
            if not documents.images:
                row["bytes"] = base64.b64encode(encoded(image)).decode()
            rows.append(row)
        folder = root / documents.path / documents.config
        folder.mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_list(rows)
        for column in documents.images:
            name = column[0] if isinstance(column, list) else column
            feature = datasets.Image()
            table = table.cast_column(name, datasets.List(feature) if isinstance(column, list) else feature)
        table.to_parquet(folder / f"{documents.split}.parquet")
        cards.setdefault(documents.path, []).append(
            {
                "config_name": documents.config,
                "data_files": [
                    {"split": documents.split, "path": f"{documents.config}/{documents.split}.parquet"}
                ],
            }
        )
    for path, configs in cards.items():
        (root / path / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
