"""The page "Train your own": the block of each annotation format reads its files completely."""

import annotation_files as files
import doc_pages as pages
import numpy as np
import pytest

BLOCKS = [str(example.parsed) for example in pages.examples(pages.ROOT / "docs" / "train-your-own.md")]
READERS = [block for block in BLOCKS if "dataset.load(" in block]
SPLIT = BLOCKS[len(READERS)]


@pytest.mark.parametrize("block", READERS)
def test_each_format_is_read_and_divided(block, workplace):
    names = {}
    exec(block + SPLIT, names)
    assert len(names["dataset"].image_info) == 5
    assert len(names["train"].image_info) == 4 and len(names["val"].image_info) == 1
    assert names["dataset"].problems.counts == {}
    masks, class_ids = names["val"].load_mask(0)
    assert np.array_equal(masks[..., 0], files.masks()[0]) and class_ids[0] == 1
