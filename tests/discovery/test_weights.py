"""Model files on this machine are found."""

from __future__ import annotations

from pathlib import Path

from ai_router.discovery.weights import find_weights


def test_whole_models_the_smallest_first(tmp_path: Path) -> None:
    hub = tmp_path / ".cache/huggingface/hub/models--o--m/snapshots/abc"
    hub.mkdir(parents=True)
    (tmp_path / "models").mkdir()
    sizes = {hub / "large.Q4_K_M.gguf": 9, tmp_path / "models/Small.GGUF": 3, hub / "two-00001-of-00002.gguf": 5}
    others = ["two-00002-of-00002.gguf", "mmproj-F16.gguf", "nomic-embed.gguf", "README.md"]
    for path, size in [*sizes.items(), *((hub / name, 1) for name in others)]:
        path.write_bytes(b"x" * size)
    (hub / "gone.gguf").symlink_to(hub / "nowhere")
    found = find_weights(tmp_path)
    assert [(file.path.name, file.bytes) for file in found] == [
        ("Small.GGUF", 3),
        ("two-00001-of-00002.gguf", 5),
        ("large.Q4_K_M.gguf", 9),
    ]


def test_no_folder_is_no_file(tmp_path: Path) -> None:
    assert find_weights(tmp_path) == []
