"""A comparison of losses: every formula with several seeds on the same folds, each image scored out of fold.

    python benchmarks/losses.py WORK                      needs the demo data (`make demo` makes it)
    python benchmarks/losses.py WORK --config configs/nuclei.yaml --only bce dice_focal dice_focal_boundary \\
        train.epochs=8 train.crop_size=128                any other data, any settings

A stopped command continues when it is typed again. The first row is the baseline of the others.
"""

from experiments import comparison, finish, finished_variants, markdown, parser, runs_of

from lib.base.cli import run_command

VARIANTS = {
    "bce": ("bce",),
    "dice": ("dice",),
    "focal": ("focal",),
    "bce_dice": ("bce + dice",),
    "dice_focal": ("dice + focal",),
    "dice_focal_boundary_constant": ("dice + focal + boundary", "constant"),
    "dice_focal_boundary": ("dice + focal + boundary", "ramp"),
    "dice_focal_10boundary_constant": ("dice + focal + 10*boundary", "constant"),
    "dice_focal_10boundary": ("dice + focal + 10*boundary", "ramp"),
    "3dice_focal_10boundary": ("3*dice + focal + 10*boundary", "ramp"),
    "bce_dice_boundary": ("bce + dice + boundary", "ramp"),
    "border_bce": ("border_bce",),
    "lovasz": ("lovasz",),
}


def settings_of(variant: str) -> tuple[str, ...]:
    """The overrides of one row."""
    terms, *schedule = VARIANTS[variant]
    return (f"loss.terms={terms}", *(f"loss.boundary_schedule={kind}" for kind in schedule))


def losses(arguments) -> None:
    runs = runs_of(arguments, {variant: settings_of(variant) for variant in VARIANTS})
    finish(runs, arguments.work, arguments.parallel)
    print(markdown(comparison(finished_variants(runs, arguments.work), arguments.work), "loss"))


if __name__ == "__main__":
    run_command(losses, parser(__doc__))
