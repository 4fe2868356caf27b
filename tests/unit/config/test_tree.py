"""Walk over a config tree."""

from llmft.config.tree import walk


def test_paths_of_keys_and_items_parents_first():
    node = {"data": {"sets": [{"path": "a"}, "b"]}, "seed": 1}
    assert list(walk(node)) == [
        ("", node),
        ("data", node["data"]),
        ("data.sets", node["data"]["sets"]),
        ("data.sets[0]", {"path": "a"}),
        ("data.sets[0].path", "a"),
        ("data.sets[1]", "b"),
        ("seed", 1),
    ]
    assert list(walk("x", "hydra")) == [("hydra", "x")]
