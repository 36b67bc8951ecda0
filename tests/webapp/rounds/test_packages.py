"""A version's package: the LoRA with its scale in it, and a card that tells where the version came from."""

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from django.utils import timezone
from safetensors.numpy import load

from common.files import sha256_of
from tests.webapp import acting
from tests.webapp.loras import LORA, A, B, write_lora
from webapp.accounts.models import User
from webapp.campaigns.models import AuditEntry
from webapp.labelling import scoring
from webapp.lib import options, paths
from webapp.rounds import services, sharing
from webapp.rounds.models import ModelVersion, Sharing
from workers import hub


@pytest.fixture
def version(project, boss, ann, ready):
    """Version 2, as a round of 8 labels by a person and 4 by an oracle leaves it."""
    one, two = ready(2)
    for group in (one, two):
        answer = {0: True, 1: False, 2: False, 3: True}
        acting.submit_group(ann, project, group.pk, answer, seconds=1, idempotency_key=f"key-{group.pk}")
    verdict = {"score": 0.5, "liked": False, "reason": "-", "correct": False}
    scoring.record_oracle_labels(two.pk, "demo", [verdict] * 4)
    training = services.start_round(project, {"beta_dpo": 3.0}, idempotency_key="k", user=boss)
    training = services.claim_round(training.pk, "worker")
    spec = json.loads(services.write_spec(training).read_text())
    folder = Path(spec["output_dir"])
    write_lora(folder)
    (folder / "version.json").write_text(json.dumps({"labels": spec["labels"], "parent": spec["parent_dir"]}))
    grid = paths.round_dir(training.pk) / "grid"
    grid.mkdir()
    (grid / "after.webp").write_bytes(b"RIFF picture")
    result = {"sha256": sha256_of(folder / LORA), "scores_before": {"reward": 0.25}, "scores_after": {"reward": 0.75}}
    return services.finish_round(training.pk, training.token, result)


@pytest.fixture
def get(client, boss):
    client.force_login(boss)

    def fetch(name):
        answer = client.get(f"/p/stars/versions/2/{name}/")
        return b"".join(answer.streaming_content) if answer.status_code == 200 else answer.status_code

    return fetch


def test_the_lora_needs_no_header_to_be_read(version, get):
    tensors = load(get("lora"))
    assert tensors[A].tolist() == np.ones((2, 3)).tolist()
    assert tensors[B].tolist() == np.full((4, 2), 3.0).tolist()  # alpha / rank


def test_the_zip_has_lora_card_and_pictures(version, get):
    packed = zipfile.ZipFile(io.BytesIO(get("package")))
    assert set(packed.namelist()) == {LORA, "README.md", "images/after.webp"}
    assert packed.testzip() is None
    assert packed.read(LORA) == get("lora")
    card = packed.read("README.md").decode()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["model-index"][0]["results"][0]["metrics"] == [{"type": "reward", "value": 0.75}]
    assert "# Stars, version 2" in card
    assert "| people | 8 |" in card and "| demo | 4 |" in card
    assert "| `beta_dpo` | 3.0 | 10.0 |" in card
    assert card.index("| version 2 |") < card.index("| version 1 |") < card.index("(base)")
    assert str(paths.data("")) not in card


def test_a_version_whose_file_is_gone_or_damaged_is_not_found(version, get):
    file = paths.model_version(version.path) / LORA
    file.write_bytes(b"damaged")
    assert [get("lora"), get("package")] == [404, 404]
    file.unlink()
    assert [get("lora"), get("package")] == [404, 404]


@pytest.fixture
def send():
    """What a worker does with what waits."""
    return lambda: [hub.send(pk) for pk in sharing.waiting()]


def told(answer):
    return [str(message) for message in answer.context["messages"]]


def state(page):
    """The states that the page shows, newest first."""
    return re.findall(r'data-state="(\w+)"', page)


def test_a_version_is_shared_with_its_card_and_workflow(
    version, client, boss, fake_hub, send, django_capture_on_commit_callbacks, monkeypatch
):
    (Path(version.project.model_dir) / "model_index.json").write_text('{"_class_name": "StableDiffusion3Pipeline"}')
    sent = []
    monkeypatch.setattr("webapp.lib.broker.send", lambda kind, row: sent.append((kind, row)))
    client.force_login(boss)
    page = client.get("/p/stars/versions/").content.decode()
    assert "/versions/2/share/" in page and state(page) == []
    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post("/p/stars/versions/2/share/", {"repository": "team/stars"}, follow=True)
    assert told(answer) == ["Version 2 is on its way to team/stars."]
    assert sent == [("share_version", Sharing.objects.get().pk)] and fake_hub.made == []
    assert state(answer.content.decode()) == ["queued"]
    send()
    assert fake_hub.made == [("team/stars", True)] and fake_hub.messages == ["Stars, version 2"]
    assert set(fake_hub.files) == {LORA, "README.md", "comfyui-workflow.json", "images/after.webp"}
    assert load(fake_hub.files[LORA])[B].tolist() == np.full((4, 2), 3.0).tolist()
    assert json.loads(fake_hub.files["comfyui-workflow.json"])["10"]["inputs"]["lora_name"] == LORA
    entry = AuditEntry.objects.get(action="version shared")
    assert entry.user == boss and entry.detail["address"].endswith("/team/stars")
    part = client.get("/p/stars/versions/", headers={"HX-Request": "true"}).content.decode()
    assert state(part) == ["done"] and f'href="{fake_hub.address}/team/stars"' in part and "<h1" not in part
    send()
    assert len(fake_hub.made) == 1


def test_what_is_no_repository_is_refused_at_once(version, client, boss, fake_hub, monkeypatch):
    client.force_login(boss)
    answer = client.post("/p/stars/versions/2/share/", {"repository": "stars"}, follow=True)
    assert told(answer) == ["repository: give it as owner/name"]
    for _ in range(2):
        answer = client.post("/p/stars/versions/2/share/", {"repository": "team/stars"}, follow=True)
    assert told(answer) == ["repository: this version is on its way there already"]
    for n in range(sharing.AT_ONCE):
        answer = client.post("/p/stars/versions/2/share/", {"repository": f"team/stars{n}"}, follow=True)
    assert told(answer) == ["versions: 5 of this project are on their way already; wait for one"]
    monkeypatch.delenv("HF_TOKEN")
    assert "/versions/2/share/" not in client.get("/p/stars/versions/").content.decode()


def test_what_the_hub_refuses_has_failed_and_nothing_is_noted(version, client, boss, fake_hub, monkeypatch, send):
    client.force_login(boss)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    client.post("/p/stars/versions/2/share/", {"repository": "team/stars", "public": "on"})
    send()
    page = client.get("/p/stars/versions/").content.decode()
    assert state(page) == ["failed"] and "the hub refused: " in page
    assert not AuditEntry.objects.filter(action="version shared").exists()


def test_a_hub_that_is_away_is_asked_again(version, boss, fake_hub, monkeypatch, send):
    found = sharing.ask(version, "team/stars", private=True, by=boss)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    for _ in range(options.TRIES - 1):
        send()
        found.refresh_from_db()
        assert found.state == "queued" and "cannot be reached" in found.error
    monkeypatch.setenv("HF_ENDPOINT", fake_hub.address)
    send()
    found.refresh_from_db()
    assert (found.state, found.error, found.attempt) == ("done", "", options.TRIES)
    again = sharing.ask(version, "team/stars", private=True, by=boss)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    for _ in range(options.TRIES + 1):
        send()
    again.refresh_from_db()
    assert again.state == "failed" and sharing.waiting() == []


def test_a_lost_worker_is_replaced_and_says_nothing_more(version, boss, fake_hub, send):
    found = sharing.ask(version, "team/stars", private=True, by=boss)
    lost = sharing.claim(found.pk)
    assert sharing.claim(found.pk) is None and sharing.waiting() == []
    Sharing.objects.update(heartbeat_at=timezone.now() - 2 * options.SILENT_STALE)
    assert sharing.waiting() == [found.pk]
    send()
    sharing.fail(found.pk, lost.token, "too late", again=True)
    assert not sharing.beat(found.pk, lost.token)
    found.refresh_from_db()
    assert (found.state, found.token, found.error) == ("done", 2, "")
    Sharing.objects.update(state="sending", heartbeat_at=timezone.now() - 2 * options.SILENT_STALE, attempt=99)
    assert sharing.claim(found.pk) is None
    found.refresh_from_db()
    assert found.state == "failed" and "the worker was lost" in found.error


def test_a_damaged_version_is_not_sent(version, boss, fake_hub, send):
    (paths.model_version(version.path) / LORA).write_bytes(b"damaged")
    found = sharing.ask(version, "team/stars", private=True, by=boss)
    send()
    found.refresh_from_db()
    assert found.state == "failed" and found.error and fake_hub.made == []


def test_reviewers_do_not_see_where_versions_went(version, boss, person, client, fake_hub):
    sharing.ask(version, "team/stars", private=True, by=boss)
    client.force_login(person("rita", "reviewer"))
    assert "team/stars" not in client.get("/p/stars/versions/").content.decode()
    assert "team/stars" not in client.get("/p/stars/versions/", headers={"HX-Request": "true"}).content.decode()


def test_only_admins_are_offered_downloads(version, client, person):
    client.force_login(person("rita", "reviewer"))
    assert "/versions/2/package/" not in client.get("/p/stars/versions/").content.decode()
    client.force_login(User.objects.get(username="boss"))
    assert "/versions/2/package/" in client.get("/p/stars/versions/").content.decode()
    assert ModelVersion.objects.count() == 2
