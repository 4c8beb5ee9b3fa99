"""svg-code: the formula, the blank baseline, one repair, and documents that must not be drawn."""

import time

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from reward.reading.ssim import reference_image, ssim
from reward.reading.svg_guard import SvgRejected, find_document, parse, repair_truncated
from reward.reading.svg_render import RenderFailed, _embedded_raster, render
from reward.verifiers import svg_code

PARAMS = svg_code.DEFAULTS
HEAD = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'
REFERENCE = (
    f'{HEAD}<defs><linearGradient id="g"><stop offset="0" stop-color="red"/><stop offset="1" stop-color="blue"/>'
    '</linearGradient></defs><rect x="10" y="10" width="50" height="40" fill="url(#g)"/>'
    '<circle cx="60" cy="60" r="20" fill="green"/><path d="M0 0L50 50Q60 70 90 20Z" stroke="black" fill="none"/></svg>'
)


def verify(text, reference=REFERENCE, **params):
    params = {**PARAMS, **params}
    return svg_code.verify(text, svg_code.prepare(reference, params), params)


@pytest.mark.parametrize("shape", [(336, 336, 3), (40, 31, 3), (7, 7, 3)])
def test_ssim_equals_skimage(shape):
    random = np.random.default_rng(0)
    left = random.integers(0, 256, shape, dtype=np.uint8)
    noise = random.integers(-60, 60, shape)
    noise[: shape[0] // 2] = 0  # equal strips take the short way
    right = np.clip(left + noise, 0, 255).astype(np.uint8)
    for a, b in ((left, right), (right, left), (left, left), (255 - left, left), (np.zeros_like(left), left)):
        expected = structural_similarity(a, b, channel_axis=-1, data_range=255)
        assert abs(ssim(a, reference_image(b)) - expected) < 1e-9


def test_ssim_refuses_another_shape():
    with pytest.raises(ValueError, match="ssim"):
        ssim(np.zeros((8, 8, 3), np.uint8), reference_image(np.zeros((9, 8, 3), np.uint8)))


def test_rendering_equals_the_png_of_the_renderer():
    import io

    import cairosvg
    from PIL import Image

    png = cairosvg.svg2png(REFERENCE.encode(), output_width=336, output_height=336, background_color="white")
    expected = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert np.array_equal(render(parse(REFERENCE)[1]), expected)


def test_the_reference_scores_one_and_the_formula_holds():
    assert verify(REFERENCE).accuracy == pytest.approx(1.0, abs=1e-12)
    verdict = verify(REFERENCE.replace('r="20"', 'r="35"').replace("green", "orange"))
    parts = verdict.parts
    assert 0.5 < parts["ssim"] < 0.99
    wanted = 0.5 * parts["ssim"] + 0.25 * (parts["token_jaccard"] + parts["tag_jaccard"])
    assert verdict.accuracy == pytest.approx(wanted, abs=1e-12)


def test_a_blank_canvas_earns_nothing_above_the_baseline():
    verdict = verify(f"{HEAD}</svg>")
    assert verdict.parts["ssim"] == pytest.approx(verdict.parts["blank_ssim"], abs=1e-12)
    assert verdict.parts["ssim"] > 0.6  # the trap: plain SSIM pays for nothing drawn
    assert verdict.parts["ssim_above_blank"] == pytest.approx(0.0, abs=1e-12)
    assert verify(f"{HEAD}</svg>", ssim_above_blank=True).accuracy < 0.15 < verify(f"{HEAD}</svg>").accuracy
    assert verify(REFERENCE, ssim_above_blank=True).accuracy == pytest.approx(1.0, abs=1e-12)


def test_a_blank_reference_is_matched_by_blank_only():
    blank = f"{HEAD}</svg>"
    assert verify(blank, blank).parts["ssim_above_blank"] == 1.0
    assert verify(REFERENCE, blank).parts["ssim_above_blank"] == 0.0


@pytest.mark.parametrize(
    "text", ["", "a drawing", "<html><svg></svg></html>", "<svgx></svgx>", "</svg><svg>", "<", "<svg"]
)
def test_no_svg_root_scores_zero(text):
    verdict = verify(text)
    assert (verdict.accuracy, verdict.status) == (0.0, "unparseable")


@pytest.mark.parametrize(
    "wrap",
    [
        "Here it is: {} as asked.",
        '<?xml version="1.0"?>\n{}',
        '<!-- c --><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://x/svg11.dtd">\n{}\n',
    ],
)
def test_what_stands_around_the_document_does_not_count(wrap):
    assert verify(wrap.format(REFERENCE)).accuracy == pytest.approx(1.0, abs=1e-12)


def test_hidden_words_in_comments_do_not_count():
    padded = f"{HEAD}<!-- {REFERENCE.replace('--', '')} --></svg>"
    assert verify(padded).parts["token_jaccard"] == verify(f"{HEAD}</svg>").parts["token_jaccard"]


@pytest.mark.parametrize("keep", [len(REFERENCE) - 3, len(REFERENCE) - 9, len(REFERENCE) - 40, 200, 120])
def test_truncated_output_is_closed_once(keep):
    verdict = verify(REFERENCE[:keep])
    assert (verdict.status, verdict.parts["repaired"]) == ("ok", 1.0)
    assert verdict.parts["ssim"] > 0.5
    assert verdict.accuracy < 1.0 or keep >= len(REFERENCE) - 9


def test_nothing_but_truncation_is_repaired():
    assert repair_truncated(REFERENCE) is None
    assert repair_truncated("<svg><g></svg>") is None
    assert repair_truncated("<svg><g><path d='M0 0") == "<svg><g></g></svg>"
    assert repair_truncated("<svg><text>a &am") == "<svg><text>a </text></svg>"
    crossed = verify(f"{HEAD}<g><path></g></path></svg>")
    assert (crossed.parts["ssim"], crossed.status) == (0.0, "unparseable")
    assert crossed.accuracy > 0  # the text half remains


def _bomb(levels, width):
    groups = "".join(
        f'<g id="a{i}">{f"""<use href="#a{i - 1}"/>""" * width}</g>' for i in range(1, levels + 1)
    )
    return f'{HEAD}<defs><rect id="a0" width="1" height="1"/>{groups}</defs><use href="#a{levels}"/></svg>'


REJECTED = {
    "use bomb": _bomb(6, 10),
    "deep use chain": _bomb(300, 1),
    "use circle": f'{HEAD}<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g></svg>',
    "pattern bomb": f"{HEAD}"
    + "".join(f'<pattern id="p{i}"><g fill="url(#p{i - 1})">{"<path/>" * 9}</g></pattern>' for i in range(8))
    + '<path fill="url(#p7)"/></svg>',
    "marker bomb": f'{HEAD}<marker id="m">{"<path/>" * 100}</marker>'
    f'<path d="{"M1 1" * 500}" marker-mid="url(#m)"/></svg>',
    "nesting": f"{HEAD}{'<g>' * 200}{'</g>' * 200}</svg>",
    "elements": f"{HEAD}{'<path/>' * 6000}</svg>",
    "canvas": '<svg width="1e9" height="10"></svg>',
    "canvas of the view box": '<svg viewBox="0 0 10 1e300"></svg>',
    "local file": f'{HEAD}<image href="file:///etc/passwd"/></svg>',
    "relative file": f'{HEAD}<image href="../x.png"/></svg>',
    "network": f'{HEAD}<image href="http://127.0.0.1/x.png"/></svg>',
    "xlink": f'{HEAD}<image xlink:href="https://127.0.0.1/x.svg"/></svg>',
    "external use": f'{HEAD}<use href="other.svg#a"/></svg>',
    "external fill": f'{HEAD}<rect fill="url(http://127.0.0.1/#a)"/></svg>',
    "nested svg in data": f'{HEAD}<image href="data:image/svg+xml;base64,PHN2Zy8+"/></svg>',
    "style import": f'{HEAD}<style>@import "http://127.0.0.1/a.css";</style></svg>',
    "style url": f"{HEAD}<style>rect{{fill:url(file:///etc/passwd)}}</style></svg>",
    "script": f"{HEAD}<script>alert(1)</script></svg>",
    "inner entity": f'{HEAD}<!DOCTYPE a [<!ENTITY b "c">]></svg>',
}


@pytest.mark.parametrize("name", REJECTED)
def test_hostile_documents_are_refused_before_drawing(name):
    start = time.process_time()
    with pytest.raises(SvgRejected):
        parse(find_document(REJECTED[name]))
    assert time.process_time() - start < 1.0
    verdict = verify(REJECTED[name])
    assert (verdict.status, verdict.parts["ssim"]) == ("rejected", 0.0)


PROLOG = '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.0//EN" "http://x/svg10.dtd" [{}]>'


def test_entities_of_plain_text_are_expanded():
    declared = PROLOG.format("<!ENTITY ns_svg \"http://www.w3.org/2000/svg\"> <!ENTITY color 'red'>")
    plain = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path fill="red" d="M0 0h9v5z"/></svg>'
    drawn = plain.replace("http://www.w3.org/2000/svg", "&ns_svg;").replace("red", "&color;")
    assert verify(declared + drawn, plain).accuracy == verify(plain, declared + drawn).accuracy == 1.0
    assert verify(drawn, plain).status == "unparseable"  # nothing declares them


@pytest.mark.parametrize(
    "entities",
    [
        '<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">',
        '<!ENTITY b "&b;">',
        '<!ENTITY b "<g/>">',
        '<!ENTITY % a "c"><!ENTITY b "%a;">',
        '<!ENTITY b SYSTEM "file:///etc/passwd">',
        f'<!ENTITY b "{"b" * 60_000}">',
    ],
)
def test_entities_of_anything_else_are_not_expanded(entities):
    start = time.process_time()
    assert verify(PROLOG.format(entities) + f"{HEAD}<text>&b;&b;</text></svg>").status == "unparseable"
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    "body",
    [
        '<use href="#g"/>',
        '<rect fill="url(#missing)"/>',
        '<a href="http://x/"><path d="M0 0L9 9"/></a>',
        "<text>\U0001f600</text>",
        "<switch><foreignObject><p>words</p></foreignObject><g/></switch>",
    ],
)
def test_harmless_references_are_drawn(body):
    assert verify(f"{HEAD}{body}</svg>").status == "ok"


@pytest.mark.parametrize(
    "url",
    ["http://x/y.png", "file:///etc/passwd", "data:image/png;base64,PHN2Zy8+", "data:image/png;base64,!"],
)
def test_the_renderers_own_fetcher_refuses(url):
    with pytest.raises(RenderFailed):
        _embedded_raster(url, "image/*")


def test_a_small_embedded_raster_is_drawn():
    import base64
    import io

    from PIL import Image

    def uri(size):
        file = io.BytesIO()
        Image.new("L", size, 0).save(file, "PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()

    assert verify(f'{HEAD}<image width="99" height="99" href="{uri((4, 4))}"/></svg>').status == "ok"
    assert (
        verify(f'{HEAD}<image width="9" height="9" href="{uri((5000, 5000))}"/></svg>').status
        == "unparseable"
    )


@pytest.mark.parametrize(
    "reference", ["", "text", "<svg><g></svg>", f'{HEAD}<image href="http://x/"/></svg>']
)
def test_an_unusable_reference_is_our_error(reference):
    with pytest.raises(ValueError, match=r"svg|rendered"):
        svg_code.prepare(reference, PARAMS)


def test_numbers_that_break_the_renderer_are_survived():
    for attribute in (
        'width="nan"',
        'width="0"',
        'width="-4"',
        'viewBox="0 0 0 0"',
        'viewBox="a b"',
        'width="1e999"',
    ):
        verdict = verify(f"<svg {attribute}><rect width='9' height='9'/></svg>")
        assert np.isfinite([verdict.accuracy, *verdict.parts.values()]).all()
        assert 0.0 <= verdict.accuracy <= 1.0
