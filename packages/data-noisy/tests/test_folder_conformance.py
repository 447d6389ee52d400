import numpy as np
import pytest
from PIL import Image

from reweight_core.testing import DataSuite


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.RandomState(0)
    for part, count in (("train", 30), ("test", 3)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.randint(0, 256, (6, 5, 3), np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return root


class TestFolder(DataSuite):
    name = "folder"

    @pytest.fixture
    def given(self, photos):
        return {"data_root": photos}


class TestFolderLongTail(TestFolder):
    name = "folder-lt"


class TestStreamedFolder(TestFolder):
    @pytest.fixture
    def given(self, photos):
        return {"data_root": photos, "image_size": 4, "stream": "on"}
