"""Every number and text that somebody may set has a bound, and the same one in models, forms, the API and the admin."""

import importlib
import json
import math
import pkgutil
from datetime import date
from pathlib import Path

import pytest
from django import forms
from django.apps import apps
from django.core.validators import MaxLengthValidator, MaxValueValidator, MinValueValidator
from django.db import models
from django.forms import modelform_factory

import webapp
from webapp.api.endpoints import api
from webapp.campaigns import services
from webapp.campaigns.models import AuditEntry, Project, Prompt
from webapp.labelling.templatetags.texts import markdown
from webapp.lib import bounds, texts, uploads

# Model fields that somebody sets, with their bounds.
SET = {
    "Project.group_size": bounds.GROUP_SIZE,
    "Project.images_made": bounds.MADE,
    "Project.steps": bounds.STEPS,
    "Project.overlap": bounds.OVERLAP,
    "Project.overlap_most": bounds.OVERLAP,
    "Project.sure": bounds.SURE,
    "Project.answer_budget": bounds.ANSWERS,
    "Project.ready_target": bounds.READY_TARGET,
    "Project.auto_start_after": bounds.AUTO_START,
    "Project.gold_rate": bounds.GOLD_RATE,
    "Project.work_hour_cost": bounds.COST,
    "Project.machine_hour_cost": bounds.COST,
    "Project.practice_groups": bounds.PRACTICE_GROUPS,
    "Project.practice_right": bounds.PRACTICE_RIGHT,
    "Project.practice_tries": bounds.PRACTICE_TRIES,
    "Project.practice_wait": bounds.PRACTICE_WAIT,
    "Project.quota_day": bounds.QUOTA,
    "Project.quota_all": bounds.QUOTA,
    "Study.groups": bounds.STUDY_GROUPS,
    "Study.places": bounds.STUDY_PLACES,
    "Webhook.every": bounds.EVERY,
}
# Numbers that code counts, measures or draws, or has checked (`Comparison` in comparisons.start, `seconds` when they come).
COUNTED = """
    Prompt.shown InputImage.width InputImage.height ModelVersion.number TrainingRound.number TrainingRound.token
    TrainingRound.attempt TrainingRound.kept_step TrainingRound.step TrainingRound.total TrainingRound.seconds_left
    TrainingRound.groups_used RoundMetric.step RoundForecast.needed RoundForecast.had RoundForecast.chance
    Comparison.number Comparison.alpha Comparison.margin Comparison.most_votes Comparison.wins_a Comparison.wins_b
    Comparison.ties Comparison.orders Comparison.shown Trial.made Trial.attempt Trial.token Sharing.attempt Sharing.token
    Pair.seed Pair.attempt Pair.token Pair.seconds Group.first_seed Group.size Group.attempt
    Group.token Group.decisions Group.chance Group.made Generation.inclusion
    Generation.position Generation.seed Generation.width Generation.height
    Scoring.attempts Label.score LabelEvent.score LabelEvent.number
    GroupDecision.seconds Tally.groups Tally.images Tally.likes Tally.skips
    Tally.seconds Consensus.people Consensus.certainty PersonQuality.groups PersonQuality.labels PersonQuality.likes
    PersonQuality.seconds_per_image PersonQuality.shared PersonQuality.agreement PersonQuality.bias
    PersonQuality.like_accuracy PersonQuality.dislike_accuracy PersonQuality.hasty ProjectQuality.alpha
    ProjectQuality.prior ProjectQuality.labels ProjectQuality.shared ProjectQuality.people GoldAnswer.right
    GoldAnswer.total QuarterCount.groups QuarterCount.signal QuarterCount.labels QuarterCount.likes
    OracleQuality.images OracleQuality.groups OracleQuality.agreement OracleQuality.low OracleQuality.high
    OracleQuality.threshold OracleQuality.known OracleQuality.right
    VersionCount.weight VersionCount.liked
    VersionCount.labels VersionCount.likes VersionCount.counted_to ProjectCount.labelled ProjectCount.signal
    Terms.number Practice.number Practice.needed PracticeAnswer.turn
    ImageImport.groups ImageImport.images Webhook.announced Delivery.attempts Delivery.status
""".split()
NUMBERS = (models.IntegerField, models.FloatField, models.DecimalField)
# Texts of forms that are bounded elsewhere: by the request's size, lines and characters (prompts), or are not kept.
OTHERWISE = {f"{form}.{name}" for form in ("ProjectForm", "NewProjectForm") for name in ("guidelines", "consent")}
OTHERWISE |= {"PromptsForm.prompts"}
OWN = {model for model in apps.get_models() if model.__module__.startswith("webapp.")}


def numbers():
    for model in OWN:
        for field in model._meta.concrete_fields:
            if isinstance(field, NUMBERS) and not field.primary_key and not field.is_relation:
                yield f"{model.__name__}.{field.name}", field


def test_every_number_of_a_model_is_in_a_table():
    known = {*SET, *COUNTED}
    missing = sorted(name for name, _field in numbers() if name not in known)
    assert missing == [], "say in SET or COUNTED who sets them"
    assert set(SET) <= {name for name, _field in numbers()}


@pytest.mark.parametrize("name", SET)
def test_a_models_number_has_its_bounds(name):
    field = dict(numbers())[name]
    found = {type(v): v.limit_value for v in field.validators if isinstance(v, MinValueValidator | MaxValueValidator)}
    assert (found[MinValueValidator], found[MaxValueValidator]) == (SET[name].low, SET[name].high)


# JSON and texts without a length of their own that somebody sets, with their bounds in characters.
WRITTEN = {
    "Project.guidelines": bounds.GUIDELINES,
    "Project.consent": bounds.GUIDELINES,
    "Project.dislike_reasons": bounds.REASONS_JSON,
    "Project.oracle_thresholds": bounds.REASONS_JSON,
    "Project.round_settings": bounds.METADATA,
    "Project.round_memory": bounds.MEMORY_JSON,
    "Prompt.metadata": bounds.METADATA,
}
# The same that code makes, or has checked value by value (tokens' scopes and webhooks' events are choices, answers are
# positions, keys are the page's; `audit` cuts long values; settings are `common.settings`'; drafts are what was parsed).
MADE = """
    ApiToken.scopes Webhook.events Delivery.payload PromptDraft.rows AuditEntry.detail Group.error
    Label.box LabelEvent.box
    GroupDecision.answer UndoneDecision.answer Preferences.keys Consensus.rewards GoldGroup.answer ProjectCount.states
    ModelVersion.scores TrainingRound.settings TrainingRound.scores_before TrainingRound.scores_after
    TrainingRound.error TrainingRound.alarm RoundMetric.values Trial.sides Trial.seeds
    Terms.text Practice.asked PracticeAnswer.answer RoundPlan.settings RoundPlan.values TrainingRound.made_from
    ImageImport.report
""".split()


def long_texts():
    for model in OWN:
        for field in model._meta.concrete_fields:
            if isinstance(field, models.JSONField | models.TextField):
                yield f"{model.__name__}.{field.name}", field


def test_every_long_text_and_json_of_a_model_is_in_a_table():
    missing = sorted({name for name, _field in long_texts()} ^ {*WRITTEN, *MADE})
    assert missing == [], "say in WRITTEN or MADE who writes them"


@pytest.mark.parametrize("name", WRITTEN)
def test_a_long_text_has_its_bound_in_the_model(name):
    field = dict(long_texts())[name]
    found = [v.limit_value for v in field.validators if isinstance(v, MaxLengthValidator)]
    found += [v.most for v in field.validators if isinstance(v, texts.Kept)]
    assert found == [WRITTEN[name]]


@pytest.mark.parametrize("value", [{"a": "x" * 10_000}, {"a": 10**400}, {"a": math.nan}, {"a": ["\0"]}])
def test_json_is_bounded_by_the_model_wherever_it_comes_from(value, project, boss):
    form = modelform_factory(Prompt, fields=["metadata"])  # what the admin makes
    assert "metadata" in form(data={"metadata": json.dumps(value)}).errors
    with pytest.raises(services.CampaignError, match=r"^round_settings: "):
        services.update_project(project, boss, round_settings=value)


def test_the_audit_log_keeps_how_a_long_value_begins(project, boss):
    services.update_project(project, boss, guidelines="x" * bounds.GUIDELINES)
    detail = AuditEntry.objects.latest("pk").detail
    assert detail == {"guidelines": ["", "x" * bounds.DETAIL + "…"]}


def all_forms():
    for module in pkgutil.walk_packages(webapp.__path__, "webapp."):
        if module.name.endswith(".forms"):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, forms.BaseForm) and value.__module__ == module.name:
                    yield value


def fields_of(form):
    if form.__name__ in ("TrainingForm", "RoundForm"):
        return form().fields
    return form.base_fields


def bounded(field) -> bool:
    kinds = {type(v) for v in field.validators}
    if isinstance(field, forms.IntegerField | forms.FloatField):
        model_bounds = getattr(field, "min_value", None) is not None and getattr(field, "max_value", None) is not None
        return model_bounds or {MinValueValidator, MaxValueValidator} <= kinds
    if isinstance(field, forms.DateField):
        return {MinValueValidator, MaxValueValidator} <= kinds
    if isinstance(field, forms.ChoiceField | forms.FileField | forms.BooleanField | forms.UUIDField):
        return True
    return getattr(field, "max_length", None) is not None or MaxLengthValidator in kinds


def test_every_field_of_a_form_is_bounded():
    found = list(all_forms())
    assert {form.__name__ for form in found} >= {"ProjectForm", "PromptsForm", "RoundForm", "ExportForm"}
    for form in found:
        for name, field in fields_of(form).items():
            full = f"{form.__name__}.{name}"
            of_the_model = issubclass(form, forms.ModelForm) and f"{form._meta.model.__name__}.{name}" in SET
            assert full in OTHERWISE or of_the_model or bounded(field), full


@pytest.mark.parametrize("name", [name.partition(".")[2] for name in SET if name.startswith("Project.")])
def test_project_form_admin_and_services_refuse_the_same(name, db, project, boss):
    limit = SET[f"Project.{name}"]
    form = modelform_factory(Project, fields=[name])  # what the admin makes
    for value in (limit.high + 1, limit.low - 1, 2**31 - 1, 10**30):
        assert name in form(data={name: value}).errors
        if isinstance(value, int) and name in services.EDITABLE:
            with pytest.raises(services.CampaignError, match=f"^{name}: "):
                services.update_project(project, boss, **{name: value})
    assert not form(data={name: limit.high}).errors


def test_guidelines_are_bounded_and_rendered_once(project, boss):
    with pytest.raises(services.CampaignError, match=r"^guidelines: "):
        services.update_project(project, boss, guidelines="*" * (bounds.GUIDELINES + 1))
    markdown.cache_clear()
    for _ in range(3):
        markdown("# Look closely")
    assert markdown.cache_info().misses == 1
    assert len(markdown("a" * 10 * bounds.GUIDELINES)) < 2 * bounds.GUIDELINES


# ---------------------------------------------------------------- the API

SCHEMAS = api.get_openapi_schema()["components"]["schemas"]
TAKEN = ("PromptIn", "PromptsIn", "DecisionIn", "SkipIn", "RoundIn", "BaseIn", "TrialIn", "TestIn", "WebhookIn")
TAKEN += ("PromptsChosen", "PromptsTagged", "Reasons", "RoleIn", "WhyIn")
# Objects of any keys, and what checks them.
OPEN = {"PromptIn.metadata": "campaigns.services", "RoundIn.settings": "common.settings"}


def test_every_field_that_the_api_takes_is_bounded():
    operations = [o for path in api.get_openapi_schema()["paths"].values() for o in path.values()]
    bodies = {
        content["schema"]["$ref"].rpartition("/")[2]
        for o in operations
        for kind, content in o.get("requestBody", {}).get("content", {}).items()
        if kind == "application/json"
    }
    assert bodies <= set(TAKEN), "a new body belongs into TAKEN"
    for name in TAKEN:
        for field, schema in SCHEMAS[name]["properties"].items():
            assert f"{name}.{field}" in OPEN or closed(schema), f"{name}.{field}"
    for operation in operations:
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "query":
                assert closed(parameter["schema"]), (operation["operationId"], parameter["name"])


def closed(schema) -> bool:
    """Whether a schema takes no number, text or list without end."""
    for together in ("anyOf", "allOf"):
        if together in schema:
            return all(closed(part) for part in schema[together])
    if "enum" in schema or "const" in schema or schema.get("type") in ("null", "boolean") or "$ref" in schema:
        return True
    wanted = {"string": {"maxLength"}, "array": {"maxItems"}, "object": {"maxProperties"}}
    return wanted.get(schema.get("type"), {"minimum", "maximum"}) <= set(schema)


def test_every_upload_has_a_limit():
    """Forms' files by the address that takes them; the API's by their operation."""
    takes_files = {
        form.__name__ for form in all_forms() for f in fields_of(form).values() if isinstance(f, forms.FileField)
    }
    forms_with_files = {"PromptsForm", "OwnImagesForm", "InputForm"}
    assert takes_files <= forms_with_files, "a new upload needs a row of uploads.FILES"
    assert {"import-labels", "own-images", "prompts", "new-project", "add-input"} <= set(uploads.FILES)
    sources = {path: path.read_text().count("request.FILES") for path in Path(webapp.__path__[0]).rglob("*.py")}
    taken = {path.parent.name: count for path, count in sources.items() if count}
    assert taken == {"exports": 1, "campaigns": 3, "imports": 1}, (
        "a new upload needs a row of uploads.FILES; then count it here"
    )
    for path, operations in api.get_openapi_schema()["paths"].items():
        for operation in operations.values():
            if "multipart/form-data" in operation.get("requestBody", {}).get("content", {}):
                names = {f"api:{operation['operationId'].rpartition('endpoints_')[2]}"}
                assert names & set(uploads.FILES), path


# ---------------------------------------------------------------- the parser

NO_NUMBERS = [
    "",
    " ",
    "²",
    "٣",
    "１",
    "1.0",
    "1e3",
    "+1",
    "0x1",
    "1_0",
    " 1",
    "1\n",
    "9" * 5000,
    "inf",
    "nan",
    "--1",
    None,
]
NO_NUMBERS += [True, False, 1.0, math.inf, math.nan, 10**400, -(10**400), [1], {"1": 1}, b"1"]


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_whole_number(value):
    with pytest.raises(bounds.OutOfBounds, match=r"^every: send a whole number from 1 to 1,000,000$"):
        bounds.EVERY.of_text(value, "every")
    with pytest.raises(bounds.OutOfBounds, match=r"^every: send a whole number from 1 to 1,000,000$"):
        bounds.EVERY.whole(value, "every")


@pytest.mark.parametrize("value", ["1", True, None, math.inf, -math.inf, math.nan, 10**400, 86_400.001, -1])
def test_what_is_no_number(value):
    with pytest.raises(bounds.OutOfBounds, match=r"^seconds: send a number from 0 to 86,400$"):
        bounds.SECONDS.real(value, "seconds")


def test_numbers_within():
    assert [bounds.EVERY.of_text(v, "every") for v in ("1", "0007", "1000000")] == [1, 7, 10**6]
    assert bounds.EVERY.whole(1_000_000, "every") == 10**6
    assert bounds.ANY.of_text("-9223372036854775808", "n") == -(2**63)
    assert bounds.SECONDS.real(3, "seconds") == 3.0
    assert bounds.DAYS.low < date.today() < bounds.DAYS.high


@pytest.mark.parametrize(
    "number", ["9" * 5000, "1" + "0" * 400, "-" + "9" * 30, str(2**63), "1e400", "NaN", "-Infinity"]
)
def test_json_with_a_number_that_nothing_holds_names_its_field(number):
    with pytest.raises(texts.Unstorable, match=r"^seconds: send a"):
        texts.loads(f'{{"key": 1, "a": [{{"seconds": {number}}}]}}')
