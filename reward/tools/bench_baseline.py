"""The plain way to compute the same formulas, for comparison: nothing is cached, pooled, batched or compiled.

Pure-Python Levenshtein; a fresh process per rendering, PNG in between, scikit-image's float64 SSIM; Math-Verify on
every completion, one after another. The other types have nothing to save and use the verifiers as they are.
"""

import io
import multiprocessing
import unicodedata
from multiprocessing.connection import Connection

import numpy as np

from reward.extract import extract
from reward.reading import markup
from reward.reading.svg_guard import find_document, repair_truncated
from reward.score import score_local
from reward.tools.bench_data import Prompt

_fork = multiprocessing.get_context("fork")  # the cheapest fresh process there is


def score_prompt(prompt: Prompt) -> list[float]:
    """Accuracies of a prompt's rollouts, one after another."""
    plain = {"svg-code": _svg, "ocrtext": _ocr, "math-expressions": _math}.get(prompt.answer_type)
    if plain is None:
        return [
            score_local(c, prompt.answer, prompt.answer_type).parts["accuracy"] for c in prompt.completions
        ]
    accuracies = []
    for completion in prompt.completions:
        extraction = extract(completion, True)
        accuracies.append(plain(extraction.text, prompt.answer) if extraction else 0.0)
    return accuracies


def levenshtein(left: str, right: str) -> int:
    """Edit distance by the two-row recurrence."""
    previous = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        current = [i]
        for j, b in enumerate(right, 1):
            current.append(min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (a != b)))
        previous = current
    return previous[-1]


def _ocr(text: str, reference: str) -> float:
    left, right = (" ".join(unicodedata.normalize("NFC", s).lower().split()) for s in (text, reference))
    similarity = 1 - levenshtein(left, right) / max(len(left), len(right), 1)
    return similarity if similarity >= 0.5 else 0.0


def _math(text: str, reference: str) -> float:
    from math_verify import parse, verify

    gold = parse(f"${reference}$", parsing_timeout=None)
    return float(verify(gold, parse(f"${text}$", parsing_timeout=None), timeout_seconds=None))


def _svg(text: str, reference: str) -> float:
    from PIL import Image
    from skimage.metrics import structural_similarity

    document = find_document(text)
    if document is None:
        return 0.0
    documents = (repair_truncated(document) or document, reference)
    images = [np.asarray(Image.open(io.BytesIO(_png(d))).convert("RGB"), dtype=np.float64) for d in documents]
    ssim = structural_similarity(*images, channel_axis=-1, data_range=255)
    pieces = [markup.scan(d, html=False) for d in (document, reference)]
    token = markup.jaccard(markup.tokens(document), markup.tokens(reference))
    return 0.5 * max(ssim, 0.0) + 0.25 * (token + markup.jaccard(*(markup.tags(p) for p in pieces)))


def _png(document: str) -> bytes:
    receiver, sender = _fork.Pipe(duplex=False)
    process = _fork.Process(target=_render, args=(document, sender))
    process.start()
    sender.close()
    png = receiver.recv_bytes()
    process.join()
    receiver.close()
    return png


def _render(document: str, sender: Connection) -> None:
    import cairosvg

    sender.send_bytes(
        cairosvg.svg2png(document.encode(), output_width=336, output_height=336, background_color="white")
    )
