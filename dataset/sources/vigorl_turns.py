"""ViGoRL visual search over several turns: the questions of `vigorl_sa`, to be answered with a zoom.

The rows are those of `visual_search/vigorl_SA_RL.jsonl`, as in `vigorl_sa`, and every sample names the tool; its calls
may be boxes or, as in that project, points. Neither the data nor the code of ViGoRL could be read while this was
written: the layout is the one that its single-turn rows have, and the written-out conversations that it warms up on
(`messages`) are not read.
"""

from dataclasses import replace

from dataset.sources.base import Context, Row
from dataset.sources.vigorl_sa import SOURCE as SINGLE_TURN
from dataset.sources.vigorl_sa import to_sample as single_turn
from utils.sample import Sample

TOOLS = ["zoom"]


def to_sample(row: Row, context: Context) -> Sample:
    """The question with its tool. Raises ``BadRow`` as `vigorl_sa` does."""
    sample = single_turn(row, context)
    return replace(sample, source="vigorl_turns", spec={**(sample.spec or {}), "tools": TOOLS})


SOURCE = replace(SINGLE_TURN, name="vigorl_turns", to_sample=to_sample)
