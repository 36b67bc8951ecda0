"""Files that people have: the web form, the API and the command line read each of them alike."""

import html
import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from common.prompt_files import read_prompts
from trainer.oracles.ocr import OCROracle
from webapp.api.services import create_token
from webapp.campaigns import services
from webapp.campaigns.models import PromptDraft, Role

ROOT = Path(__file__).resolve().parents[3]
CASES, DEMO = ROOT / "tests" / "cases" / "prompts", ROOT / "models" / "demo"

# File: the prompts that are kept, and what is said of the lines that are not.
READ = {
    "one-column.csv": (["a red cube", "a cat, sitting"], []),
    "semicolon-excel.csv": (["a red cube", "ein blauer Würfel"], []),
    "braces.txt": (["{red|blue} cube on a table", "a cat"], []),
    "zero-width.txt": (
        ["a red cube", "an owl"],
        [
            "line 2: the same prompt as line 1",
            "line 3: nobody can see",
            "line 5: the same prompt as line 4",
            "line 6: nobody",
        ],
    ),
    "nfc-nfd.txt": (["a café at night"], ["line 2: the same prompt as line 1"]),
    "quoted-newline.csv": (["a red cube", 'a "big" cat'], []),
    "inch-quote.csv": (['a 5" screen', 'a 5 screen"'], []),  # as Excel, Python and pandas read it
    "list.json": (["a red star", "a blue circle"], []),
    "TRAIN.JSONL": (["a red star"], []),
    "lines.ndjson": (["a red star", "a blue circle"], []),
    "table.csv": (["a red star, big"], []),
}
# File: the sentence that refuses it.
REFUSED = {
    "duplicate-columns.csv": "columns 1 and 3 are both called prompt; rename or remove one of them",
    "rtl.txt": "line 2: prompt: it holds U+202E, which turns the direction of what is shown; remove it",
    "utf16-unicode-text.txt": "line 1 is not UTF-8; save the file as UTF-8",
    "cp1252.csv": "line 3 is not UTF-8; save the file as UTF-8",
    "surrogate.jsonl": "line 1: prompt: it holds half a character; write the whole one",
}


def stored(project, before):
    return list(project.prompts.exclude(text__in=before).order_by("pk").values_list("text", flat=True))


@pytest.fixture
def before(project):
    return list(project.prompts.values_list("text", flat=True))


@pytest.fixture
def ways(project, boss, client):
    """name → function that gives a file that way and returns (whether it was taken, what was said)."""
    client.force_login(boss)
    _token, text = create_token(project, boss, "a script", ["admin"])

    def form(path, action):
        upload = SimpleUploadedFile(path.name, path.read_bytes())
        sent = {"prompts_file": upload, "validation_share": 0, "action": action}
        answer = client.post("/p/stars/prompts/", sent)
        return answer.status_code in (200, 302), html.unescape(answer.content.decode())

    def api(path):
        url = "/api/v1/projects/stars/prompts/file?validation_share=0"
        upload = {"file": SimpleUploadedFile(path.name, path.read_bytes())}
        answer = client.post(url, upload, headers={"Authorization": f"Bearer {text}"})
        return answer.status_code == 200, str(answer.json())

    return {"form": form, "api": api}


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_alike_everywhere(name, project, before, ways, caplog):
    prompts, left_out = READ[name]
    good, preview = ways["form"](CASES / name, "preview")
    assert good and f"Add {len(prompts)} prompts" in preview
    assert all(sentence in preview for sentence in left_out)
    good, answer = ways["api"](CASES / name)
    assert good and all(sentence in answer for sentence in left_out)
    assert stored(project, before) == prompts
    project.prompts.exclude(text__in=before).delete()
    assert ways["form"](CASES / name, "add")[0]
    assert stored(project, before) == prompts
    lines = [read_prompts(CASES / name, split="train", only_marked=False)]
    if name == "semicolon-excel.csv":
        lines.append(read_prompts(CASES / name, split="validation", only_marked=True))
    assert [line["prompt"] for part in lines for line in part] == prompts
    assert all(sentence in caplog.text for sentence in left_out)


@pytest.mark.parametrize("name", READ)
def test_what_was_previewed_is_what_is_stored(name, project, before, boss, client):
    """The second request brings the text as a browser sends it, without the file's name."""
    client.force_login(boss)
    page = preview(client, CASES / name)
    answer = client.post("/p/stars/prompts/", {**page, "action": "add"})
    assert answer.status_code == 302
    assert stored(project, before) == READ[name][0]


def preview(client, path, url="/p/stars/prompts/", **values):
    """The fields of the page that shows the file's preview."""
    upload = SimpleUploadedFile(path.name, path.read_bytes())
    answer = client.post(url, {**values, "prompts_file": upload, "validation_share": 0, "action": "preview"})
    assert answer.status_code == 200
    form = answer.context["prompts"]
    text = form["prompts"].value().replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")
    return {**values, "prompts": text, "validation_share": 0, "draft": form["draft"].value()}


def test_a_text_that_was_changed_after_the_preview_is_previewed_again(project, before, boss, client):
    client.force_login(boss)
    page = preview(client, CASES / "one-column.csv")
    answer = client.post("/p/stars/prompts/", {**page, "prompts": page["prompts"] + "a dog\r\n", "action": "add"})
    assert answer.status_code == 200 and "not the prompts of the preview" in answer.content.decode()
    assert stored(project, before) == []
    form = answer.context["prompts"]
    page |= {"prompts": form["prompts"].value(), "draft": form["draft"].value(), "action": "add"}
    assert client.post("/p/stars/prompts/", page).status_code == 302
    assert stored(project, before) == ["a red cube", "a cat, sitting", "a dog"]


def test_a_draft_is_its_owners_for_a_day_and_one_project(project, before, boss, person, client):
    client.force_login(boss)
    page = preview(client, CASES / "one-column.csv")
    assert PromptDraft.objects.count() == 1
    client.force_login(person("other", Role.ADMIN))
    assert client.post("/p/stars/prompts/", {**page, "action": "add"}).status_code == 200  # previewed again
    assert stored(project, before) == []
    client.force_login(boss)
    PromptDraft.objects.filter(user=boss).update(created_at=timezone.now() - timedelta(days=2))
    assert client.post("/p/stars/prompts/", {**page, "action": "add"}).status_code == 200
    assert stored(project, before) == [] and PromptDraft.objects.filter(user=boss).count() == 1


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_is_refused_alike_everywhere(name, project, before, ways):
    good, page = ways["form"](CASES / name, "add")
    assert not good and REFUSED[name] in page
    good, answer = ways["api"](CASES / name)
    assert not good and REFUSED[name] in answer
    assert stored(project, before) == []
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the sentence is the table's
        read_prompts(CASES / name, split="train")
    assert REFUSED[name] in str(refused.value)


# GenEval's lines: what is null is as if absent; what no rule can judge, by its field.
GENEVAL = {
    "d_single_colornull": None,
    "d_single_posnull": None,
    "g_exclude_null": None,
    "d_pos_out": "line 1: include: `position` of star is not [relation, number of an earlier entry]",
    "d_pos_str": "line 1: include: `position` of star is not [relation, number of an earlier entry]",
    "g_count_zero": "line 1: include: `count` of star is not a whole number above 0",
    "g_count_str": "line 1: include: `count` of star is not a whole number above 0",
    "g_class_missing": "line 1: include: every entry needs a `class`",
}


@pytest.mark.parametrize("name", GENEVAL)
def test_a_line_of_geneval_is_judged_when_it_is_read(name, project, before, ways):
    file, refused = ROOT / "tests" / "cases" / "geneval" / f"{name}.jsonl", GENEVAL[name]
    good, page = ways["form"](file, "add")
    assert good == (refused is None) and (refused or "") in page
    good, answer = ways["api"](file)
    assert good == (refused is None) and (refused or "") in answer
    if refused:
        with pytest.raises(ValueError, match=re.escape(refused)):
            read_prompts(file, split="train")
        assert stored(project, before) == []
        return
    (line,) = read_prompts(file, split="train")
    (prompt,) = project.prompts.exclude(text__in=before)
    assert line == prompt.metadata and "null" not in json.dumps(line)
    with pytest.raises(services.CampaignError, match="include: "):
        services.add_prompts(project, [{"prompt": "p", "metadata": {"include": [{"class": "star", "count": None}]}}])


@pytest.mark.parametrize("name", ["ocr_curly.txt", "ocr_emptyquote.txt"])
def test_an_oracle_that_reads_is_given_no_prompt_without_a_word(name, project, before, ways):
    project.oracle = "ocr"
    project.save()
    good, page = ways["form"](CASES / name, "add")
    assert not good and "line 1: prompt: " in page
    good, answer = ways["api"](CASES / name)
    assert not good and "line 1: prompt: " in answer
    with pytest.raises(services.CampaignError, match="row 1: prompt: "):
        services.add_prompts(project, [{"prompt": (CASES / name).read_text()}])
    assert stored(project, before) == []
    with pytest.raises(ValueError, match="line 1: prompt: "):
        read_prompts(CASES / name, split="train", check=OCROracle.check.__get__(object()))


def test_prompts_that_differ_in_nothing_seen_are_one_whoever_sends_them(project, boss, client, before):
    _token, text = create_token(project, boss, "a script", ["admin"])
    twins = ["a  cafe\u0301", "a café", "\ufeffa caf\u200bé "]
    for n, twin in enumerate(twins):
        answer = client.post(
            "/api/v1/projects/stars/prompts",
            {"prompts": [{"prompt": twin}]},
            content_type="application/json",
            headers={"Authorization": f"Bearer {text}"},
        )
        assert answer.json() == {"new": int(n == 0), "known": int(n > 0), "cut": []}
    assert stored(project, before) == ["a café"]
    answer = client.post(
        "/api/v1/projects/stars/prompts",
        {"prompts": [{"prompt": "fine"}, {"prompt": "user \u202egnp.exe"}]},
        content_type="application/json",
        headers={"Authorization": f"Bearer {text}"},
    )
    assert answer.status_code == 400 and "row 2: prompt: it holds U+202E" in answer.json()["detail"]


def test_what_the_model_does_not_read_of_a_prompt_is_named_everywhere(
    project, before, boss, client, ways, tmp_path, caplog
):
    project.model_dir = str(DEMO)  # it reads ten words
    project.save()
    long = "a red star left of a blue circle above a <b>black</b> square"
    (file := tmp_path / "long.txt").write_text(f"a red star\n{long}\n")
    sentence = "line 2: prompt: it is longer than the model reads; cut is “<b>black</b> square”"
    good, page = ways["form"](file, "preview")
    assert good and sentence in page and "1 prompts are longer than the model reads" in page
    assert "<b>black" not in client.get("/p/stars/prompts/").content.decode()
    good, answer = ways["api"](file)
    assert good and sentence in answer
    _token, text = create_token(project, boss, "a script", ["admin"])
    answer = client.post(
        "/api/v1/projects/stars/prompts",
        {"prompts": [{"prompt": "a dog"}, {"prompt": f"  {long}"}]},
        content_type="application/json",
        headers={"Authorization": f"Bearer {text}"},
    )
    assert answer.json()["cut"] == [sentence.replace("line 2", "prompts, row 2")]
    sent = {"prompts": long + " once more", "validation_share": 0, "action": "add"}
    added = client.post("/p/stars/prompts/", sent, follow=True)
    assert "“<b>black</b> square once more”" in html.unescape(added.content.decode())
    assert stored(project, before) == ["a red star", long, "a dog", long + " once more"]
    read_prompts(file, split="train", model=DEMO)
    assert f"{file}, {sentence}" in caplog.text
    caplog.clear()
    read_prompts(file, split="train")
    assert "longer" not in caplog.text


def test_prompts_are_shown_in_their_own_direction(project, boss, client):
    client.force_login(boss)
    client.post("/p/stars/prompts/", {"prompts": "مكعب أحمر", "validation_share": 0, "action": "add"})
    assert '<td class="wrap" dir="auto">مكعب أحمر</td>' in client.get("/p/stars/prompts/?page=last").content.decode()
