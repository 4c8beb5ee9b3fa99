"""Every source reads a fixture in its published layout through the real loading code."""

import io
from pathlib import Path

import pytest
from PIL import Image

from dataset.sources import SOURCES, BadRow, Context, Location, SourceError, check_columns, get_source
from dataset.sources.base import letter_of, options_in
from dataset.sources.generic import read_column_map
from dataset.sources.reading import read_hub, read_rows, split_of

FIXTURES = Path(__file__).parents[1] / "fixtures" / "sources"

# source -> (path below FIXTURES, split, config, number of good samples, reasons of the bad rows)
LAYOUTS = {
    "virl39k": ("virl39k", "train", None, 4, ["image-marks", "bad-reference"]),
    "ref_l4": ("ref_l4", "val", None, 3, ["bad-reference"]),
    "vigorl_sa": ("vigorl", "train", None, 2, ["bad-reference"]),
    "vigorl_sat": ("vigorl", "train", None, 3, []),
    "vigorl_turns": ("vigorl", "train", None, 2, ["bad-reference"]),
    "pixmo_count": ("pixmo_count", "train", None, 3, ["missing-image"]),
    "webcode2m": ("webcode2m", "train", None, 3, ["bad-reference"]),
    "unisvg": ("unisvg", "train", None, 3, ["missing-image"]),
    "infovqa": ("infovqa", "train", None, 3, []),
    "ai2d": ("ai2d", "train", "ai2d", 3, []),
    "mathvision": ("mathvision", "testmini", None, 3, []),
    "mmmu": ("mmmu", "dev", "Accounting", 3, []),
    "docvqa": ("docvqa", "train", "docvqa", 2, []),
    "ocrbench": ("ocrbench", "test", None, 3, []),
    "mmstar": ("mmstar", "val", None, 2, []),
    "treebench": ("treebench", "train", None, 2, []),
    "codeforces": ("codeforces", "train", None, 2, ["not-comparable"]),
    "rotation": ("pictures", "train", None, 3, ["alike", "missing-image", "too-small"]),
    "jigsaw": ("pictures", "train", None, 3, ["alike", "missing-image", "too-small"]),
    "crop_position": ("pictures", "train", None, 3, ["alike", "missing-image", "too-small"]),
    "generic": ("generic/rows.jsonl", "train", None, 2, ["unknown-type"]),
}


def source_of(name):
    column_map = read_column_map(FIXTURES / "generic" / "map.yaml") if name == "generic" else None
    return get_source(name, column_map)


def location_of(name, **changes):
    path, split, config, _, _ = LAYOUTS[name]
    source = source_of(name)
    data_files = tuple(f for f in source.data_files if (FIXTURES / path / f).exists())
    values = {
        "path": str(FIXTURES / path),
        "split": split,
        "config": config,
        "data_files": data_files,
        **changes,
    }
    return Location(**values).with_default_image_root()


def samples_of(name, **changes):
    """(samples, reasons of bad rows) of a fixture."""
    source, location = source_of(name), location_of(name, **changes)
    samples, reasons = [], []
    for number, row in enumerate(source.load(location)):
        check_columns(source, row, location.path)
        try:
            samples.append(source.to_sample(row, Context(f"{name}/{number}", Path(location.image_root))))
        except BadRow as error:
            reasons.append(error.reason if f"{name}/{number}" in str(error) else "without the sample's id")
    return samples, reasons


def test_every_source_has_a_fixture():
    assert set(LAYOUTS) | {"digits"} == set(SOURCES)


@pytest.mark.parametrize("name", LAYOUTS)
def test_fixture(name):
    samples, reasons = samples_of(name)
    assert len(samples) == LAYOUTS[name][3]
    assert reasons == LAYOUTS[name][4]
    for sample in samples:
        assert sample.problem.count("<image>") == len(sample.images)
        assert all(sample.answer)
        for image in sample.images:
            Image.open(io.BytesIO(image["bytes"])).load()
        assert sample.source == ("invented" if name == "generic" else name)


@pytest.mark.parametrize("name", LAYOUTS)
def test_references_are_readable_and_score_one_against_themselves(name):
    from reward import score

    for sample in samples_of(name)[0]:
        if sample.answer_type == "general-code":
            continue  # the reference is a list of tests, not a program
        completion = f"<answer>{sample.answer[0]}</answer>"
        output = score(completion, sample.answer, sample.answer_type, prompt_type="answer", spec=sample.spec)
        assert output.parts["accuracy"] == pytest.approx(1.0), output


@pytest.mark.parametrize("name", LAYOUTS)
def test_fixtures_pass_the_reward_audit(name, tmp_path):
    from dataset.schema import write_shard
    from reward.tools.audit import audit

    write_shard(tmp_path / "rows.parquet", [sample.to_row() for sample in samples_of(name)[0]])
    for result in audit(tmp_path):
        assert result.failures == ()


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_missing_column_is_named_with_what_is_there(name):
    source = source_of(name)
    row = next(iter(source.load(location_of(name))))
    gone = source.columns[-1]
    with pytest.raises(SourceError, match=f"lacks the column.*{gone}.*wanted"):
        check_columns(source, {k: v for k, v in row.items() if k != gone}, "here")


def test_kinds_of_answers():
    virl, _ = samples_of("virl39k")
    assert [s.answer_type for s in virl] == [
        "number",
        "math-expressions",
        "multiple-choice",
        "multiple-choice",
    ]
    assert virl[1].answer == ("\\frac{3}{2}",)
    assert virl[2].answer == ("B",)
    assert [s.problem_type for s in virl] == ["math", "math", "spatial", "math"]
    sat, _ = samples_of("vigorl_sat")
    assert [(s.answer_type, s.answer[0]) for s in sat] == [
        ("boolean", "yes"),
        ("any", "rotated left"),
        ("number", "3"),
    ]
    assert [len(s.images) for s in sat] == [1, 2, 1]
    vision, _ = samples_of("mathvision")
    assert [s.answer_type for s in vision] == ["multiple-choice", "number", "multiple-choice"]
    assert vision[0].spec is None  # its options are the letters in the figure
    assert vision[2].spec == {"params": {"options": ["$\\frac{1}{2}$", "$2$", "$\\sqrt{3}$", "$4$", "$5$"]}}


def test_mmmu_keeps_images_in_the_order_of_citation():
    samples, _ = samples_of("mmmu")
    assert samples[1].problem == "Which figure shows growth?\nA. <image>\nB. <image>"
    assert len(samples[1].images) == 2
    assert samples[1].images[0] != samples[1].images[1]
    assert samples[2].answer_type == "any"
    assert samples[2].problem == "Name the method in <image>."


def test_boxes_follow_the_image_when_it_is_resized():
    sample = samples_of("ref_l4")[0][0]
    image = Image.open(io.BytesIO(sample.images[0]["bytes"]))
    # Stored 120 x 90, box [10, 12, 50, 42]; the model sees 112 x 84 (multiples of 28): factor 14/15 both ways.
    assert image.size == (112, 84)
    assert sample.answer == ("[9, 11, 47, 39]",)


def test_official_layouts_of_evaluation_splits_are_read_too():
    infovqa, _ = samples_of("infovqa", split="validation")
    assert infovqa[0].answer == ("Water use", "water use by region")
    docvqa, _ = samples_of("docvqa", split="validation", config="DocVQA")
    assert docvqa[0].answer == ("J. Ames", "Ames")
    ai2d, _ = samples_of("ai2d", split="test", config="lmms")
    assert ai2d[0].answer == ("C",)
    assert ai2d[0].problem.endswith("C. c\nD. d")


def test_a_download_with_another_hash_is_a_missing_image(monkeypatch):
    source = SOURCES["pixmo_count"]
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(b"another picture"))
    row = {"image_url": "https://host/other.png", "image_sha256": "0" * 64, "count": 2, "label": "cats"}
    with pytest.raises(BadRow, match="no longer has the published hash"):
        source.to_sample(row, Context("x"))


def test_digits_is_embedded_and_needs_no_file():
    source = SOURCES["digits"]
    rows = list(source.load(Location("", "train", "stage1")))
    samples = [source.to_sample(row, Context("unused")) for row in rows[:40]]
    assert len(rows) > 3500
    assert len({s.id for s in samples}) == 40
    assert {s.source for s in samples} == {"digits-number", "digits-boolean", "digits-choice", "digits-bbox"}


def test_curated_rows_can_be_curated_again(tmp_path):
    from dataset.schema import write_shard

    samples, _ = samples_of("infovqa")
    write_shard(tmp_path / "rows.parquet", [sample.to_row() for sample in samples])
    source = get_source("generic")
    again = [source.to_sample(row, Context("unused")) for row in read_rows(Location(str(tmp_path), "train"))]
    assert again == samples


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns: {problem: q}", "columns.answer is missing"),
        ("columns: {problem: q, answer: a, picture: p}", "columns.picture is unknown"),
        ("columns: {problem: q, answer: a}", "give answer_type"),
        ("columns: {problem: q, answer: a}\nanswer_type: essay", "'essay', wanted one of"),
        ("colums: {}", "unknown key 'colums'"),
        ("[1, 2]", "wanted a mapping"),
    ],
)
def test_a_wrong_column_map_is_named(text, message, tmp_path):
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(SourceError, match=message.replace("[", r"\[")):
        read_column_map(path)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("ref-l4-val.parquet", "val"),
        ("test/0000.parquet", "test"),
        ("vigorl_sat2_train_RL.jsonl", "train"),
        ("39Krelease.parquet", None),
        ("training_notes.json", None),
    ],
)
def test_split_of_a_file_name(name, split):
    assert split_of(Path(name)) == split


@pytest.mark.parametrize("chunk", [4, 7, 64, 1 << 20])
def test_json_arrays_are_read_piece_by_piece(chunk, tmp_path, monkeypatch):
    import json

    monkeypatch.setattr("dataset.sources.reading.CHUNK_CHARS", chunk)
    rows = [{"q": 'a ] , { " quote', "n": [1, 2, {"x": None}]}, {}, {"long": "ü" * 300}]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False))
    assert list(read_rows(Location(str(path), "train"))) == rows
    path.write_text(json.dumps(rows)[:-1])
    with pytest.raises(ValueError, match=r"train.json: .*(not closed|not a JSON array)"):
        list(read_rows(Location(str(path), "train")))
    path.write_text('[{"a": 1}, {"a": oops}]')
    with pytest.raises(ValueError, match="not a JSON array"):
        list(read_rows(Location(str(path), "train")))


def test_a_split_without_files_says_what_is_there():
    with pytest.raises(FileNotFoundError, match=r"split 'validation'.*train-00000-of-00001.parquet"):
        list(read_rows(Location(str(FIXTURES / "pixmo_count"), "validation")))


def test_the_hub_reader_streams_with_images_left_encoded():
    file = str(FIXTURES / "infovqa" / "data" / "train-00000-of-00001.parquet")
    rows = list(read_hub(Location("parquet", "train", data_files=(file,))))
    assert [row["answer"] for row in rows] == ["Norway", "37%", "the city"]
    assert rows[0]["image"]["bytes"].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("Pick.\nA. red\nB. blue", {"A": "red", "B": "blue"}),
        ("Pick (A) red (B) dark blue (C) grey", {"A": "red", "B": "dark blue", "C": "grey"}),
        ("Options: A: spring, B: summer", {"A": "spring,", "B": "summer"}),
        ("What is A. plus B?", {}),
        ("No options here.", {}),
        ("B. second\nC. third", {}),
    ],
)
def test_options_written_into_a_question(text, options):
    assert options_in(text) == options


def test_letter_of_a_reference():
    context = Context("x")
    assert letter_of("b", ["p", "q"], context) == "B"
    assert letter_of("(A)", ["p", "q"], context) == "A"
    assert letter_of("q", ["p", "q"], context) == "B"
    assert letter_of("1", ["p", "q"], context) == "B"
    for wrong in ("C", "r", "2", "", "AB"):
        with pytest.raises(BadRow):
            letter_of(wrong, ["p", "q"], context)
