"""From where in a picture is a part of it? Any folder of pictures.

After Doersch et al. 2015, "Unsupervised Visual Representation Learning by Context Prediction", arXiv:1505.05192.
"""

from dataset.sources.base import LETTERS, Context, Row, Source, make_sample, with_options
from dataset.sources.image_folder import load, picture, record, told_apart
from utils.sample import IMAGE_MARK, Sample

PLACES = tuple(
    f"{row}, {column}" for row in ("top", "middle", "bottom") for column in ("left", "centre", "right")
)


def to_sample(row: Row, context: Context) -> Sample:
    """The picture and one ninth of it at twice the size. Raises BadRow where two ninths look the same."""
    image, dice = picture(row, context)
    width, height = image.width // 3, image.height // 3
    ninths = [
        image.crop((column * width, line * height, (column + 1) * width, (line + 1) * height))
        for line in range(3)
        for column in range(3)
    ]
    told_apart(ninths, context)
    place = dice.randrange(len(PLACES))
    part = ninths[place].resize((2 * width, 2 * height))
    question = (
        f"{IMAGE_MARK}{IMAGE_MARK}The second picture is an enlarged part of the first. From where is it?"
    )
    return make_sample(
        context,
        source="crop_position",
        images=[record(image), record(part)],
        problem=with_options(question, PLACES),
        answer=LETTERS[place],
        problem_type="perception",
        answer_type="multiple-choice",
        spec={"params": {"options": list(PLACES)}},
    )


SOURCE = Source(
    name="crop_position",
    path="",
    split="train",
    columns=("image",),
    problem_type="perception",
    answer_type="multiple-choice",
    licence="your own",
    to_sample=to_sample,
    load=load,
    note="--dataset-path FOLDER of pictures",
)
