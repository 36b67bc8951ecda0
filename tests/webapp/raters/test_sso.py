"""Logging in at another site: everything that is not a good answer to what this browser began is refused."""

import base64
import json
import time
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
import requests
from allauth.socialaccount.models import SocialAccount
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from django.urls import get_resolver

from tests import issuer as issuers
from webapp.accounts.models import User
from webapp.campaigns import membership
from webapp.campaigns.models import Membership, Role
from webapp.lib import sign_in as settings_of
from webapp.raters import oidc


@pytest.fixture
def issuer(settings):
    """A running one that the server trusts; unknown people do not get in."""
    with issuers.running() as found:
        about = {"client_id": issuers.CLIENT, "secret": issuers.SECRET, "name": "Example"}
        settings.LIKESTEP_OIDC = settings_of.SignIn(issuer=found.address, **about)
        settings.SOCIALACCOUNT_PROVIDERS = settings_of.apps(settings.LIKESTEP_OIDC)
        oidc._known.clear()
        yield found


@pytest.fixture
def rules(settings):
    """rules(…): other rules for who may come."""

    def change(**values):
        settings.LIKESTEP_OIDC = replace(settings.LIKESTEP_OIDC, **values)

    return change


@pytest.fixture
def joins(issuer, rules, project):
    """Unknown people join the project."""
    rules(join=(project.slug,))
    return issuer


def leave(client, **form):
    """The issuer's address that the page leads to."""
    page = client.post("/sso/login/", form)
    assert page.status_code == 200, page.content.decode()
    return page.context["address"]


def come_back(address):
    """What the issuer sends the browser to, once the person has logged in there."""
    parts = urlsplit(requests.get(address, allow_redirects=False, timeout=10).headers["Location"])
    return f"{parts.path}?{parts.query}"


def log_in(client=None, **form):
    client = client or Client()
    return client, client.get(come_back(leave(client, **form)))


def who(client) -> str | None:
    return client.session.get("_auth_user_id")


def refused(client, answer) -> bool:
    return answer.status_code == 403 and who(client) is None


def test_it_works(joins, project):
    client, answer = log_in(next="/p/stars/guidelines/")
    assert answer.url == "/p/stars/guidelines/"
    user = User.objects.get(pk=who(client))
    assert (user.username, user.email, user.outside, user.has_usable_password()) == ("jane", "", True, False)
    assert list(user.memberships.values_list("project__slug", "role")) == [("stars", "annotator")]
    account = SocialAccount.objects.get()
    assert (account.uid, account.provider, account.extra_data) == ("248289761001", joins.address, {})
    again, _ = log_in()
    assert who(again) == who(client) and User.objects.count() == 1


def test_state_nonce_and_pkce_are_on_the_way(joins):
    client = Client()
    asked = [parse_qs(urlsplit(leave(client)).query) for _ in range(2)]
    for name in ("state", "nonce", "code_challenge"):
        assert len(asked[0][name][0]) >= 16 and asked[0][name] != asked[1][name]
    assert asked[0]["code_challenge_method"] == ["S256"] and asked[0]["response_type"] == ["code"]
    assert set(asked[0]["scope"][0].split()) == {"openid", "profile", "email"}
    assert asked[0]["redirect_uri"] == ["http://testserver/sso/callback/"]


def test_what_the_browser_adds_changes_nothing(joins):
    client = Client()
    page = client.post("/sso/login/?scope=admin&auth_params=nonce%3Dmine%26prompt%3Dnone&next=//evil.example", {})
    asked = parse_qs(urlsplit(page.context["address"]).query)
    assert "admin" not in asked["scope"][0] and asked["nonce"] != ["mine"] and "prompt" not in asked
    for there in ("//evil.example/", "https://evil.example/", "javascript:alert(1)"):
        assert log_in(next=there)[1].url == "/"


NOW = int(time.time())
BAD_CLAIMS = {
    "another audience": {"aud": "somebody-else"},
    "several audiences without a party": {"aud": ["likestep", "other"]},
    "another party": {"azp": "other"},
    "another issuer": {"iss": "http://127.0.0.1:1"},
    "another nonce": {"nonce": "x" * 32},
    "expired": {"exp": NOW - 3600},
    "from the future": {"iat": NOW + 3600},
    "not yet": {"nbf": NOW + 3600},
    "no subject": {"sub": ""},
    "a long subject": {"sub": "x" * 192},
    "no text as subject": {"sub": 7},
}


@pytest.mark.parametrize("change", BAD_CLAIMS.values(), ids=BAD_CLAIMS)
def test_claims_that_are_not_for_us_now_are_refused(change, joins):
    joins.spoil = lambda claims: claims | change
    assert refused(*log_in())
    assert not User.objects.exists()


@pytest.mark.parametrize("name", ["aud", "iss", "exp", "iat", "nonce", "sub"])
def test_claims_that_are_missing_are_refused(name, joins):
    joins.spoil = lambda claims: {k: v for k, v in claims.items() if k != name}
    assert refused(*log_in())


def unsigned(claims):
    parts = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in ({"alg": "none"}, claims)]
    return ".".join([*parts, ""])


def flipped(token):
    head, body, signature = token.split(".")
    return f"{head}.{body}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


BAD_SIGNATURES = {
    "somebody else's": lambda issuer: lambda claims: jwt.encode(claims, issuer.other, "RS256", headers={"kid": "one"}),
    "an unknown key's": lambda issuer: lambda claims: jwt.encode(claims, issuer.key, "RS256", headers={"kid": "two"}),
    "none": lambda issuer: unsigned,
    "by the secret": lambda issuer: lambda claims: jwt.encode(claims, issuers.SECRET, "HS256", headers={"kid": "one"}),
    "changed": lambda issuer: lambda claims: flipped(issuer.signed(claims)),
    "no token": lambda issuer: lambda claims: "nothing",
}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("sign", BAD_SIGNATURES.values(), ids=BAD_SIGNATURES)
def test_signatures_that_are_not_the_issuer_s_are_refused(sign, joins):
    joins.sign = sign(joins)
    assert refused(*log_in())
    assert not User.objects.exists()


def test_an_answer_works_once_in_the_browser_that_asked(joins):
    client = Client()
    back = come_back(leave(client))
    stranger = Client()
    assert refused(stranger, stranger.get(back))  # somebody is to be logged in as another
    assert client.get(back).status_code == 302
    other = Client()
    other.cookies = client.cookies
    assert other.get(back).status_code == 403
    state = parse_qs(urlsplit(back).query)["state"][0]
    assert refused(*(lambda c: (c, c.get(f"/sso/callback/?state={state}&code=guess")))(Client()))


def test_a_code_is_worth_nothing_without_the_verifier(joins):
    """A code that was stolen from another log-in: its challenge is not this browser's."""
    thief, victim = Client(), Client()
    code = parse_qs(urlsplit(come_back(leave(victim))).query)["code"][0]
    state = parse_qs(urlsplit(leave(thief)).query)["state"][0]
    assert refused(thief, thief.get("/sso/callback/", {"state": state, "code": code}))


def test_cancelling_and_answers_of_another_issuer(joins):
    client = Client()
    state = parse_qs(urlsplit(leave(client)).query)["state"][0]
    answer = client.get("/sso/callback/", {"state": state, "error": "access_denied"})
    assert refused(client, answer) and "did not log you in" in answer.content.decode()
    back = come_back(leave(client))
    assert refused(client, client.get(f"{back}&iss=https://evil.example"))


DISCOVERY = {
    "another issuer": lambda found: found | {"issuer": "https://evil.example"},
    "no keys": lambda found: {k: v for k, v in found.items() if k != "jwks_uri"},
    "a script": lambda found: found | {"authorization_endpoint": "javascript:alert(1)"},
}


@pytest.mark.parametrize("change", DISCOVERY.values(), ids=DISCOVERY)
def test_a_discovery_document_that_is_wrong_leads_nowhere(change, joins):
    joins.discovery = change
    client = Client()
    assert client.post("/sso/login/").status_code == 403


def test_an_issuer_that_is_away_is_said(issuer, rules, settings):
    rules(issuer="http://127.0.0.1:1")
    settings.SOCIALACCOUNT_PROVIDERS = settings_of.apps(settings.LIKESTEP_OIDC)
    answer = Client().post("/sso/login/")
    assert answer.status_code == 403 and "cannot be used" in answer.content.decode()


def test_another_site_cannot_begin_and_getting_does_not(joins):
    assert Client(enforce_csrf_checks=True).post("/sso/login/").status_code == 403
    assert Client().get("/sso/login/").status_code == 405


def test_who_is_unknown_does_not_get_in_by_default(issuer, project):
    client, answer = log_in()
    assert refused(client, answer) and "Ask an admin" in answer.content.decode()
    assert not User.objects.exists()


def test_a_name_or_mail_address_opens_nobody_s_account(joins, ann):
    User.objects.filter(pk=ann.pk).update(email="jane@example.org")
    joins.person |= {"preferred_username": "ann", "sub": "other"}
    client, _ = log_in()
    user = User.objects.get(pk=who(client))
    assert user != ann and user.username.startswith("ann-") and not SocialAccount.objects.filter(user=ann).exists()


@pytest.mark.parametrize(
    ("person", "may"),
    [
        ({}, True),
        ({"email": "jane@EXAMPLE.org"}, True),
        ({"email_verified": False}, False),
        ({"email_verified": "true"}, False),
        ({"email": "jane@example.org.evil.example"}, False),
        ({"email": "jane@evil.example@example.com"}, False),
        ({"email": None}, False),
    ],
)
def test_only_verified_addresses_of_the_domains(person, may, joins, rules):
    rules(domains=("example.org",))
    joins.person |= person
    client, answer = log_in()
    assert (who(client) is not None) == may and refused(client, answer) != may


def test_groups_are_asked_each_time(joins, rules):
    rules(groups=("raters",))
    assert refused(*log_in())
    joins.person["groups"] = ["staff", "raters"]
    assert who(log_in()[0])
    joins.person["groups"] = ["staff"]
    assert refused(*log_in())


def test_deactivated_and_removed_people_do_not_come_back(joins, project, boss):
    client, _ = log_in()
    user = User.objects.get(username="jane")
    membership.remove_member(project, user.pk, boss)
    again, _ = log_in()
    assert again.get("/p/stars/annotate/").status_code == 404 and not user.memberships.exists()
    User.objects.filter(pk=user.pk).update(is_active=False)
    client, answer = log_in()
    assert refused(client, answer) and User.objects.filter(username__startswith="jane").count() == 1


def test_who_joins_is_a_rater_or_an_annotator_and_never_more(joins, rules, project):
    client, _ = log_in()
    assert client.get("/p/stars/annotate/").status_code == 200
    for path in ("", "api/", "compare/", "people/", "settings/"):
        assert client.get(f"/p/stars/{path}").status_code == 404
    rules(join_as="annotator")
    joins.person["sub"] = "second"
    client, _ = log_in()
    assert client.get("/p/stars/api/").status_code == 200
    assert client.get("/p/stars/").status_code == 404
    assert set(Membership.objects.values_list("role", flat=True)) == {"annotator"}


def test_an_invitation_lets_somebody_in_once_with_its_role(issuer, project, boss):
    token = membership.invite(project, Role.REVIEWER, boss)
    assert "Join by logging in at Example" in Client().get(f"/join/{token}/").content.decode()
    _, answer = log_in(invitation=token)
    user = User.objects.get(username="jane")
    assert answer.url == "/" and not user.outside
    assert user.memberships.get().role == Role.REVIEWER
    issuer.person["sub"] = "second"
    assert refused(*log_in(invitation=token))
    token = membership.invite(project, Role.ADMIN, boss)
    issuer.person["sub"] = "248289761001"
    _, answer = log_in(invitation=token)  # who is known is asked before it is used
    assert answer.url == f"/join/{token}/" and user.memberships.get().role == Role.REVIEWER


def test_a_member_adds_it_with_their_password_and_takes_it_away(issuer, ann, person):
    client = Client()
    client.force_login(ann)
    assert client.post("/sso/login/", {"process": "connect", "password": "wrong"}).url == "/account/"
    form = {"process": "connect", "password": "correct horse"}
    back = come_back(leave(client, **form))
    other = Client()
    other.force_login(person("bob"))
    assert other.get(back).status_code == 403
    assert client.get(back).url == "/account/"
    assert who(log_in()[0]) == str(ann.pk)
    other_back = come_back(leave(other, **form))
    assert other.get(other_back).status_code == 403  # it is ann's
    client.post("/sso/login/", {"process": "disconnect", "password": "correct horse"})
    assert refused(*log_in())


def test_nobody_begins_it_who_is_logged_out_or_from_outside(joins):
    form = {"process": "connect", "password": "correct horse"}
    assert Client().post("/sso/login/", form).status_code == 403
    client, _ = log_in()
    assert client.post("/sso/login/", form).status_code == 403


def test_of_allauth_no_page_is_mounted():
    found = [str(pattern.pattern) for pattern in get_resolver().url_patterns]
    assert [path for path in found if path.startswith(("accounts", "social", "sso"))] == ["sso/login/", "sso/callback/"]
    callbacks = [getattr(pattern, "callback", None) for pattern in get_resolver().url_patterns]
    assert not any(getattr(view, "__module__", "").startswith("allauth") for view in callbacks)


def test_it_is_off_by_default(db, settings, client):
    assert settings.LIKESTEP_OIDC is None
    assert "sso" not in client.get("/login/").content.decode()
    assert client.post("/sso/login/").status_code == client.get("/sso/callback/?state=x&code=y").status_code == 403


def test_the_log_has_no_token_or_code(joins, lines, caplog):
    joins.spoil = lambda claims: claims | {"aud": "other"}
    client = Client()
    back = come_back(leave(client))
    client.get(back)
    said = "\n".join(map(str, lines())) + caplog.text
    assert "InvalidAudienceError" in said
    secret = [parse_qs(urlsplit(back).query)[name][0] for name in ("code", "state")]
    assert not any(text in said for text in [*secret, issuers.SECRET])


GOOD = {"ISSUER": "https://id.example.org", "CLIENT_ID": "a", "SECRET": "b"}


def read(**values):
    return settings_of.read({f"LIKESTEP_OIDC_{name}": value for name, value in {**GOOD, **values}.items()})


def test_the_environment_says_it_all():
    assert settings_of.read({}) is None
    found = read(DOMAINS="@Example.org, b.org", GROUPS="x", JOIN="stars", JOIN_AS="annotator", NAME="Lab")
    assert found.domains == ("example.org", "b.org") and found.groups == ("x",)
    assert (found.join, found.join_as, found.name) == (("stars",), "annotator", "Lab")
    assert read().name == "id.example.org" and read(ISSUER="http://localhost:8080").issuer


@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ({"ISSUER": "http://id.example.org"}, "ISSUER"),
        ({"ISSUER": "id.example.org"}, "ISSUER"),
        ({"SECRET": ""}, "SECRET"),
        ({"CLIENT_ID": " "}, "CLIENT_ID"),
        ({"JOIN_AS": "admin"}, "JOIN_AS"),
        ({"JOIN": "a b"}, "JOIN"),
    ],
)
def test_a_wrong_environment_stops_the_start_and_names_the_variable(values, variable):
    with pytest.raises(ImproperlyConfigured, match=f"^LIKESTEP_OIDC_{variable}: "):
        read(**values)
