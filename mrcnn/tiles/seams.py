"""Join objects at the seams of tiles, so that each is found once and whole.

Neighboring tiles overlap, so both may find the same object, whole or cut. The rule:

1. A detection that stays clear of the inner edges of its tile is *whole*. Clear means more than a tenth of
   the object's side and more than 2 pixels away. Any other detection is a *piece*. The edges of the image do
   not count.
2. Whole detections come first, starting with those farthest from the inner edges of their tiles, then
   pieces. A detection is dropped if kept whole detections of other tiles cover more than half of its mask.
   So the tile in which an object lies farthest inside owns it, and pieces of an object that another tile sees
   whole disappear.
3. The remaining pieces belong to objects that no tile sees whole; they may be far longer than the overlap.
   Two detections of different tiles, at least one of them a piece, are compared in the region that both tiles
   see. If the smaller mask there is covered by more than half (for a piece and a whole detection: if the IoU
   there is above a half), they are one object. Its mask is the union, its score is the best one. Two whole
   detections are never united.

Only detections of the same class are compared. Nothing else is dropped: a piece without a partner is kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mrcnn.typing import Box

# A detection nearer to an inner edge of its tile than this part of its side, or these pixels, is a piece.
MARGIN, LEAST_MARGIN = 0.1, 2
SAME = 0.5


@dataclass(frozen=True, eq=False)
class Found:
    """A detection of one tile, in pixels of the whole image.

    Attributes:
        tile: The tile.
        roi: The box of the object.
        class_id: Its class.
        score: Its score.
        box: The box of `crop`.
        crop: Its mask, bool [h, w].
        depth: Distance in pixels from the nearest inner edge of the tile; infinite if it has none.
        is_whole: Whether it stays clear of the inner edges.
    """

    tile: Box
    roi: Box
    class_id: int
    score: float
    box: Box
    crop: np.ndarray
    depth: float
    is_whole: bool

    @property
    def solid(self) -> np.ndarray:
        """Return the mask, or the whole box for a detection with an empty mask."""
        return self.crop if self.crop.any() else np.ones_like(self.crop)

    def part(self, region: Box) -> np.ndarray:
        """Return the mask in a rectangle of the image, bool [h, w]."""
        y1, x1, y2, x2 = region
        canvas = np.zeros((max(0, y2 - y1), max(0, x2 - x1)), bool)
        top, left, bottom, right = intersection(region, self.box)
        if top < bottom and left < right:
            inside = self.solid[top - self.box[0] : bottom - self.box[0], left - self.box[1] :]
            canvas[top - y1 : bottom - y1, left - x1 : right - x1] = inside[:, : right - left]
        return canvas


def located(
    tile: Box,
    image_shape: Sequence[int],
    *,
    roi: Sequence[int],
    class_id: int,
    score: float,
    box: Sequence[int],
    crop: np.ndarray,
) -> Found:
    """Return a detection of a tile with its depth, see `Found`. All boxes are in pixels of the image."""
    y1, x1, y2, x2 = (int(side) for side in roi)
    height, width = image_shape[:2]
    gaps = (
        (y1 - tile[0], y2 - y1, tile[0] > 0),
        (x1 - tile[1], x2 - x1, tile[1] > 0),
        (tile[2] - y2, y2 - y1, tile[2] < height),
        (tile[3] - x2, x2 - x1, tile[3] < width),
    )
    inner = [(gap, side) for gap, side, is_inner in gaps if is_inner]
    return Found(
        tile,
        (y1, x1, y2, x2),
        int(class_id),
        float(score),
        (int(box[0]), int(box[1]), int(box[2]), int(box[3])),
        crop,
        min((gap for gap, _ in inner), default=np.inf),
        all(gap > max(LEAST_MARGIN, MARGIN * side) for gap, side in inner),
    )


def intersection(one: Box, other: Box) -> Box:
    """Return the intersection of two rectangles. Its far edges come first if they do not intersect."""
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


@dataclass(eq=False)
class Candidate:
    """A detection that a later row of tiles may change, or that is needed to decide about another one.

    Attributes:
        found: The detection.
        neighbors: The detections of its class and of other tiles whose masks overlap its own, and how similar
            each is; see `similarity_of`.
        rank: Its place in the order in which detections are kept or dropped.
        is_kept: Whether it is kept.
        is_decided: Whether no later row can change that.
    """

    found: Found
    neighbors: dict["Candidate", float] = field(default_factory=dict)
    rank: int = 0
    is_kept: bool = True
    is_decided: bool = False

    def decide(self, next_top: int | None) -> None:
        """Keep or drop the detection; those of lower ranks come before it."""
        if self.is_decided:
            return
        before = [other for other in self.neighbors if other.found.is_whole and other.rank < self.rank]
        self.is_kept = not is_covered(self.found, [other.found for other in before if other.is_kept])
        reach = max(self.found.roi[2], self.found.box[2])
        is_passed = next_top is None or reach <= next_top
        self.is_decided = is_passed and all(other.is_decided for other in before)

    @property
    def can_leave(self) -> bool:
        """Whether this detection and those that overlap it are decided, so that it can leave the sweep."""
        return self.is_decided and all(other.is_decided for other in self.neighbors)


class Sweep:
    """Apply the rule of seams row by row, keeping only objects that may still change.

    A detection waits for later rows if it reaches into them, or if it depends on one that waits. Objects may
    touch all along the seams, so "is connected with one that waits" would keep nearly all of them to the end.
    """

    def __init__(self) -> None:
        self._candidates: list[Candidate] = []

    def add(self, found: Iterable[Found], next_top: int | None) -> list[Found]:
        """Add the detections of a row of tiles, and return the objects that no later row can change.

        Args:
            found: Detections of the tiles of one row.
            next_top: The first pixel row of the next row of tiles; None after the last.
        """
        every = [*self._candidates, *map(Candidate, found)]
        connect(every, len(self._candidates))
        ranked = sorted((one for one in every if one.found.is_whole), key=_rank)
        ranked += [one for one in every if not one.found.is_whole]
        for rank, one in enumerate(ranked):
            one.rank = rank
        for one in ranked:
            one.decide(next_top)
        finished: list[Found] = []
        stay: set[Candidate] = set()
        for parts in objects([one for one in every if one.is_kept or not one.is_decided]):
            if all(one.can_leave for one in parts):
                finished += united(parts)
            else:
                stay.update(parts)
        self._candidates = [one for one in every if one in stay]
        for one in every:  # what leaves must not stay in memory, linked in circles
            neighbors = one.neighbors.items() if one in stay else ()
            one.neighbors = {other: similarity for other, similarity in neighbors if other in stay}
        return finished


def _rank(one: Candidate) -> tuple[float, float, Box, Box]:
    found = one.found
    return -found.depth, -found.score, found.tile, found.roi


def connect(every: Sequence[Candidate], known: int) -> None:
    """Note which detections of the same class and different tiles overlap; the first `known` ones know it."""
    import shapely

    if len(every) < 2:
        return
    boxes = np.array([one.found.box for one in every])
    rectangles = shapely.box(boxes[:, 1], boxes[:, 0], boxes[:, 3], boxes[:, 2])
    later, earlier = shapely.STRtree(rectangles).query(rectangles[known:], predicate="intersects")
    is_new = earlier < later + known
    for first, second in zip(earlier[is_new], later[is_new] + known, strict=True):
        one, other = every[first], every[second]
        if one.found.tile != other.found.tile and one.found.class_id == other.found.class_id:
            region = intersection(one.found.box, other.found.box)
            if shared_pixels(one.found, other.found, region):
                one.neighbors[other] = other.neighbors[one] = similarity_of(one.found, other.found)


def shared_pixels(one: Found, other: Found, region: Box) -> int:
    """Return the number of pixels that two masks share in a rectangle."""
    return int(np.count_nonzero(one.part(region) & other.part(region)))


def is_covered(one: Found, kept: Sequence[Found]) -> bool:
    """Return whether detections of other tiles cover more than half of a mask."""
    if not kept:
        return False
    mask = one.solid
    cover = np.zeros_like(mask)
    for other in kept:
        cover |= other.part(one.box)
    return bool(np.count_nonzero(cover & mask) > SAME * np.count_nonzero(mask))


def objects(every: Sequence[Candidate]) -> list[list[Candidate]]:
    """Return the groups of detections that may be parts of one object, in the order of their first ones."""
    number = {one: index for index, one in enumerate(every)}
    sets = DisjointSets(len(every))
    for one in every:
        for other, similarity in one.neighbors.items():
            if similarity > SAME and other in number:
                sets.join(number[one], number[other])
    return [[every[index] for index in members] for members in sets.members()]


def united(parts: Sequence[Candidate]) -> list[Found]:
    """Unite the detections that are parts of one object; whole ones stay apart."""
    parts = sorted(parts, key=lambda one: one.rank)
    number = {one: index for index, one in enumerate(parts)}
    links = [
        (-similarity, number[one], number[other])
        for one in parts
        for other, similarity in one.neighbors.items()
        if similarity > SAME and number[one] < number.get(other, 0)
    ]
    sets = DisjointSets(len(parts), [one.found.is_whole for one in parts])
    for _, first, second in sorted(links):
        sets.join(first, second)
    return [union([parts[index].found for index in members]) for members in sets.members()]


def similarity_of(one: Found, other: Found) -> float:
    """Return the similarity, 0 to 1, of two detections in the overlap of tiles. Above SAME, they are one."""
    if one.tile == other.tile or (one.is_whole and other.is_whole):
        return 0.0
    region = intersection(one.tile, other.tile)
    if region[0] >= region[2] or region[1] >= region[3]:
        return 0.0
    # Only the boxes matter: pixels outside of both are empty.
    hull = intersection(region, enclosing(one.box, other.box))
    first, second = one.part(hull), other.part(hull)
    both = np.count_nonzero(first & second)
    areas = np.count_nonzero(first), np.count_nonzero(second)
    needed = areas[0] + areas[1] - both if one.is_whole or other.is_whole else min(areas)
    return both / needed if needed else 0.0


def enclosing(one: Box, other: Box) -> Box:
    """Return the smallest rectangle around two rectangles."""
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def union(parts: Sequence[Found]) -> Found:
    """Unite detections into one object."""
    if len(parts) == 1:
        return parts[0]
    best = max(parts, key=lambda one: one.score)
    roi, box = parts[0].roi, parts[0].box
    for one in parts[1:]:
        roi, box = enclosing(roi, one.roi), enclosing(box, one.box)
    crop = np.zeros((box[2] - box[0], box[3] - box[1]), bool)
    for one in parts:
        crop |= one.part(box) if one.crop.any() else False
    return Found(best.tile, roi, best.class_id, best.score, box, crop, best.depth, True)


class DisjointSets:
    """Disjoint sets of the numbers below `count`: a union-find structure.

    Args:
        count: The number of members.
        single: For each member, whether a set may only have one such member.
    """

    def __init__(self, count: int, single: Sequence[bool] | None = None) -> None:
        self._parent = list(range(count))
        self._single = list(single) if single is not None else [False] * count

    def _root(self, member: int) -> int:
        while self._parent[member] != member:
            self._parent[member] = self._parent[self._parent[member]]
            member = self._parent[member]
        return member

    def join(self, first: int, second: int) -> None:
        """Join the sets of two members, unless both have a single one."""
        one, other = self._root(first), self._root(second)
        if one != other and not (self._single[one] and self._single[other]):
            self._parent[other] = one
            self._single[one] = self._single[one] or self._single[other]

    def members(self) -> list[list[int]]:
        """Return the sets, in the order of their first members."""
        found: dict[int, list[int]] = {}
        for member in range(len(self._parent)):
            found.setdefault(self._root(member), []).append(member)
        return list(found.values())
