import cv2
import numpy as np
import pytest

from lib.base.errors import UserError
from lib.checks.rle_sizes import require_written_sizes
from lib.config.data_settings import DataSettings
from lib.data.competition import open_training


def training(root, sizes, rows, columns="id,rle,image_height,image_width"):
    (root / "train_images").mkdir()
    for number, size in enumerate(sizes):
        cv2.imwrite(str(root / f"train_images/{number}.png"), np.zeros(size, np.uint8))
    lines = [columns, *(",".join([str(number), "1 2", *map(str, values)]) for number, values in enumerate(rows))]
    (root / "train.csv").write_text("\n".join(lines))
    return open_training(DataSettings(root=root))


def test_images_enlarged_by_a_whole_factor_are_read_by_the_setting(tmp_path):
    data = training(tmp_path, [(20, 30), (40, 24)], [(10, 15), (20, 12)])
    with pytest.raises(UserError, match="2 images of 2.*20 x 30 instead of 10 x 15.*or set data.rle_factor=2"):
        require_written_sizes(data)
    data.settings = data.settings.model_copy(update={"rle_factor": 2})
    require_written_sizes(data)
    data.settings = data.settings.model_copy(update={"rle_factor": 1, "doubtful_rle": "read"})
    require_written_sizes(data)


def test_reduced_images_are_refused(tmp_path):
    with pytest.raises(
        UserError, match="10 x 15 instead of 20 x 30.*use the images as they were, or set data.doubtful_rle"
    ):
        require_written_sizes(training(tmp_path, [(10, 15), (20, 12)], [(20, 30), (20, 12)]))


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([(5, 4), (9, 3), (2, 7)], "id,rle,height,width"),  # of boxes
        ([(1.5, 2.5), (1.5, 2.5), (3.5, 1)], "id,rle,height,width"),  # millimetres
        ([(0, 0), (9, 3), (0, 0)], "id,rle,height,width"),
        ([(20, 30)] * 3, "id,rle,size_y,size_x"),
    ],
)
def test_columns_that_mean_something_else_are_no_sizes(tmp_path, rows, columns):
    require_written_sizes(training(tmp_path, [(20, 30), (20, 30), (20, 31)], rows, columns))


def test_two_columns_of_heights_are_no_sizes(tmp_path):
    assert training(tmp_path, [(20, 30)], [(20, 20)], "id,rle,height,image_height").written_sizes == {}


def test_boxes_of_several_objects_are_no_sizes(tmp_path):
    data = training(tmp_path, [(20, 30), (20, 30)], [(20, 30), (20, 30)])
    assert data.written_sizes == {"0": (20, 30), "1": (20, 30)}
    table = tmp_path / "train.csv"
    table.write_text(table.read_text() + "\n0,5 2,20,29")
    assert open_training(DataSettings(root=tmp_path, instances=True)).written_sizes == {}
