"""Tables with the images inside: pairs with labels of a named rater, or images alone."""

import base64
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.own_images import archive, picture
from webapp.accounts.models import User
from webapp.api.services import create_token
from webapp.imports import raters
from webapp.imports.services import ImagesError
from webapp.labelling import generation
from webapp.labelling.models import Group, GroupDecision, Label


def pair(a, b, first=1.0, caption="a red star", **more):
    rest = {"label_0": first, "label_1": 1 - first, "best_image_uid": "x", **more}
    return {"caption": caption, "jpg_0": picture(a, form="JPEG"), "jpg_1": picture(b, form="JPEG"), **rest}


PAIRS = [pair(1, 2), pair(1, 3, 0.0), pair(4, 5, 0.5), pair(6, 7, caption="a blue star")]


def parquet(rows):
    data = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), data)
    return data.getvalue()


def jsonl(rows, start=""):
    def text(value):
        return start + base64.b64encode(value).decode() if isinstance(value, bytes) else value

    return "\n".join(json.dumps({k: text(v) for k, v in row.items()}) for row in rows).encode()


def encoded():
    """All groups are ready, as a worker leaves them."""
    for group in Group.objects.filter(state="queued"):
        claimed = generation.claim_group_for_generation(group.pk, "w")
        generation.complete_group(group.pk, claimed.token, [])
        raters.give_labels(group.pk)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.parquet", parquet(PAIRS)),
        ("x.jsonl", jsonl(PAIRS)),
        ("x.jsonl", jsonl(PAIRS, "data:image/jpeg;base64,")),
    ],
)
def test_labels_come_in_as_those_of_a_rater(bring, stars, name, data):
    done, report = bring({name: data}, rater="Pick-a-Pic")
    assert (done.groups, done.images) == (4, 8), report  # three labelled pairs, and the two images of the tie
    encoded()
    rater = User.objects.get(username="import:stars:Pick-a-Pic")
    assert not rater.is_active and not rater.has_usable_password()
    liked = [
        list(Label.objects.filter(generation__group=g).order_by("generation").values_list("liked", flat=True))
        for g in Group.objects.order_by("pk")
    ]
    assert liked == [[True, False], [False, True], [True, False], []]
    assert set(Label.objects.values_list("annotator", flat=True)) == {rater.pk}
    states = list(Group.objects.order_by("pk").values_list("state", flat=True))
    assert states == ["done", "done", "done", "ready"]  # the tie is for people
    before = Label.objects.count()
    again, report = bring({name: data}, rater="Pick-a-Pic")
    assert again.groups == 0 and {outcome for outcome, _ in report.values()} == {"known"}
    assert Label.objects.count() == before and raters.give_late() == 0


def test_without_a_rater_they_are_left_out(bring, stars):
    done, _report = bring({"x.parquet": parquet(PAIRS)})
    assert (done.groups, done.images) == (3, 7)  # image 1 is there twice; five of one prompt in groups of four at most
    encoded()
    assert not GroupDecision.objects.exists() and set(Group.objects.values_list("state", flat=True)) == {"ready"}


def test_a_worker_that_was_lost_in_between(bring, stars):
    bring({"x.parquet": parquet(PAIRS[:1])}, rater="p")
    group = Group.objects.get()
    claimed = generation.claim_group_for_generation(group.pk, "w")
    generation.complete_group(group.pk, claimed.token, [])
    assert (raters.give_late(), raters.give_late()) == (1, 0)
    assert Label.objects.count() == 2


def test_an_image_a_row(bring):
    rows = [{"image": {"bytes": picture(n), "path": None}, "text": "a star"} for n in range(3)]
    done, _report = bring({"x.parquet": parquet(rows)})
    assert (done.groups, done.images) == (1, 3)


def test_rows_that_cannot_be_used_are_named(bring):
    good = jsonl([pair(1, 2)]).decode()
    wrong = {
        "2": '{"caption": "a", "jpg_0": "###", "jpg_1": "x"}',
        "3": "{",
        "4": "[1]",
        "5": '{"caption": "a"}',
        "6": json.dumps({"caption": "a", "jpg_0": base64.b64encode(picture(1)).decode()}),
        "7": json.dumps({"jpg_0": base64.b64encode(picture(3)).decode(), "jpg_1": base64.b64encode(b"no").decode()}),
        "8": "[" * 3_000,
    }
    done, report = bring({"x.jsonl": "\n".join([good, *wrong.values()]).encode()})
    assert done.groups == 1
    for number in wrong:
        assert any(name.startswith(f"x.jsonl, {number}") and told[0] == "skipped" for name, told in report.items())


@pytest.mark.parametrize("data", [b"PAR1", b"PAR1" + b"\0" * 40 + b"PAR1", parquet(PAIRS)[:-3000] + b"PAR1"])
def test_no_whole_parquet(bring, data):
    with pytest.raises(ImagesError):
        bring({"x.parquet": data})


def test_parquet_that_unpacks_to_too_much(bring, settings):
    settings.LIKESTEP_IMAGES_LIMIT = 10_000
    with pytest.raises(ImagesError, match=r"unpacks to|more than .* bytes"):
        bring({"x.parquet": parquet(PAIRS)})


def test_what_went_out_as_pairs_comes_in_as_pairs(bring, client, boss, stars, ready, ann, tmp_path):
    from tests.webapp import acting

    (group,) = ready()
    acting.submit(ann, stars, group, [1, 0, 0, 0])
    client.force_login(boss)
    for name in ("pickapic", "preference"):
        answer = client.get("/p/stars/export/download/", {"format": name, "container": "parquet-images"})
        data = b"".join(answer.streaming_content)
        done, report = bring({f"{name}.parquet": data}, rater="ours")
        assert done.groups == (3 if name == "pickapic" else 0), report  # the second time they are there


# ---------------------------------------------------------------- other ways in


def test_the_command_line(stars, boss, tmp_path, capsys):
    folder = tmp_path / "own"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.png").write_bytes(picture(n))
        (folder / f"{n}.txt").write_text("a red star")
    call_command("import_images", "stars", str(folder), admin="boss")
    assert "1 groups of 3 images" in capsys.readouterr().out
    (tmp_path / "own.zip").write_bytes(archive({"0.png": picture(0), "1.png": picture(1)}))
    call_command("import_images", "stars", str(tmp_path / "own.zip"), prompt="a red star", admin="boss")
    assert "0 groups of 0 images; there already: 2" in capsys.readouterr().out
    (tmp_path / "x.parquet").write_bytes(parquet(PAIRS))
    call_command("import_images", "stars", str(tmp_path / "x.parquet"), rater="p", admin="boss")
    assert "4 groups of 8 images" in capsys.readouterr().out
    for wrong in (("moons", str(folder)), ("stars", str(tmp_path / "nowhere"))):
        with pytest.raises(CommandError):
            call_command("import_images", *wrong)


def test_the_api(client, stars, boss):
    headers = {"Authorization": f"Bearer {create_token(stars, boss, 'x', ['admin'])[1]}"}

    def send(data, query=""):
        file = io.BytesIO(data)
        file.name = "own.zip"
        return client.post(f"/api/v1/projects/stars/images{query}", {"file": file}, headers=headers)

    answer = send(archive({"0.png": picture(0), "1.png": picture(1), "2.gif": b"GIF89a"}), "?prompt=a+red+star")
    assert answer.status_code == 200, answer.content
    told = answer.json()
    assert (told["groups"], told["images"]) == (1, 2)
    assert {f["name"]: f["outcome"] for f in told["files"]} == {"0.png": "taken", "1.png": "taken", "2.gif": "skipped"}
    for data in (b"PK\x03\x04", archive({"a.gif": b"GIF89a"}), archive({})):
        refused = send(data)
        assert refused.status_code == 400 and refused.json()["detail"]
    assert send(archive({"0.png": picture(0)}), "?prompt=" + "x" * 1001).status_code == 422
