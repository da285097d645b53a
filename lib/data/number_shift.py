"""Ids that are the images' except for the number they count from: most match an image, but the wrong one."""

from collections import Counter, defaultdict
from collections.abc import Collection

from lib.data.id_match import LAST_NUMBER
from lib.data.id_texts import MAJORITY

FITTING = 0.9  # share of the numbers of a series that must be images' once they are shifted; a few files may be absent


def shifted_numbers(ids: Collection[str], image_ids: Collection[str]) -> str | None:
    """The doubt about ids whose numbers are all larger, or all smaller, than those of the images by the same amount.

    A series is what has one text around the number, such as the frames of a video; each is judged by itself. Series of
    which little is known, and a minority of all that match no image, raise no doubt.
    """
    of_ids, of_images = _series(ids), _series(image_ids)
    shift_of = {text: shift for text in of_ids if (shift := _shift(of_ids[text], of_images.get(text, set())))}
    most = Counter(shift_of.values()).most_common(1)
    shifted = sorted(text for text, shift in shift_of.items() if shift == most[0][0])
    lost = sum(len(of_ids[text] - of_images[text]) for text in shifted)
    all_lost = len({*ids} - {*image_ids})
    if sum(len(of_ids[text]) for text in shifted) < 2 or lost <= MAJORITY * all_lost:
        return None
    first = shifted[0]
    ends = [sorted({min(numbers), max(numbers)}) for numbers in (of_ids[first], of_images[first])]
    ranges = [" to ".join(map(str, numbers)) for numbers in ends]
    which = "they" if len(of_ids) == 1 else f"those called '{'#'.join(first)}'"
    return (
        f"{which} are numbered {ranges[0]}, the images {ranges[1]}, so that equal numbers may be different images; "
        "number both alike"
    )


def other_start(ids: Collection[str], image_ids: Collection[str]) -> str:
    """A remark on images that count from 0 where ids count from 1; blank if there are none.

    The first image may just have no mask, so that this is no reason to refuse it.
    """
    of_ids, of_images = _series(ids), _series(image_ids)
    odd = [text for text in of_ids if text in of_images and (min(of_ids[text]), min(of_images[text])) == (1, 0)]
    return (
        "; masks count from 1, images from 0: number both alike if the first mask is the first image's" if odd else ""
    )


def _series(names: Collection[str]) -> dict[tuple[str, str], set[int]]:
    """The last numbers of names by the texts before and after them."""
    series = defaultdict(set)
    for match in filter(None, map(LAST_NUMBER.fullmatch, names)):
        series[match[1], match[3]].add(int(match[2]))
    return series


def _shift(numbers: set[int], of_images: set[int]) -> int:
    """How much must be taken from the numbers to fit those of images whose range they leave at one end; 0 for no doubt.

    Numbers that begin later and end later than the images' are shifted if both by as much. If not, masks at the ends
    may be absent; only a shift by one, as between counts from 0 and from 1, is then suspected, and only if most images
    have a mask: a few masks would fit anywhere.
    """
    if not of_images:
        return 0
    at_start, at_end = min(numbers) - min(of_images), max(numbers) - max(of_images)
    shift = at_end if at_end > 0 else min(at_start, 0)
    fitting = sum(number - shift in of_images for number in numbers)
    if not at_end <= shift <= at_start or fitting < FITTING * len(numbers):
        return 0
    is_likely = at_start == at_end or (abs(shift) == 1 and len(numbers) > MAJORITY * len(of_images))
    return shift if is_likely else 0
