import os

import pytest

from utils.files import replacing


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "file"
    with replacing(path) as file:
        file.write(b"old")
    with pytest.raises(TypeError, match="bytes"), replacing(path) as file:
        file.write("no bytes")
    assert os.listdir(path.parent) == ["file"]
    assert path.read_bytes() == b"old"
