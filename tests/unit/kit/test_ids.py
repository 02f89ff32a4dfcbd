"""Ids."""

from backend.kit.ids import new_id


def test_ids_are_unique_sorted_by_creation_and_without_colon() -> None:
    ids = [new_id("run") for _ in range(1000)]
    assert len(set(ids)) == 1000 and ids == sorted(ids)
    assert all(i.startswith("run_") and ":" not in i for i in ids)
