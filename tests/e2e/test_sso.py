"""Logging in at another site, in a browser: there and back under the page's own security policy, by keys, on a phone."""

import os

import pytest

from tests import issuer as issuers
from tests.e2e.conftest import serve
from tests.e2e.helpers import CHROMIUM, faults, fits, picture
from tests.servers import database_url
from webapp.accounts.models import User

pytestmark = pytest.mark.skipif(CHROMIUM is None and not os.environ.get("CI"), reason="no chromium")
SMALL = {"width": 360, "height": 740}


def test_somebody_from_another_site_rates(site):
    site.ready(1)
    with issuers.running() as issuer:
        about = {"ISSUER": issuer.address, "CLIENT_ID": issuers.CLIENT, "SECRET": issuers.SECRET}
        about |= {"NAME": "Example Lab", "JOIN": "stars"}
        variables = {f"LIKESTEP_OIDC_{name}": value for name, value in about.items()}
        with serve(DATABASE_URL=database_url(), **variables) as address:
            context = site.browser.new_context(viewport=SMALL, service_workers="block", reduced_motion="reduce")
            site.contexts.append(context)
            page = context.new_page()
            page.goto(f"{address}/login/?next=/p/stars/annotate/")
            wrong = faults(page)
            page.emulate_media(color_scheme="light")
            picture(page, "sso-login-phone")
            assert fits(page)
            button = page.get_by_role("button", name="Log in by Example Lab")
            button.focus()
            page.keyboard.press("Enter")
            page.locator("#grid .tile-image").first.wait_for()
            assert page.url == f"{address}/p/stars/annotate/"
            assert page.locator(".account").get_by_role("link").count() == 0
            page.close()
    assert User.objects.get(username="jane").outside
    assert wrong == []
