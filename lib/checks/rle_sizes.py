"""Check that the images have the sizes for which their run lengths were written, where the table names them."""

from lib.base.errors import UserError, has, listed, or_none, plural
from lib.data.competition import TrainingData
from lib.masks.resize import Size, have_one_shape

MOST = 0.5  # of the images; if more have the sizes in the table, the others should, too


def require_written_sizes(training: TrainingData) -> None:
    """Raise UserError if images have another size than the columns of heights and widths beside the run lengths say.

    Columns that fit few images, and whose sizes have another shape than the rest, are taken to mean something else, and
    all are with data.doubtful_rle=read.
    """
    if training.settings.doubtful_rle == "read":
        return
    factor = training.settings.rle_factor
    expected = {id: (factor * height, factor * width) for id, (height, width) in training.written_sizes.items()}
    found = {id: size for id in expected if (size := or_none(training.image_size, id))}
    other = [id for id, size in found.items() if size != expected[id]]
    means_sizes = len(other) < MOST * len(found) or all(have_one_shape(found[id], expected[id]) for id in other)
    if not other or not means_sizes:
        return
    table = training.settings.root / training.settings.train_masks
    (height, width), (written_height, written_width) = found[other[0]], training.written_sizes[other[0]]
    raise UserError(
        f"{plural(len(other), 'image')} of {len(found)}, such as {listed(other)}, {has(other)} a different size from "
        f"the one that {table} says: {height} x {width} instead of {written_height} x {written_width}. Run lengths "
        "count the pixels of that size; use the images as they were"
        f"{_with_factor([(found[id], training.written_sizes[id]) for id in found])}, or set data.doubtful_rle=read if "
        "these columns mean something else"
    )


def _with_factor(pairs: list[tuple[Size, Size]]) -> str:
    """The setting that reads all of them, if each image is a whole number of times larger; else an empty text."""
    factors = {length / written for pair in pairs for length, written in zip(*pair, strict=True)}
    factor = factors.pop() if len(factors) == 1 else 1.0
    return f", or set data.rle_factor={factor:.0f}" if factor > 1 and factor == int(factor) else ""
