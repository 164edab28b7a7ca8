"""What killed processes were writing goes after a day; what is being written stays."""

import os
import time

from requests_app.workers import unfinished


def test_what_a_killed_process_was_writing_goes_after_a_day(data_dir):
    folder = data_dir / "requests" / "1" / "artifacts" / "1"
    folder.mkdir(parents=True)
    old = time.time() - unfinished.AFTER_SECONDS - 1
    left = [folder / "dataset.zip.77.part", folder / ".recipe.json.77.tmp", folder / "model.whole"]
    half_model = folder / ".model.77.tmp"
    half_model.mkdir()
    (half_model / "model.onnx").write_bytes(b"half")
    going_on = folder / "dataset.zip.78.part"
    whole = folder / "dataset.zip"
    for path in (*left, going_on, whole):
        path.write_bytes(b"half")
    for path in (*left, half_model, whole):
        os.utime(path, (old, old))
    assert unfinished.remove_unfinished() == 4
    assert sorted(path.name for path in folder.iterdir()) == ["dataset.zip", "dataset.zip.78.part"]
