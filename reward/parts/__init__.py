"""Parts of a reward beside the accuracy: format, boxes in the thinking, length and repetition."""
