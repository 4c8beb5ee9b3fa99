"""html-code: 0.6 * token Jaccard + 0.4 * tag Jaccard, its multiset reading and the validity gate."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.reading import markup
from reward.verifiers import html_code

PARAMS = html_code.DEFAULTS
PAGE = "<html><body><h1>Hello big world</h1><p>one two</p><p>three</p></body></html>"


def verify(text, reference=PAGE, **params):
    params = {**PARAMS, **params}
    return html_code.verify(text, html_code.prepare(reference, params), params)


def test_the_formula_by_hand():
    """Tokens {p, a, b} and {p, a, c, b_}: shared p, a of p, a, b, c, div; tags {p} of {p, div}."""
    verdict = verify("<p>a b</p>", "<div><p>a c</p></div>")
    assert verdict.parts["token_jaccard"] == pytest.approx(2 / 5)
    assert verdict.parts["tag_jaccard"] == pytest.approx(1 / 2)
    assert verdict.accuracy == pytest.approx(0.6 * 2 / 5 + 0.4 / 2)


@pytest.mark.parametrize(
    "text",
    [
        PAGE,
        PAGE.upper(),
        PAGE.replace("><", ">\n  <"),
        PAGE.replace("<p>", "<!-- note --><p>"),
        f"\n{PAGE}\n",
    ],
)
def test_formatting_that_does_not_matter(text):
    assert verify(text).accuracy == pytest.approx(1.0)
    assert verify(text, multiset=True).accuracy == pytest.approx(1.0)


@pytest.mark.parametrize(
    "text", ["", "   ", "<!-- Hello big world html body h1 p one two three -->", "zzz", "<x></x>"]
)
def test_nothing_shared_scores_zero(text):
    assert verify(text).accuracy == 0.0


def test_a_shuffled_vocabulary_is_seen():
    shuffled = "three </p> two one </body> world <h1> big <p> Hello </html> <body> </h1> <html>"
    verdict = verify(shuffled)
    assert verdict.accuracy == verdict.parts["set_similarity"] == pytest.approx(1.0)  # as the page states
    assert verdict.parts["multiset_similarity"] < 0.9
    assert verify(shuffled, multiset=True).accuracy == verdict.parts["multiset_similarity"]
    assert verify(shuffled, validity_gate=True).accuracy == 0.0
    assert verify(PAGE, validity_gate=True).accuracy == pytest.approx(1.0)


@pytest.mark.parametrize("page", ["<p>one<p>two", "<br>", "<img src='a>b'>", "<ul><li>a<li>b</ul>", "<svg><g/></svg>",
                                  "<script>if (a</b>) </script>", "<table><tr><td>1<tr><td>2</table>",
                                  "<!DOCTYPE html><title>t</title><p>a & b<p>c", "<main><p>one</main>"])  # fmt: skip
def test_pages_without_a_parse_error(page):
    assert verify(page, validity_gate=True).parts["valid"] == 1.0


@pytest.mark.parametrize(
    "page",
    [
        "", "text", "</p>", "<b><i></b></i>", "<div>", "<p", "<a href='x", "<div></span></div>", "< div>", "<p>\0</p>",
        "<table><p>a</table>", "<a><a></a></a>", "<div/>text", "<p a=1 a=2>", "<!DOCTYPE html></body><p>x",
    ],
)  # fmt: skip
def test_pages_with_more_parse_errors_than_their_reference(page):
    verdict = verify(page, validity_gate=True)
    assert (verdict.accuracy, verdict.parts["valid"], verdict.status) == (0.0, 0.0, "unparseable")


def test_a_reference_is_judged_by_the_same_gate():
    """Real pages have errors: those of the reference are allowed, as often as it has them, and no others."""
    careless = "<div><p>one</b> two</div>"
    assert verify(careless, careless, validity_gate=True).accuracy == 1.0
    assert verify("<div><p>one two</p></div>", careless, validity_gate=True).parts["valid"] == 1.0
    assert verify("<div><p>one</b> two</b></div>", careless, validity_gate=True).parts["valid"] == 0.0
    assert verify("<div><p>one two", careless, validity_gate=True).parts["valid"] == 0.0


@pytest.mark.parametrize("reference", ["", "plain words", "<!-- <p> -->", "x" * 900_000])
def test_an_unusable_reference_is_our_error(reference):
    with pytest.raises(ValueError, match="page"):
        html_code.prepare(reference, PARAMS)


def test_long_output_is_refused_unread():
    assert verify("<p>" * 300_000).status == "rejected"


@pytest.mark.parametrize(
    "unit", ["<", "<!--", "<!", "<a '", '<a "', "</", "<![CDATA[", "<?", "<script>", "&", "<a<", "</script"]
)
def test_scanning_is_linear(unit):
    text = unit * (150_000 // len(unit))
    start = time.process_time()
    markup.scan(text, html=True)
    markup.scan(text, html=False)
    assert time.process_time() - start < 3.0


@given(st.text(alphabet="<>/!-'\"ab =", max_size=60), st.text(alphabet="<>/!-'\"ab =", max_size=60))
def test_scores_are_in_range_and_symmetric(left, right):
    a, b = html_code.read_page(left), html_code.read_page(right)
    assert 0.0 <= markup.jaccard(a.tokens, b.tokens) <= 1.0
    assert markup.jaccard(a.tags, b.tags) == markup.jaccard(b.tags, a.tags)
    assert markup.multiset_jaccard(a.tokens, b.tokens) == markup.multiset_jaccard(b.tokens, a.tokens)
    assert 0.0 <= verify(left).accuracy <= 1.0


def test_quick_agrees_with_verify_and_leaves_long_pages_to_a_worker():
    assert html_code.quick("<p>one</p>", (PAGE,), PARAMS) == verify("<p>one</p>")
    assert html_code.quick("<p>one</p>", ("<p>zzz</p>", "<p>one</p>"), PARAMS).accuracy == pytest.approx(1.0)
    assert html_code.quick("<p>" * 9000, (PAGE,), PARAMS) is None
