"""Images that lie in a bucket are seen: the redirect and the page's security policy let the browser have them."""

import pytest

from tests.conftest import use_bucket
from tests.e2e.conftest import serve
from tests.e2e.helpers import picture, rate_by_keyboard
from tests.servers import S3_KEYS, database_url

BUCKET = "seen-in-a-browser"
SEEN = "() => [...document.querySelectorAll('#grid img')].map((image) => image.naturalWidth)"


@pytest.fixture(scope="module")
def server(s3, django_db_setup, django_db_blocker):
    """A web server whose files are in the bucket."""
    (s3.folder / BUCKET).mkdir()
    with django_db_blocker.unblock():
        url = database_url()
    where = {"LIKESTEP_S3_BUCKET": BUCKET, "LIKESTEP_S3_ENDPOINT": s3.endpoint, "LIKESTEP_S3_REGION": "us-east-1"}
    with serve(DATABASE_URL=url, **where, **S3_KEYS) as address:
        yield address


def test_a_group_is_seen_and_rated(site, s3, settings, monkeypatch):
    for name, value in S3_KEYS.items():
        monkeypatch.setenv(name, value)
    use_bucket(settings, s3, BUCKET)
    site.ready(3, size=4, pixels=600)
    page = site.rate(site.context(site.person("ann")))
    wrong = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    for _ in range(2):  # the second was loaded ahead
        page.wait_for_function(f"() => ({SEEN})().every((width) => width > 0)")
        assert len(page.evaluate(SEEN)) == 4
        if not wrong:
            picture(page, "bucket")
        rate_by_keyboard(page, lambda position: position == 0)
    assert wrong == []
    assert not (settings.LIKESTEP_DATA / "media" / "projects" / str(site.project.pk)).exists()
