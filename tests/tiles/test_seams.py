"""Objects at the seams of tiles are found once and whole."""

import itertools

import numpy as np
import pytest
from skimage import draw
from synthetic_detector import as_set, disks, region_model, regions_of

from mrcnn.tiles import seams
from mrcnn.tiles.detecting import detect_large
from mrcnn.tiles.grid import grid, quarters, starts_of
from mrcnn.tiles.seams import DisjointSets, Sweep, located


def large(image, **options):
    options = {"tile": 64, "overlap": 16, "progress": False} | options
    return detect_large(options.pop("model", region_model()), image, **options)


@pytest.mark.parametrize("overlap", [1, 5, 16, 31])
def test_small_objects_are_found_once_and_whole(overlap):
    image = disks((301, 257), step=13, radius=6)
    assert as_set(large(image, overlap=overlap)) == as_set(regions_of(image))


@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 30, 250),  # across all tiles of a row
        (5, 100, 290, 120),  # across all rows
        (20, 20, 280, 240),  # larger than four tiles
        (50, 50, 62, 62),  # at a corner of four tiles
        (0, 0, 301, 257),  # the whole image
    ],
)
def test_objects_longer_than_the_overlap_are_united(box):
    image = np.zeros((301, 257), np.uint8)
    image[box[0] : box[2], box[1] : box[3]] = 200
    found = large(image)
    assert found["rois"].tolist() == [list(box)]
    ((place, crop),) = found.crops()
    assert place == box and crop.all()


def test_shapes_that_leave_a_tile_and_come_back():
    image = np.zeros((200, 200), np.uint8)
    rows, columns = draw.disk((100, 100), 90)
    image[rows, columns] = 200
    rows, columns = draw.disk((100, 100), 82)
    image[rows, columns] = 0  # a ring, which every tile sees as arcs
    image[90:110, 90:110] = 200  # and a square in it, which is not a part of it
    assert as_set(large(image)) == as_set(regions_of(image))


def test_touching_objects_of_two_classes_stay_two():
    image = np.zeros((64, 200), np.uint8)
    image[20:40, 10:100], image[20:40, 100:190] = 100, 200
    assert as_set(large(image)) == as_set(regions_of(image))


def test_objects_next_to_each_other_at_a_seam_stay_two():
    image = np.zeros((64, 112), np.uint8)  # tiles share columns 48 to 64
    image[10:20, 30:58], image[10:20, 59:90] = 200, 200
    assert as_set(large(image)) == as_set(regions_of(image))


def piece(tile, box, score=0.9, class_id=1, crop=None):
    crop = np.ones((box[2] - box[0], box[3] - box[1]), bool) if crop is None else crop
    return located(tile, (100, 184), roi=box, class_id=class_id, score=score, box=box, crop=crop)


def resolved(found):
    return Sweep().add(found, None)


LEFT, RIGHT = (0, 0, 100, 100), (0, 84, 100, 184)


def test_the_tile_in_which_an_object_lies_farthest_inside_owns_it():
    near, far = piece(LEFT, (10, 86, 20, 96), 0.99), piece(RIGHT, (10, 90, 20, 97), 0.6)
    assert near.is_whole and far.is_whole and near.depth == 4 and far.depth == 6
    assert resolved([near, far]) == [far]


def test_a_cut_piece_never_replaces_a_whole_object():
    cut, whole = piece(LEFT, (10, 88, 20, 100), 0.99), piece(RIGHT, (10, 88, 20, 110), 0.6)
    assert not cut.is_whole and whole.is_whole
    assert resolved([cut, whole]) == [whole]


def test_whole_objects_are_never_united_and_pieces_are():
    one, other = piece(LEFT, (10, 60, 20, 97)), piece(RIGHT, (10, 87, 20, 130))
    assert not one.is_whole and not other.is_whole  # nearer to the edge than a tenth of their sides
    (joined,) = resolved([one, other])
    assert joined.roi == (10, 60, 20, 130)
    assert joined.crop.all()
    apart = [piece(LEFT, (10, 86, 20, 95)), piece(RIGHT, (10, 91, 20, 104))]
    assert all(part.is_whole for part in apart)
    assert len(resolved(apart)) == 2


def test_a_piece_that_mostly_lies_elsewhere_joins_a_whole_detection():
    """The right tile sees the end of a long object and takes it for a whole one."""
    long, end = piece(LEFT, (10, 20, 20, 100)), piece(RIGHT, (10, 87, 20, 100))
    assert end.is_whole
    (joined,) = resolved([long, end])
    assert joined.roi == (10, 20, 20, 100)


def test_one_object_inside_another_of_its_class_is_kept():
    big, small = piece(RIGHT, (10, 90, 60, 160)), piece(LEFT, (20, 88, 24, 92))
    assert len(resolved([small, big])) == 2


def test_masks_without_a_pixel_are_found_once():
    empty = np.zeros((10, 8), bool)
    twice = [piece(tile, (10, 88, 20, 96), crop=empty) for tile in (LEFT, RIGHT)]
    assert len(resolved(twice)) == 1


def test_open_objects_wait_for_the_next_row():
    top, bottom = (0, 0, 64, 64), (48, 0, 112, 64)
    tall = located(
        top,
        (112, 64),
        roi=(10, 5, 64, 20),
        class_id=1,
        score=1,
        box=(10, 5, 64, 20),
        crop=np.ones((54, 15), bool),
    )
    low = located(
        bottom,
        (112, 64),
        roi=(48, 5, 90, 20),
        class_id=1,
        score=1,
        box=(48, 5, 90, 20),
        crop=np.ones((42, 15), bool),
    )
    sweep = Sweep()
    assert sweep.add([tall], 48) == []
    (joined,) = sweep.add([low], None)
    assert joined.roi == (10, 5, 90, 20)


def cells(shape, tile, overlap, *, step, radius, count=2, seed=0):
    """Rows of tiles, and what each row finds of disks of `count` classes, `step` pixels from each other.

    Every tile sees each disk a little differently, and misses a few of them.
    """
    rng = np.random.default_rng(seed)
    rows = grid(shape, tile, overlap)
    middles = np.stack(np.mgrid[step // 2 : shape[0] : step, step // 2 : shape[1] : step], -1).reshape(-1, 2)
    middles = middles + rng.integers(-step // 4, step // 4 + 1, middles.shape)
    sizes, classes = rng.uniform(radius / 2, radius, len(middles)), rng.integers(1, count + 1, len(middles))
    found = []
    for row in rows:
        found.append([])
        for one in row:
            for middle, size, class_id in zip(middles, sizes, classes, strict=True):
                ys, xs = draw.disk(middle + rng.normal(0, 0.7, 2), size, shape=shape)
                inside = (ys >= one[0]) & (ys < one[2]) & (xs >= one[1]) & (xs < one[3])
                ys, xs = ys[inside], xs[inside]
                if len(ys) < 2 or rng.random() < 0.05:
                    continue
                box = (int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1)
                crop = np.zeros((box[2] - box[0], box[3] - box[1]), bool)
                crop[ys - box[0], xs - box[1]] = True
                facts = {"roi": box, "class_id": class_id, "score": rng.random(), "box": box, "crop": crop}
                found[-1].append(located(one, shape, **facts))
    return rows, found


def swept(rows, found):
    """The objects that a sweep returns after each row."""
    sweep = Sweep()
    tops = [*(row[0][0] for row in rows[1:]), None]
    return [sweep.add(one, top) for one, top in zip(found, tops, strict=True)]


def plain_rule(found, shape):
    """The rule of seams for all detections of one class in an image, each compared with all others."""
    masks = {one: one.part((0, 0, *shape)) for one in found}

    def is_covered(one, kept):
        others = [masks[other] for other in kept if other.tile != one.tile]
        return (np.any(others, axis=0) & masks[one]).sum() > masks[one].sum() / 2

    whole = sorted((one for one in found if one.is_whole), key=lambda one: (-one.depth, -one.score))
    kept = []
    for one in whole:
        if not is_covered(one, kept):
            kept.append(one)
    kept += [one for one in found if not one.is_whole and not is_covered(one, kept)]
    pairs = itertools.combinations(range(len(kept)), 2)
    links = [(-seams.similarity_of(kept[first], kept[second]), first, second) for first, second in pairs]
    sets = DisjointSets(len(kept), [one.is_whole for one in kept])
    for similarity, first, second in sorted(links):
        if -similarity > 0.5:
            sets.join(first, second)
    return [seams.union([kept[index] for index in members]) for members in sets.members()]


def facts(found):
    return sorted((one.roi, one.class_id, one.score, one.box, one.crop.tobytes()) for one in found)


@pytest.mark.parametrize(
    "tile, overlap, radius", [(64, 16, 6), (64, 20, 9), (48, 5, 14), (60, 29, 8), (90, 30, 20)]
)
def test_row_by_row_is_the_plain_rule(tile, overlap, radius):
    shape = (160, 100)
    rows, found = cells(shape, tile, overlap, step=10, radius=radius)
    every = [one for row in found for one in row]
    expected = [plain_rule([one for one in every if one.class_id == number], shape) for number in (1, 2)]
    finished = swept(rows, found)
    assert facts(itertools.chain(*finished)) == facts(itertools.chain(*expected))
    assert len(rows) == len(finished) > 1 and finished[-1]


def test_objects_that_touch_along_the_seams_leave_with_the_next_rows():
    rows, found = cells((400, 100), 50, 12, step=8, radius=6, count=1)
    finished = swept(rows, found)
    for number, objects in enumerate(finished):
        tops = [one.box[0] for one in objects]
        assert min(tops) >= rows[max(0, number - 2)][0][0]


def test_only_overlapping_detections_are_compared(monkeypatch):
    """Once, also if they wait for several rows."""
    compared, covers = [], []
    similarity_of, is_covered = seams.similarity_of, seams.is_covered

    def comparing(one, other):
        compared.append(frozenset((id(one), id(other))))
        return similarity_of(one, other)

    def covering(one, kept):
        covers.append(len(kept))
        return is_covered(one, kept)

    monkeypatch.setattr(seams, "similarity_of", comparing)
    monkeypatch.setattr(seams, "is_covered", covering)
    rows, found = cells((400, 100), 50, 12, step=8, radius=6, count=1)
    swept(rows, found)
    count = sum(len(row) for row in found)
    assert len(set(compared)) == len(compared) < 3 * count
    assert sum(covers) < 3 * count


@pytest.mark.parametrize(
    "length, tile, overlap", [(10, 64, 8), (64, 64, 8), (65, 64, 8), (1000, 64, 31), (128, 64, 0)]
)
def test_tiles_cover_the_image_and_share_the_overlap(length, tile, overlap):
    starts = starts_of(length, tile, overlap)
    assert starts[0] == 0 and starts[-1] == max(0, length - tile)
    assert all(later - earlier <= tile - overlap for earlier, later in itertools.pairwise(starts))
    assert grid((length, 5), tile, overlap)[-1][0][2] == length


def test_quarters_cover_a_tile():
    parts = quarters((10, 20, 110, 121), 16)
    covered = np.zeros((130, 130), int)
    for y1, x1, y2, x2 in parts:
        covered[y1:y2, x1:x2] += 1
    assert (covered[10:110, 20:121] > 0).all() and covered.sum() == sum(
        (d - b) * (c - a) for a, b, c, d in parts
    )
    assert quarters((0, 0, 30, 30), 16) == []
    assert quarters((0, 64, 256, 384), 32, 64)[3] == (64, 192, 256, 384)
    assert quarters((0, 0, 128, 128), 16, 64) == []


def test_a_group_has_one_single_member():
    sets = DisjointSets(3, [True, False, True])
    sets.join(0, 1)
    sets.join(1, 2)
    assert sets.members() == [[0, 1], [2]]
