"""What the members of an ensemble must have in common."""

import pytest

from lib.base.errors import UserError
from lib.config.check import save_settings
from lib.config.schema import Settings
from lib.run.folder import RunFolder
from lib.run.members import open_members, require_test_images


def test_a_member_without_test_images_is_named_where_the_ensemble_has_some(tmp_path):
    for name, test_images in (("with", "test_images"), ("without", None)):
        save_settings(Settings(name=name, data={"test_images": test_images}), RunFolder(tmp_path / name).config)
    members = {"members": [tmp_path / "with", tmp_path / "without"]}
    with pytest.raises(UserError, match=r"data\.test_images of .*/without is not set.*04_infer\.py --run .*/without"):
        require_test_images(Settings(name="both", ensemble=members))
    require_test_images(Settings(name="both", ensemble=members, data={"test_images": None}))
    require_test_images(Settings(name="one"))


def test_a_member_that_is_gone_is_not_to_be_made_anew(tmp_path, monkeypatch):
    """As where runs were moved, or commands are typed in another folder."""
    monkeypatch.chdir(tmp_path)
    save_settings(Settings(name="a"), RunFolder(tmp_path / "runs/a").config)
    with pytest.raises(UserError, match=r"ensemble\.members: runs/b does not exist in .*; put the run back, or name"):
        open_members(Settings(name="both", ensemble={"members": ["runs/a", "runs/b"]}))
