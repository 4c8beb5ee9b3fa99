"""The rollout client, as far as it needs no server."""

from types import SimpleNamespace

from trains.host.rollout import BoundedRollout


def test_images_stay_with_the_probed_group_alone():
    groups = [{"info": [SimpleNamespace(image_data=["png"])]} for _ in range(3)]
    rollout = BoundedRollout.__new__(BoundedRollout)
    rollout._prompts, asked = None, []

    def next_batch(prompts, workflow, get_version, give_up):
        assert give_up is None
        asked.append((prompts, workflow, get_version()))
        return groups

    rollout.buffer = SimpleNamespace(next_batch=next_batch)
    rollout.get_version = lambda: 7
    assert rollout.prepare_batch([["row"]], workflow="workflow") is groups
    assert [group["info"][0].image_data for group in groups] == [["png"], None, None]
    rollout.prepare_batch([["row"]], workflow="workflow")
    (first, *rest), (again, *_) = asked
    assert rest == ["workflow", 7]
    assert first is again, "one stream of prompts for all batches"
