"""The index of the images: the files of each id, and the parts of their names."""

from collections import defaultdict

from lib.base.errors import SHOWN, UserError, listed
from lib.config.data_settings import DataSettings
from lib.data.discovery import find_files, is_excluded, make_id
from lib.data.unread_kinds import packed

LISTING = ("root", "train_images", "test_images", "image_id", "exclude")  # settings that say which images there are


def listed_as(settings: DataSettings, other: DataSettings) -> DataSettings:
    """Settings that read images as `settings` do, those that `other` names."""
    return settings.model_copy(update={name: getattr(other, name) for name in LISTING})


def list_images(
    settings: DataSettings, pattern: str, setting: str
) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    """The files of each image, and what the pattern's placeholders stand for, by id; excluded ids left out."""
    if not settings.root.is_dir():
        raise UserError(f"the data folder {settings.root} does not exist (data.root){packed(settings.root)}")
    files = defaultdict(list)
    parts_of = {}
    is_test = setting == "data.test_images" and settings.test_id is not None
    template = (settings.test_id, "data.test_id") if is_test else (settings.image_id, "data.image_id")
    for parts, path in find_files(settings.root, pattern, setting):
        image_id = make_id(template[0], parts, path, template[1])
        if not is_excluded(image_id, settings):
            files[image_id].append(path)
            parts_of[image_id] = parts
    _check_number_of_files(files, settings, setting)
    if not files:
        raise UserError(f"data.exclude leaves no image of {setting} = '{pattern}'")
    return dict(files), parts_of


def _check_number_of_files(files: dict[str, list[str]], settings: DataSettings, setting: str) -> None:
    """Raise UserError where images have several files and data.plane_files does not say so, or too few or many."""
    wanted = settings.channels if settings.plane_files else 1
    odd = sorted(image_id for image_id, paths in files.items() if len(paths) != wanted)
    if not odd:
        return
    first = ", ".join(files[odd[0]][: SHOWN + 1])
    if settings.plane_files:
        raise UserError(
            f"images {listed(odd)} have another number of files than data.channels = {settings.channels}: {first} "
            "(data.plane_files)"
        )
    raise UserError(
        f"{len(odd)} ids have several files each, such as {listed(odd[:1])}: {first}; let data.image_id tell them "
        f"apart, as in {{folder}}_{{id}} with {setting} = .../{{folder}}/{{id}}.png, or set data.plane_files=true "
        "if they are the planes of one image"
    )
