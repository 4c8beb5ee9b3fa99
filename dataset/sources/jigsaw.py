"""In which order do four pieces of a picture make it whole again? Any folder of pictures.

Noroozi and Favaro 2016, "Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles", arXiv:1603.09246;
for vision-language models Wang et al. 2025, "Jigsaw-R1", arXiv:2505.23590.
"""

from itertools import permutations

from PIL import Image

from dataset.sources.base import Context, Row, Source, make_sample
from dataset.sources.image_folder import load, picture, record, told_apart
from utils.sample import Sample

ORDERS = tuple(permutations(range(4)))[1:]  # the first one shuffles nothing
QUESTION = (
    "A picture was cut into four pieces of equal size, and the pieces were put back in the wrong places, as shown. The "
    "places are numbered 1 (top left), 2 (top right), 3 (bottom left) and 4 (bottom right). Which pieces belong into "
    "places 1, 2, 3 and 4 of the original? Answer with the four numbers of the places where they are shown now, "
    "without spaces, for example 2143."
)


def to_sample(row: Row, context: Context) -> Sample:
    """The shuffled picture; the answer names, for each place of the original, the place that shows its piece."""
    image, dice = picture(row, context)
    width, height = image.width // 2, image.height // 2
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    pieces = [image.crop((x, y, x + width, y + height)) for x, y in corners]
    told_apart(pieces, context)
    order = dice.choice(ORDERS)  # place p shows piece order[p]
    shuffled = Image.new("RGB", (2 * width, 2 * height))
    for corner, piece in zip(corners, order, strict=True):
        shuffled.paste(pieces[piece], corner)
    return make_sample(
        context,
        source="jigsaw",
        images=[record(shuffled)],
        problem=QUESTION,
        answer="".join(str(order.index(piece) + 1) for piece in range(4)),
        problem_type="spatial-order",
        answer_type="any",
    )


SOURCE = Source(
    name="jigsaw",
    path="",
    split="train",
    columns=("image",),
    problem_type="spatial-order",
    answer_type="any",
    licence="your own",
    to_sample=to_sample,
    load=load,
    note="--dataset-path FOLDER of pictures",
)
