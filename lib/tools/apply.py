"""Predict other images with a finished run, or with the bundle that lib.tools.export made of one.

    python -m lib.tools.apply runs/NAME --out FOLDER data.root=FOLDER       a test set and its sample submission
    python -m lib.tools.apply runs/NAME --out FOLDER --images FOLDER        any images, without a sample

reads    the models and the rules that 03 and 05 chose, and the images; neither training images nor their maps
writes   FOLDER/maps/ (probability maps, kept for the next time) and submission.csv, or with --images masks/ID.png

The source and the images may be read-only. Rules are applied, never tuned again. With --hours, views and folds are
dropped when time runs short: first the next smaller one of d4, flips, hflip and none, then the highest-numbered folds.
"""

import argparse
import math
import shlex
import time
from pathlib import Path

import yaml

from lib.base.cli import StageSummary, parser, run_command
from lib.base.errors import UserError

STARTED = time.monotonic()


def apply(arguments: argparse.Namespace) -> StageSummary | None:
    from lib.base.distributed import is_first
    from lib.base.files import write_json
    from lib.data.competition import open_test
    from lib.data.discovery import skipped_files
    from lib.data.value_range import value_range_line
    from lib.deploy.apply import predict_images
    from lib.deploy.finished import open_finished
    from lib.submission.outputs import RECORD, require_apart, require_format, set_aside, write_outputs, write_overlays

    require_apart(arguments.out, arguments.source)
    overrides = [*overrides_of(arguments.images), *arguments.overrides]
    finished = open_finished(arguments.source, overrides, arguments.folds)
    settings, out = finished.settings, arguments.out
    require_format(settings)
    test = open_test(settings.data)
    if is_first():
        set_aside(out)
        if test.warning:
            print(f"warning   {test.warning}")
        if arguments.images and (skipped := skipped_files(settings.data.root / settings.data.test_images)):
            print(f"warning   {skipped} in {arguments.images} are not read")
        if arguments.images and (line := value_range_line(test)).startswith("warning"):
            print(line, end="")
    print(f"{len(test.ids)} images; {finished}", flush=True)
    maps = predict_images(finished, test, out / "maps", arguments.hours, STARTED)
    if not is_first():
        return None
    written, description = write_outputs(out, test, maps, finished.rules, settings, zipped=arguments.images is None)
    print(f"{written[0]}: {description}")
    if arguments.overlays:
        write_overlays(out / "overlays", test, maps, finished.rules, settings)
    without = [image_id for image_id in test.ids if image_id not in maps.names]
    if without:
        print(f"warning   no time was left for {len(without)} of {len(test.ids)} images; their masks are empty")
    seconds = time.monotonic() - STARTED
    results = {"images": len(test.ids), "without_map": without, "rules": str(finished.rules_file)}
    write_json(out / RECORD, {**results, "seconds": round(seconds, 2), "written": [str(path) for path in written]})
    following = "upload" if arguments.images is None else "look at"
    return StageSummary(written, f"{following} {shlex.quote(str(written[0]))}", seconds, results)


def overrides_of(images: str | None) -> list[str]:
    """The settings that --images sets, from a folder or a pattern such as photos/{day}/*.tif."""
    from lib.data.discovery import PLACEHOLDER, WILDCARD

    if images is None:
        return []
    root, pattern, image_id = Path(images), ".", "{id}"
    if root.is_file():
        raise UserError(f"--images {images} is a file; give its folder, or a pattern such as {root.parent / '*'}")
    if WILDCARD.search(images):
        root, pattern = Path(root.anchor), root.relative_to(root.anchor).as_posix()
        if not PLACEHOLDER.search(pattern):  # photos/*.jpg
            folders, slash, name = pattern.rpartition("/")
            pattern = folders + slash + name.replace("*", "{id}", 1)
            if len(WILDCARD.findall(name)) == 1 and "*" in name:  # photos/day_*.jpg: masks keep day_
                image_id = Path(name).stem.replace("*", "{id}")
    places = {
        "root": str(root),
        "test_images": pattern,
        "sample_submission": None,
        "image_id": image_id,
        "test_id": None,
    }
    return [
        *(f"data.{key}={yaml.safe_dump(value, width=math.inf)}" for key, value in places.items()),
        "submission.format=png",
    ]


def positive(text: str) -> float:
    """A number above 0, for argparse."""
    if not (number := float(text)) > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def main(source: Path | None = None) -> None:
    """Run the command; a bundle passes itself as the source."""
    command = parser(__doc__)
    if source is None:
        command.add_argument("source", type=Path, metavar="runs/NAME", help="a run after 05, or a bundle")
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="everything is written here")
    command.add_argument("--images", metavar="FOLDER", help="images without a sample submission: masks are written")
    command.add_argument("--hours", type=positive, help="time limit")
    command.add_argument("--folds", type=int, nargs="+", metavar="K", help="use only these folds' models")
    command.add_argument("--overlays", action="store_true", help="also write the images with their masks drawn in")
    command.set_defaults(**({"source": source} if source else {}))
    run_command(apply, command)


if __name__ == "__main__":
    main()
