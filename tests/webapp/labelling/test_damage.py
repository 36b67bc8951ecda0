"""A damaged or missing image takes its group out of the queue, is named on the dashboard, and can be made again."""

import pytest
from django.utils import timezone

from common.files import sha256_of
from tests.webapp import acting
from webapp.labelling.models import Generation, Group
from webapp.lib import paths, storage


@pytest.fixture
def group(ready, client, ann):
    """A group on ann's screen, and another one waiting."""
    first, _ = ready(2)
    client.force_login(ann)
    assert client.get("/p/stars/groups/next/").json()["groups"][0]["group"] == acting.task(ann, first)
    return first


def cut(file):
    file.write_bytes(file.read_bytes()[:-5])


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (cut, "bytes, not the"),
        (lambda file: file.write_bytes(b"<html>"), "it is not a WebP image"),
        (lambda file: file.unlink(), "No such file"),
    ],
)
def test_a_damaged_image(group, client, boss, ann, project, harm, said):
    image = group.generations.all()[2]
    harm(paths.data(image.image))
    assert client.get(f"/p/stars/groups/{acting.task(ann, group)}/{image.position}.webp").status_code == 404
    group.refresh_from_db()
    assert (group.state, group.leases.filter(expires_at__gt=timezone.now()).count()) == ("failed", 0)
    assert acting.task(ann, group) not in [g["group"] for g in client.get("/p/stars/groups/next/").json()["groups"]]

    client.force_login(boss)
    page = client.get("/p/stars/").content.decode()
    assert f"Group {group.pk} failed: <bdi>image 3:" in page and said in page
    assert client.post(f"/p/stars/groups/{group.pk}/retry/").status_code == 302
    group.refresh_from_db()
    assert (group.state, group.attempt, group.error) == ("queued", 0, "")
    assert not Generation.objects.filter(group=group).exists()


def test_a_labelled_group_keeps_its_labels_and_is_named_until_it_is_mended(group, client, boss, ann):
    labels = {str(i): True for i in range(4)}
    body = {"labels": labels, "seconds": 1, "key": "k"}
    client.post(f"/p/stars/groups/{acting.task(ann, group)}/submit/", body, content_type="application/json")
    image = group.generations.first()
    whole = paths.data(image.image).read_bytes()
    cut(paths.data(image.image))
    assert client.get(f"/p/stars/groups/{acting.task(ann, group)}/{image.position}.webp").status_code == 404
    group.refresh_from_db()
    assert group.state == "done" and "image 1" in group.error
    assert sum(g.labels.count() for g in group.generations.all()) == 4

    client.force_login(boss)
    page = client.get("/p/stars/").content.decode()
    assert f"Group {group.pk} is labelled and damaged: <bdi>image 1:" in page
    again = client.post(f"/p/stars/groups/{group.pk}/retry/", follow=True).content.decode()
    assert "is still damaged" in again
    paths.data(image.image).write_bytes(whole)
    assert "damaged" not in client.post(f"/p/stars/groups/{group.pk}/retry/", follow=True).content.decode()
    group.refresh_from_db()
    assert (group.state, group.error) == ("done", "")


def test_a_damaged_version_of_a_data_folder_is_refused_by_name(data_folder):
    file = data_folder / "versions" / "round-1-1" / "pytorch_lora_weights.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"a LoRA")
    store, wanted = storage.store(), sha256_of(file)
    assert store.version("versions/round-1-1", wanted) == file.parent
    file.write_bytes(b"a L0RA.")
    with pytest.raises(storage.Damaged, match=r"versions/round-1-1/.* in the data folder is damaged"):
        store.version("versions/round-1-1", wanted)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        store.version("versions/round-1-1", wanted)


def test_only_a_failed_group_is_tried_again(group, client, boss):
    client.force_login(boss)
    page = client.post(f"/p/stars/groups/{group.pk}/retry/", follow=True).content.decode()
    assert "has not failed" in page
    assert Group.objects.get(pk=group.pk).state == "ready"
