"""Brackets in mathematical text: what stands inside of a pair, and where a text splits outside of all of them."""


def split_top(text: str, separators: str, keep: bool = False) -> list[str]:
    """The text split at separators that stand in no bracket. keep: empty pieces too."""
    pieces, depth = [""], 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if char in separators and depth <= 0:
            pieces.append("")
        else:
            pieces[-1] += char
    return [piece.strip() for piece in pieces if keep or piece.strip()]


def inside(text: str, left: str, right: str) -> str | None:
    if (
        len(text) > len(left) + len(right)
        and text.startswith(left)
        and text.endswith(right)
        and wraps(text[len(left) - 1 :])
    ):
        return text[len(left) : -len(right)]
    return None


def wraps(text: str) -> bool:
    """Whether the bracket that opens the text is the one that closes it."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return index == len(text) - 1
    return False
