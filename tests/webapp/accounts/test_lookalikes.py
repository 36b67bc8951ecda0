"""Names that a reader takes for somebody else's are refused, wherever a name is given."""

import pytest
from django.core.exceptions import ValidationError

from webapp.accounts.lookalikes import alike, mixes_scripts
from webapp.accounts.models import User
from webapp.campaigns import membership
from webapp.campaigns.models import Role

A, O_, C = "\u0430", "\u043e", "\u0441"  # Cyrillic letters that look like a, o, c


@pytest.mark.parametrize("name", [f"{A}nna", f"Ann{A}", f"p{O_}p", "\u03bfwen", "boss\u0561"])
def test_letters_of_several_scripts_are_no_name(name):
    assert mixes_scripts(name)


@pytest.mark.parametrize(
    "name",
    ["Anna", "José", "Анна", "Ελένη", "田中さくら", "ミケ", "김철수", "李lee", "दीपिका", "مريم", "דנה", "ann-1_b@c"],
)
def test_one_script_is_one(name):
    assert not mixes_scripts(name)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("coco", f"{C}{O_}{C}{O_}"),
        ("Ann", "ann"),
        ("Iris", "lris"),
        ("user1", "userl"),
        ("b0b", "bob"),
        ("\uff41nn", "ann"),
        ("ВОВ", "BOB"),
        ("arne", "ame"),
        ("ΤΟΝΥ", "TONY"),
    ],
)
def test_names_that_look_the_same(one, other):
    assert alike(one, other) and alike(other, one)


@pytest.mark.parametrize("names", ["Karl Kari", "rater1 rater2", "Jose José", "Анна Anna", "ann anna"])
def test_names_that_do_not(names):
    assert not alike(*names.split())


def test_a_form_refuses_them_and_an_old_name_stays(project, boss, client):
    User.objects.create_user("coco")
    token = membership.invite(project, Role.ANNOTATOR, boss)
    passwords = {"password1": "long enough pass", "password2": "long enough pass"}
    page = client.post(f"/join/{token}/", {"username": f"{C}{O_}{C}{O_}", **passwords}).content.decode()
    assert "looks like that of somebody" in page
    page = client.post(f"/join/{token}/", {"username": f"{A}nton", **passwords}).content.decode()
    assert "Use letters of one script" in page
    assert User.objects.count() == 2
    assert client.post(f"/join/{token}/", {"username": "anton", **passwords}).status_code == 302
    old = User.objects.create_user("C0CO")  # by a program, or from before there was the rule
    old.full_clean(exclude=["password"])
    old.username = "cOcO"
    with pytest.raises(ValidationError, match="looks like"):
        old.full_clean(exclude=["password"])
