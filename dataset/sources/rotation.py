"""By how much was a picture turned? Any folder of pictures that were upright; the answer is how we turned them.

Gidaris et al. 2018, "Unsupervised Representation Learning by Predicting Image Rotations", arXiv:1803.07728.
"""

from PIL import Image

from dataset.sources.base import LETTERS, Context, Row, Source, make_sample, with_options
from dataset.sources.image_folder import load, picture, record, told_apart
from utils.sample import Sample

TURNS = ("0 degrees", "90 degrees", "180 degrees", "270 degrees")  # clockwise
TRANSPOSED = (None, Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_90)


def to_sample(row: Row, context: Context) -> Sample:
    """The picture, turned clockwise by one of `TURNS`. Raises BadRow for one that looks the same when turned."""
    image, dice = picture(row, context)
    turned = [image if turn is None else image.transpose(turn) for turn in TRANSPOSED]
    told_apart(turned, context)
    turn = dice.randrange(len(TURNS))
    question = "This picture was upright and has been rotated clockwise. By how much?"
    return make_sample(
        context,
        source="rotation",
        images=[record(turned[turn])],
        problem=with_options(question, TURNS),
        answer=LETTERS[turn],
        problem_type="perception",
        answer_type="multiple-choice",
        spec={"params": {"options": list(TURNS)}},
    )


SOURCE = Source(
    name="rotation",
    path="",
    split="train",
    columns=("image",),
    problem_type="perception",
    answer_type="multiple-choice",
    licence="your own",
    to_sample=to_sample,
    load=load,
    note="--dataset-path FOLDER of upright pictures",
)
