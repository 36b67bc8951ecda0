"""Sizes of a project's images: who sets them, which group, pair and trial gets which, and what a round is told."""

import json
import random

import pytest

from tests.webapp.acting import submit
from tests.webapp.conftest import make_ready
from webapp.api.services import create_token
from webapp.campaigns import services, sizes
from webapp.campaigns.models import Project
from webapp.labelling import generation
from webapp.rounds import comparisons, pairs, plans, trials
from webapp.rounds import services as rounds
from webapp.rounds.models import ModelVersion


@pytest.fixture
def sized(project, boss):
    """Two sizes, and a prompt that names a third."""
    services.update_project(project, boss, sizes="128x64,  64x128")
    services.add_prompts(project, [{"prompt": "a wide star", "metadata": {"size": "256x64"}}])
    project.refresh_from_db()
    return project


def test_groups_get_one_of_the_projects_sizes_or_their_prompts_own(sized):
    assert sized.sizes == "128x64, 64x128"
    rng, own = random.Random(0), sized.prompts.get(text="a wide star")
    shared = [generation.create_group(sized, sized.prompts.first().pk, rng).image_size for _ in range(20)]
    assert set(shared) == {"128x64", "64x128"}
    assert {generation.create_group(sized, own.pk, rng).image_size for _ in range(5)} == {"256x64"}
    sized.ready_target = 60
    sized.save()
    made = generation.top_up(sized.pk, rng=rng)
    assert all((group.image_size == "256x64") == (group.prompt_id == own.pk) for group in made)
    assert sizes.largest_of(sized) == (256, 64)


def test_without_any_the_models_own_is_made(project):
    assert generation.create_group(project, project.prompts.first().pk, random.Random(0)).image_size == ""
    assert (sizes.largest_of(project), sizes.pixels(""), sizes.ratio("")) == (None, None, (1, 1))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("wide", "is not written as WIDTHxHEIGHT"),
        ("120x64", "not of multiples of 16 pixels"),
        ("9000x64", "not within 16 and 8192 pixels"),
        (", ".join(f"{16 * n}x64" for n in range(1, 18)), "17 are more than 16"),
    ],
)
def test_what_is_no_size_is_refused_by_form_service_and_import(client, project, boss, text, said):
    client.force_login(boss)
    page = client.get("/p/stars/settings/").content.decode()
    assert 'name="sizes"' in page
    answer = client.post("/p/stars/settings/", {"sizes": text})
    assert answer.status_code == 400 and said in answer.content.decode()
    with pytest.raises(services.CampaignError, match=said):
        services.update_project(project, boss, sizes=text)
    with pytest.raises(services.CampaignError, match=said):
        services.create_project("other", "Other", model_dir="x", student_dir="x", prompts=[], sizes=text)
    if "," not in text:
        with pytest.raises(services.CampaignError, match=rf"row 1: size: .*{said}"):
            services.add_prompts(project, [{"prompt": "a star", "metadata": {"size": text}}])
        with pytest.raises(trials.TrialError, match=said):
            trials.start(project, "a star", versions=[1], seeds=[1], size=text, by=boss)
    assert not project.prompts.filter(text="a star").exists() and Project.objects.get().sizes == ""


def test_a_copy_has_the_same(sized, boss):
    assert services.clone_project(sized, "", "Copy", boss).sizes == "128x64, 64x128"


def test_pairs_and_trials_have_a_size_and_their_pages_its_shape(client, sized, boss):
    other = ModelVersion.objects.create(project=sized, number=2, path="x", parent=sized.active_version)
    test = comparisons.start(sized, [1, other.number], boss)
    assert {pair.image_size for pair in test.pairs.all()} <= {"128x64", "64x128", "256x64"}
    pairs.complete_pairs(pairs.claim_pairs(test.pk))
    client.force_login(boss)
    for pair in client.get(f"/p/stars/comparisons/{test.number}/next/").json()["pairs"]:
        assert "{}x{}".format(*pair["size"]) == test.pairs.get(pk=pair["pair"]).image_size
    form = {"prompt": "a star", "versions": ["1"], "steps": "40", "guidance": "4", "seeds": "1", "size": "128x64"}
    page = client.get(client.post("/p/stars/try/start/", form).url).content.decode()
    assert 'viewBox="0 0 128 64"' in page
    assert "size=128x64" in page  # the same again
    assert 'value="128x64"' in client.get("/p/stars/try/").content.decode()  # the project's first


def test_a_round_is_told(sized, boss):
    (group,) = make_ready(sized)
    submit(boss, sized, group, [1, 0, 0, 1])
    training = rounds.claim_round(rounds.start_round(sized, {}, idempotency_key="k").pk, "worker")
    spec = json.loads(rounds.write_spec(training).read_text())
    assert spec["sizes"] == ["128x64", "64x128"]
    assert [line["size"] for line in spec["train_prompts"] if "size" in line] == ["256x64"]


def test_plans_differ_by_the_largest_size(sized, boss):
    first = plans.ask(sized, {"updates": 4})
    assert plans.ask(sized, {"updates": 4}).pk == first.pk
    services.update_project(sized, boss, sizes="512x512")
    sized.refresh_from_db()
    assert plans.ask(sized, {"updates": 4}).pk != first.pk


def test_the_api_says_and_takes_sizes(client, sized, boss):
    _token, text = create_token(sized, boss, "t", ["admin"])
    head = {"HTTP_AUTHORIZATION": f"Bearer {text}", "content_type": "application/json"}
    assert client.get("/api/v1/projects/stars/", **head).json()["sizes"] == ["128x64", "64x128"]
    body = {"prompt": "a star", "versions": [1], "size": "64x128"}
    answer = client.post("/api/v1/projects/stars/trials", json.dumps(body), **head)
    assert answer.json()["size"] == "64x128", answer.content
    answer = client.post("/api/v1/projects/stars/trials", json.dumps({**body, "size": "64"}), **head)
    assert answer.status_code == 400 and "size:" in answer.json()["detail"]
