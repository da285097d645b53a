"""Run lengths: mask to string and string to mask, against the popular snippet and pycocotools, in one process.

    python benchmarks/rle_speed.py [--repeats 9]

The methods take turns, so a busy machine slows all of them; the median counts. All must agree with each other.
pycocotools gives its own compressed string; converting it to Kaggle's takes a loop in Python: both are shown. With
numba (pip install -e '.[benchmarks]') there is also a compiled loop that reads each pixel once. At the end, the objects
of a label image: here in one pass, elsewhere one mask after another.
"""

import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
from pycocotools import mask as coco

try:
    import numba
except ImportError:
    numba = None

from lib.base.cli import plain_parser
from lib.masks.morphology import components
from lib.masks.rle import decode, decode_labels, encode, encode_labels

SHAPES = ((101, 101, 3), (256, 1600, 9), (768, 768, 15), (1280, 1918, 9), (5000, 5000, 9))  # height, width, blob size


def main() -> None:
    parser = plain_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="timed calls of each method")
    repeats = parser.parse_args().repeats
    cv2.setNumThreads(1)
    compiled_encoders = {} if numba is None else {"one compiled pass": one_pass_encode}
    if numba is None:
        print("not measured: one compiled pass; pip install -e '.[benchmarks]'")
    print(f"{'mask':>12} {'runs':>7}   milliseconds")
    for height, width, size in SHAPES:
        mask = blobs(height, width, size)
        text = encode(mask)
        encoders = {"ours": encode, "snippet": snippet_encode, "pycocotools": coco_encode} | compiled_encoders
        decoders = {"ours": decode, "snippet": snippet_decode, "pycocotools": coco_decode}
        assert all(method(mask) == text for method in encoders.values())
        assert all((method(text, mask.shape) == mask).all() for method in decoders.values())
        encoders["pycocotools, its own string"] = coco_compress
        for verb, methods, inputs in (("encode", encoders, (mask,)), ("decode", decoders, (text, mask.shape))):
            times = ", ".join(f"{name} {value:.2f}" for name, value in medians(methods, inputs, repeats).items())
            print(f"{height:>5} x {width:<4} {len(text.split()) // 2:>7}   {verb}: {times}")
    time_objects(components(blobs(520, 704, 9, level=1))[0], repeats)


def time_objects(labels: np.ndarray, repeats: int) -> None:
    texts = list(encode_labels(labels).values())
    singly = {"snippet": snippet_encode, "pycocotools": coco_encode}
    encoders = {"ours": lambda image: list(encode_labels(image).values())} | {
        name: lambda image, encoder=encoder: [
            encoder((image == number).astype(np.uint8)) for number in range(1, len(texts) + 1)
        ]
        for name, encoder in singly.items()
    }
    assert all(method(labels) == texts for method in encoders.values())
    assert (decode_labels(texts, labels.shape) == labels).all()
    times = ", ".join(f"{name} {value:.2f}" for name, value in medians(encoders, (labels,), repeats).items())
    print(f"  520 x 704  {len(texts):>7} objects   encode: {times}")


def blobs(height: int, width: int, size: int, level: float = 0) -> np.ndarray:
    """A mask of smoothed noise above `level` standard deviations: half the image at 0, single spots at 1."""
    noise = np.random.default_rng(0).normal(size=(height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), size / 3)
    return (smooth > level * smooth.std()).astype(np.uint8)


def medians(methods: dict[str, Callable], inputs: tuple, repeats: int) -> dict[str, float]:
    """Median milliseconds of each method, the methods taking turns."""
    times = {name: [] for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            start = time.perf_counter()
            method(*inputs)
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def snippet_encode(mask: np.ndarray) -> str:
    """The snippet that notebooks copy from one another, with the padding that many copies lack."""
    pixels = np.concatenate([[0], mask.T.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


def one_pass_encode(mask: np.ndarray) -> str:
    return " ".join(map(str, one_pass_runs(mask.T.ravel()).tolist()))


def one_pass_runs(flat: np.ndarray) -> np.ndarray:
    """Starts, from 1, and lengths in turns; compiled where numba is there."""
    numbers, count, before = np.empty(flat.size + 1, np.int64), 0, 0
    for place in range(flat.size):
        value = flat[place]
        if value and not before:
            numbers[count], numbers[count + 1] = place + 1, 0
            count += 2
        if value:
            numbers[count - 1] += 1
        before = value
    return numbers[:count]


if numba is not None:
    one_pass_runs = numba.njit(one_pass_runs)


def snippet_decode(text: str, shape: tuple[int, int]) -> np.ndarray:
    numbers = text.split()
    starts, lengths = (np.asarray(x, dtype=int) for x in (numbers[0::2], numbers[1::2]))
    starts -= 1
    image = np.zeros(shape[0] * shape[1], dtype=np.uint8)
    for low, high in zip(starts, starts + lengths, strict=True):
        image[low:high] = 1
    return image.reshape(shape[::-1]).T


def coco_compress(mask: np.ndarray) -> bytes:
    return coco.encode(np.asfortranarray(mask))["counts"]


def coco_encode(mask: np.ndarray) -> str:
    """pycocotools' counts are differences of second order, five bits a byte (maskApi.c, rleToString)."""
    counts, value, shift = [], 0, 0
    for byte in coco_compress(mask):
        byte -= 48
        value |= (byte & 31) << shift
        shift += 5
        if not byte & 32:
            if byte & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value, shift = 0, 0
    position, numbers = 1, []
    for index, count in enumerate(counts):
        if index % 2:
            numbers += [position, count]
        position += count
    return " ".join(map(str, numbers))


def coco_decode(text: str, shape: tuple[int, int]) -> np.ndarray:
    counts, end = [], 1
    numbers = list(map(int, text.split()))
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        counts += [start - end, length]
        end = start + length
    counts.append(shape[0] * shape[1] + 1 - end)
    return coco.decode(coco.frPyObjects({"size": list(shape), "counts": counts}, *shape))


if __name__ == "__main__":
    main()
