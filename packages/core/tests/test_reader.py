import numpy as np
import pytest
import torch
from PIL import Image

from reweight_core.data.images import ImageFiles
from reweight_core.data.reader import ReadRequest, read_ahead
from reweight_core.errors import UserError

SIZE, COUNT = 6, 7
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    rng = np.random.RandomState(0)
    for i in range(COUNT):
        Image.fromarray(rng.randint(256, size=(9 + i, 14 - i, 3)).astype(np.uint8)).save(root / f"{i}.png")
    return ImageFiles(root, np.array([f"{i}.png" for i in range(COUNT)], dtype=object), SIZE)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_from_any_number_of_workers(files, workers):
    parts = [np.array([6, 1]), np.array([0]), np.array([3, 3, 2])]
    state = torch.random.get_rng_state()
    found = list(read_ahead([ReadRequest(files, ids, (9,)) for ids in parts], workers, CPU))
    assert all((pixels.numpy() == files.read(ids, (9,))).all() for pixels, ids in zip(found, parts, strict=True))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named_in_one_line(tmp_path, workers):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    files = ImageFiles(tmp_path, np.array(["broken.jpg"], dtype=object), SIZE)
    with pytest.raises(UserError, match=r"broken\.jpg: cannot be read as an image") as refused:
        list(read_ahead([ReadRequest(files, np.array([0]), None)], workers, CPU))
    assert "\n" not in str(refused.value)
