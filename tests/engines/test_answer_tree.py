"""Answer trees, stems and packs: every path once, nothing lost, nothing shared that is not the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmpo_ray.engines.answer_tree import Stem, build_tree, common_prefix, find_root, find_stems, pack, run_of

answers = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=6)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), answers)
def test_a_tree_holds_every_path_once_and_predicts_every_answer(
    question: list[int], texts: list[list[int]]
) -> None:
    tree = build_tree(question, texts)
    paths = []
    for node in range(tree.size):
        path, at = [], node
        while at >= 0:
            path.append(tree.tokens[at])
            at = tree.parents[at]
        paths.append(tuple(reversed(path)))
        assert tree.depths[node] == len(path) - 1
        assert tree.ancestry()[node].sum() == len(path)
    wanted = {tuple(question + text[:n]) for text in texts for n in range(len(text))}
    assert set(paths[len(question) - 1 :]) == wanted
    assert len(paths) == len(set(paths))
    for text, rows, targets in zip(texts, tree.rows, tree.targets, strict=True):
        assert list(targets) == text
        assert [paths[row] for row in rows] == [tuple(question + text[:n]) for n in range(len(text))]


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9)), max_size=30),
    st.integers(1, 100),
    st.integers(1, 30),
)
def test_packing_keeps_the_order_and_both_bounds(pairs: list[tuple[int, int]], size: int, cost: int) -> None:
    sizes, costs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    groups = pack(sizes, costs, size, cost)
    assert [index for group in groups for index in group] == list(range(len(pairs)))
    for group in groups:
        fits = sum(sizes[i] for i in group) <= size and sum(costs[i] for i in group) <= cost
        assert fits or len(group) == 1


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_prefix(first: list[int], second: list[int]) -> None:
    length = common_prefix(first, second)
    assert first[:length] == second[:length]
    assert first[length : length + 1] != second[length : length + 1] or length == min(len(first), len(second))


questions = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=7).map(tuple), min_size=1, max_size=8)


@given(questions)
def test_the_root_is_all_that_is_shared_but_the_last_token_of_each(texts: list[tuple[int, ...]]) -> None:
    root = find_root(texts)
    assert all(text[:root] == texts[0][:root] and len(text) > root for text in texts)
    longer = {text[: root + 1] for text in texts}
    assert len(longer) > 1 or min(map(len, texts)) == root + 1


def best_saving(members: list[int], texts: list[tuple[int, ...]]) -> int:
    """What the best stems over `members` save, by trying every grouping of the trie."""
    if len(members) < 2:
        return 0
    shared = find_root([texts[member] for member in members])
    branches: dict[int | None, list[int]] = {}
    for member in members:
        following = texts[member][shared] if len(texts[member]) > shared + 1 else None
        branches.setdefault(following, []).append(member)
    # Where a text ends, its last token stays its own: it shares no deeper node.
    inside = sum(best_saving(group, texts) for key, group in branches.items() if key is not None)
    return max(shared * (len(members) - 1), inside if len(branches) > 1 else 0)


@settings(max_examples=300)
@given(questions)
def test_stems_are_shared_by_their_members_and_save_the_most(texts: list[tuple[int, ...]]) -> None:
    stems = find_stems(texts, 1)
    members = [member for stem in stems for member in stem.members]
    assert len(members) == len(set(members))
    for stem in stems:
        assert len(stem.members) > 1
        beginnings = {texts[member][: stem.length] for member in stem.members}
        assert len(beginnings) == 1
        assert all(len(texts[member]) > stem.length for member in stem.members)
    assert sum(stem.saved for stem in stems) == best_saving(list(range(len(texts))), texts)


def test_stems_that_save_too_little_are_left_out() -> None:
    texts = [(1, 2, 3, 9), (1, 2, 3, 8), (4, 5, 7), (4, 5, 6)]
    assert find_stems(texts, 5) == [Stem(3, (0, 1)), Stem(2, (2, 3))]
    assert find_stems(texts, 6) == []
    assert find_stems(texts[:1], 1) == []


def test_a_run_is_a_tree_without_branches() -> None:
    assert run_of((7, 8, 9)) == build_tree((7, 8, 9), ())


@pytest.mark.slow
def test_empty_questions_and_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        build_tree((), ((1,),))
    with pytest.raises(ValueError, match="no empty answer"):
        build_tree((1,), ((),))
