from utils.entropy_control import EntropyCoefficient


def test_without_a_target_nothing_moves():
    fixed = EntropyCoefficient(0.01)
    fixed.update(3.0)
    assert fixed.value == 0.01


def test_towards_a_target():
    """c 0.1 -> 0.2 (below the target) -> 0.1, 0, 0 (above it, and without effect there) -> 0.1 (below again)."""
    moving = EntropyCoefficient(0.1, target=1.0, step=0.1)
    assert moving.value == 0.1
    found = []
    for entropy in (0.5, 1.5, 1.5, 1.5, 0.9):
        moving.update(entropy)
        found.append((round(moving.state[0], 9), round(moving.value, 9)))
    assert found == [(0.2, 0.2), (0.1, 0.0), (0.0, 0.0), (0.0, 0.0), (0.1, 0.1)]
