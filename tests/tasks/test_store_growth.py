"""What a commit costs does not grow with what is there."""

from pathlib import Path

import numpy as np

from tasks.store import Rows, Store


def test_files_per_commit_are_bounded_and_do_not_grow(tmp_path: Path) -> None:
    uri = tmp_path / "results"
    store = Store.create(str(uri))
    added, before = [], 0
    with store.coordinate() as coordinator:
        for commit in range(40):
            ids = [f"{commit:03d}{i:017d}" for i in range(100)]
            points = [
                {"point_id": name, "cell_id": "c", "status": "ok", "samples": 500, "dim": 1, "w1": 0.1} for name in ids
            ]
            samples = {name: np.full((500, 1), commit, dtype=np.float32) for name in ids}
            coordinator.commit(Rows(points=points, samples=samples), "a shard", {})
            now = sum(file.is_file() for file in Path(uri).rglob("*"))
            added.append(now - before)
            before = now
    assert max(added[1:]) <= 40  # a hundred points with samples
    assert max(added[-10:]) <= max(added[10:20])  # the first chunks are so small that they lie in the manifests
