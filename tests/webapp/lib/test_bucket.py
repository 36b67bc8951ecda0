"""With an S3 bucket: images come from it through the authorised view only, and back-ups and garbage know it."""

import io
import json
import os
import time
import zipfile
from pathlib import Path

import pgserver
import pytest
import requests
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from PIL import Image

from common.files import sha256_of, write_json
from common.round_folder import bucket_checkpoint
from tests.conftest import use_bucket
from tests.webapp import acting
from tests.webapp.conftest import make_ready
from webapp.api.services import create_token
from webapp.labelling.models import Group
from webapp.lib import paths, storage
from webapp.operations.backup import missing_files
from webapp.operations.faults import problems
from webapp.rounds.comparisons import Comparison
from webapp.rounds.models import ModelVersion, Pair, TrainingRound


@pytest.fixture
def group(bucket, project):
    """A group of images of 320 pixels in the bucket."""
    return make_ready(project, pixels=320)[0]


def names(folder):
    files = [f for f in folder.rglob("*") if f.is_file() and ".nanio" not in str(f.relative_to(folder))]
    return {str(f.relative_to(folder)) for f in files}


def age(bucket, name):
    """The server keeps what it knows of an object beside it."""
    file = bucket / ".nanio-meta" / f"{name}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "last_modified": "2020-01-01T00:00:00+00:00"}))


def test_a_reviewer_is_sent_to_the_bucket_for_a_short_time(group, bucket, client, boss, data_folder, settings):
    image = group.generations.first()
    client.force_login(boss)
    answer = client.get(f"/p/stars/images/{image.pk}.webp")
    assert answer.status_code == 302
    assert answer["Cache-Control"] == "private, max-age=240"
    shown = requests.get(answer["Location"], timeout=10)
    assert shown.content == (bucket / image.image).read_bytes()
    assert shown.headers["Content-Type"] == "image/webp"
    # Nobody gets at it by its name, or when the time is over.
    assert requests.get(answer["Location"].split("?")[0], timeout=10).status_code == 403
    settings.LIKESTEP_S3_SIGNED_SECONDS = 1
    brief = client.get(f"/p/stars/images/{image.pk}.webp")
    assert brief["Cache-Control"] == "private, max-age=0"
    time.sleep(2.1)
    assert requests.get(brief["Location"], timeout=10).status_code == 403
    # The page may show it, and nothing lies on the web server's disk.
    origin = "/".join(answer["Location"].split("/")[:3])
    assert f"img-src 'self' {origin} blob:" in client.get("/p/stars/annotate/")["Content-Security-Policy"]
    assert not (data_folder / "media").exists()


def test_an_annotator_gets_bytes_since_an_address_in_the_bucket_tells_the_group(group, bucket, client, ann):
    acting.give(ann, group.pk)
    client.force_login(ann)
    answer = client.get(f"/p/stars/groups/{acting.task(ann, group)}/0.webp")
    assert (answer.status_code, answer.content) == (200, (bucket / group.generations.first().image).read_bytes())


def test_nobody_else_gets_an_address(group, client, person):
    image = group.generations.first()
    address = f"/p/stars/images/{image.pk}.webp"
    assert client.get(address)["Location"].startswith("/login/")
    client.force_login(person("stranger", role=None))
    assert client.get(address).status_code == 404


def test_a_smaller_image_is_made_once(group, bucket, client, boss):
    image = group.generations.first()
    client.force_login(boss)
    answers = [client.get(f"/p/stars/images/{image.pk}.webp?w=256") for _ in range(2)]
    small = paths.small_image(image.image, 256)
    for answer in answers:
        assert small in answer["Location"]
        assert Image.open(io.BytesIO(requests.get(answer["Location"], timeout=10).content)).width == 256
    assert small in names(bucket)


def test_browsers_may_reach_it_at_another_address(group, client, boss, settings, s3):
    other = s3.endpoint.replace("127.0.0.1", "localhost")
    use_bucket(settings, s3, settings.LIKESTEP_S3_BUCKET)
    public = {**settings.STORAGES["default"]["OPTIONS"], "endpoint_url": other}
    settings.STORAGES = {**settings.STORAGES, "public": {**settings.STORAGES["default"], "OPTIONS": public}}
    client.force_login(boss)
    address = client.get(f"/p/stars/images/{group.generations.first().pk}.webp")["Location"]
    assert address.startswith(f"{other}/")
    assert requests.get(address, timeout=10).status_code == 200


def test_a_blind_test_stays_blind(group, client, boss, project):
    versions = [project.active_version, ModelVersion.objects.create(project=project, number=2, path="/nowhere")]
    test = Comparison.objects.create(project=project, number=1, version_a=versions[0], version_b=versions[1])
    pair = Pair.objects.create(
        comparison=test, prompt=group.prompt, seed=1, a_is_left=True, state="ready", leased_to=boss
    )
    storage.store().write(paths.pair_image(project.pk, pair.pk, "a"), b"RIFF")
    client.force_login(boss)
    answer = client.get(f"/p/stars/pairs/{pair.pk}/0.webp")
    assert (answer.status_code, answer.content) == (200, b"RIFF")


def test_programs_get_bytes_so_that_their_token_stays_here(group, client, boss, project):
    _, secret = create_token(project, boss, "a test", ["read"])
    image = group.generations.first()
    answer = client.get(f"/api/v1/projects/stars/images/{image.pk}", headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 200
    assert answer.content == storage.store().read(image.image)


def test_an_export_has_the_images(group, bucket, client, boss, ann, project):
    answer = {0: True, 1: False, 2: False, 3: True}
    acting.submit_group(ann, project, group.pk, answer, seconds=1, idempotency_key="k")
    (bucket / group.generations.last().image).unlink()
    client.force_login(boss)
    answer = client.get("/p/stars/export/download/?format=labels&container=zip-jsonl")
    packed = zipfile.ZipFile(io.BytesIO(answer.getvalue()))
    assert packed.read(f"images/{group.pk}/1.webp") == (bucket / group.generations.all()[1].image).read_bytes()
    assert sum(name.endswith(".webp") for name in packed.namelist()) == group.size - 1
    assert packed.read("missing.txt").decode() == f"images/{group.pk}/{group.size - 1}.webp\n"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-5] + b"12345"), "is damaged (its checksum is wrong)"),
        (lambda file: file.unlink(), "No such file"),
    ],
)
def test_a_damaged_image_is_refused(group, bucket, client, boss, harm, said):
    image = group.generations.first()
    harm(bucket / image.image)
    client.force_login(boss)
    assert client.get(f"/p/stars/images/{image.pk}.webp?w=256").status_code == 404
    group.refresh_from_db()
    assert group.state == "failed"
    assert said in group.error


def test_a_bucket_that_does_not_answer_harms_no_group(group, s3, client, boss, settings):
    image = group.generations.first()
    client.force_login(boss)
    s3.stop()
    try:
        answer = client.get(f"/p/stars/images/{image.pk}.webp")
        assert (answer.status_code, answer["Retry-After"]) == (503, "10")
        assert client.get("/readyz").json()["storage"] == "failed"
        assert any("cannot be used" in problem and "check LIKESTEP_S3_BUCKET" in problem for problem in problems())
        body = {"labels": {str(i): True for i in range(4)}, "seconds": 1, "key": "k"}
        client.get("/p/stars/groups/next/")
        saved = client.post(f"/p/stars/groups/{acting.task(boss, group)}/submit/", json.dumps(body), "application/json")
        assert saved.status_code == 200  # labels need no bucket
    finally:
        s3.start()
    assert client.get(f"/p/stars/images/{image.pk}.webp").status_code == 302
    # A bucket of another name is no missing image either.
    use_bucket(settings, s3, "nobodys-bucket")
    assert client.get(f"/p/stars/images/{image.pk}.webp").status_code == 503
    assert Group.objects.get(pk=group.pk).error == ""


# ---------------------------------------------------------------- back-up and garbage


@pytest.fixture
def programs(monkeypatch):
    """PostgreSQL's client programs, from the server's wheel."""
    folder = Path(pgserver.__file__).parent / "pginstall" / "bin"
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.fixture
def lived_in(group, project, bucket):
    """A bucket with a group, a version, and a round under way with two checkpoints."""
    store = storage.store()
    store.write(group.trajectory_file, b"trajectory")
    version = ModelVersion.objects.create(project=project, number=2, path=paths.version("round-9-1"))
    store.write(f"{version.path}/version.json", b"{}")
    training = TrainingRound.objects.create(
        project=project, number=1, base_version=version, state="running", idempotency_key="k", token=2
    )
    for step in (1, 2):
        name = f"{paths.training_round(training.pk)}/{bucket_checkpoint(2, step)}"
        store.write(f"{name}/checkpoint/state.safetensors", b"weights")
        store.write(f"{name}/checkpoint/state.json", b"{}")
    return training


@pytest.mark.django_db(transaction=True)
def test_a_backup_of_a_bucket_goes_into_another_one_and_into_a_folder(
    lived_in, group, bucket, s3, settings, tmp_path, programs
):
    file = tmp_path / "b.tar"
    call_command("backup", file)
    before = {name: (bucket / name).read_bytes() for name in names(bucket)}
    assert len(before) == 4 + 1 + 1 + 4
    with pytest.raises(CommandError, match="the bucket's media/ has files in it; restore into an empty"):
        call_command("restore", file)

    other = s3.folder / "another-bucket"
    other.mkdir()
    use_bucket(settings, s3, other.name)
    get_user_model().objects.all().delete()
    call_command("restore", file)
    assert {name: (other / name).read_bytes() for name in names(other)} == before
    assert missing_files() == []
    assert storage.store().read(group.trajectory_file) == b"trajectory"  # with its checksum

    settings.LIKESTEP_S3_BUCKET = ""
    call_command("restore", file)
    assert storage.store().read(group.trajectory_file) == b"trajectory"
    assert missing_files() == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("where", ["bucket", "folder"])
def test_one_damaged_file_comes_back_from_a_backup(lived_in, group, bucket, settings, tmp_path, programs, where):
    file, name = tmp_path / "b.tar", group.trajectory_file
    call_command("backup", file)
    if where == "folder":
        settings.LIKESTEP_S3_BUCKET = ""
    else:
        (bucket / name).write_bytes(b"tr4jectory")
        with pytest.raises(storage.Damaged):
            storage.store().read(name)
    call_command("restore", file, "--only", name)
    assert storage.store().read(name) == b"trajectory"
    with pytest.raises(CommandError, match="has no versions/x; look for it in another back-up"):
        call_command("restore", file, "--only", "versions/x")
    whole = file.read_bytes()
    at = whole.index(b"trajectory\0")  # its bytes, in a block of their own
    file.write_bytes(whole[:at] + b"tr4" + whole[at + 3 :])
    with pytest.raises(CommandError, match=f"is damaged at {name}; use another one"):
        call_command("restore", file, "--only", name)


@pytest.mark.django_db(transaction=True)
def test_a_backup_of_a_damaged_bucket_is_refused(lived_in, group, bucket, tmp_path, s3, programs):
    (bucket / group.trajectory_file).write_bytes(b"tr4jectory")
    with pytest.raises(CommandError, match=r"trajectories/.* is damaged \(its checksum is wrong\)"):
        call_command("backup", tmp_path / "b.tar")
    s3.stop()
    try:
        with pytest.raises(CommandError, match="cannot be used"):
            call_command("backup", tmp_path / "b.tar")
    finally:
        s3.start()
    assert not list(tmp_path.glob("*.tar"))


def test_garbage_of_a_bucket(lived_in, group, bucket, project, capsys):
    store = storage.store()
    Group.objects.filter(pk=group.pk).update(state="superseded")
    Group.objects.update(created_at="2020-01-01T00:00Z")
    strays = {"trajectories/1/999999.safetensors", "versions/round-777-1/version.json", "rounds/777/log.jsonl"}
    being_made = f"versions/round-{lived_in.pk}-2/version.json"
    for name in (*strays, being_made):
        store.write(name, b"12345")
    everything = names(bucket)
    assert store.entry("trajectories/1/999999.safetensors").size == 5
    for name in everything:
        age(bucket, name)
    call_command("collect_garbage", "--dry-run")
    assert names(bucket) == everything
    assert "unrated: would delete 5 files" in capsys.readouterr().out
    call_command("collect_garbage")
    gone = {*(paths.image(project.pk, group.pk, i) for i in range(4)), paths.trajectory(project.pk, group.pk), *strays}
    assert everything - names(bucket) == gone
    TrainingRound.objects.update(state="done", finished_at="2020-01-01T00:00Z")
    call_command("collect_garbage")
    assert not [name for name in names(bucket) if "checkpoint" in name]
    assert being_made not in names(bucket)


def test_a_machine_keeps_copies_within_its_limit(lived_in, group, data_folder, settings):
    store = storage.store()
    copies = [store.fetch(store_name) for store_name in (group.trajectory_file, group.generations.first().image)]
    assert all(copy.name == sha256_of(copy) for copy in copies)
    os.utime(copies[0], (1, 1))
    settings.LIKESTEP_CACHE_GB = (copies[1].stat().st_size + 1) / 1e9
    store.trim()
    assert [copy.exists() for copy in copies] == [False, True]
    write_json(data_folder / "x.json", {})
    assert store.fetch(group.trajectory_file).read_bytes() == b"trajectory"


def test_a_machine_that_trains_nothing_keeps_within_its_limit_too(bucket, data_folder, settings, monkeypatch):
    """Web servers and generate workers fetch one version after the other."""
    store, folders = storage.store(), []
    for n in range(3):
        settings.LIKESTEP_CACHE_GB = 10 / 1e9
        store.write(f"versions/{n}/pytorch_lora_weights.safetensors", f"version {n}".encode())
        monkeypatch.setattr(storage, "TRIM_EVERY", 0)
        folders.append(store.version(f"versions/{n}"))
        os.utime(folders[-1], (n + 1, n + 1))
    assert [folder.exists() for folder in folders] == [False, True, True]
    monkeypatch.undo()
    store.trim()
    assert sorted((data_folder / "cache" / "versions").iterdir()) == [folders[2]]


def test_another_process_may_trim_at_any_moment(lived_in, group, monkeypatch, tmp_path):
    store, utime, fetch = storage.store(), os.utime, storage.Bucket.fetch
    copy = store.fetch(group.trajectory_file)

    def trimmed_before(path, *times):
        monkeypatch.setattr(os, "utime", utime)
        copy.unlink()
        utime(path, *times)

    monkeypatch.setattr(os, "utime", trimmed_before)
    assert store.fetch(group.trajectory_file).read_bytes() == b"trajectory"

    def trimmed_after(store, name):
        found = fetch(store, name)
        found.unlink()
        return found

    monkeypatch.setattr(storage.Bucket, "fetch", trimmed_after)
    names = [group.trajectory_file, "trajectories/none.safetensors"]
    link, error = store.link_all(names, lambda name: tmp_path / Path(name).name)
    assert link.read_bytes() == b"trajectory" and isinstance(error, FileNotFoundError)
