"""Keys of the rating page: each person's own, never two commands on one key, never anything but plain text."""

import pytest

from webapp.labelling import keys


def test_defaults_cover_every_command_and_24_images_once():
    assert len(set(keys.DEFAULTS.values())) == len(keys.DEFAULTS) == len(keys.COMMANDS) + 24


@pytest.fixture
def page(client, ann, project):
    client.force_login(ann)

    def post(**changed):
        return client.post("/p/stars/me/", {**keys.DEFAULTS, "keys_on": "on", **changed})

    post.html = lambda name="annotate": client.get(f"/p/stars/{name}/").content.decode()
    return post


def test_it_works(page, ann):
    assert page(submit="J", like_all="pageup").status_code == 302
    ann.preferences.refresh_from_db()
    assert ann.preferences.keys == {"submit": "j", "like_all": "PageUp"}
    assert '"submit": "j"' in page.html()


def test_two_commands_may_swap_their_keys(page, ann):
    assert page(like_all="d", dislike_all="l").status_code == 302
    assert keys.merged(ann.preferences.keys)["like_all"] == "d"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"like_all": "D"}, "Dislike all: the key D is taken by “Like all”"),
        ({"image_3": "2"}, "Image 3: the key 2 is taken by “Image 2”"),
        ({"skip": ""}, "Skip: choose one letter"),
        ({"skip": "ab"}, "Skip: choose one letter"),
        ({"skip": "Tab"}, "Skip: choose one letter"),
        ({"skip": "?"}, "Skip: choose one letter"),
        ({"skip": "\x07"}, "Skip: choose one letter"),
    ],
)
def test_a_clash_or_a_key_that_is_none_names_the_field(page, ann, changed, message):
    answer = page(**changed)
    assert answer.status_code == 400
    assert message in answer.content.decode()
    assert not hasattr(ann, "preferences")


def test_markup_is_no_key_and_is_never_obeyed(page, project):
    answer = page(skip='"><script>alert(1)</script>')
    assert answer.status_code == 400
    assert "<script>alert" not in answer.content.decode()
    project.guidelines = (
        "# Title\n<script>alert(1)</script> [a](javascript:alert(1)) ![i](https://x.example/i.png) **bold**"
    )
    project.save()
    for name in ("annotate", "guidelines"):
        html = page.html(name)
        assert "<script>alert" not in html and 'href="javascript' not in html and '<img src="https' not in html
        assert "<strong>bold</strong>" in html and '<h3 dir="auto">Title</h3>' in html


def test_one_sign_of_markup_is_a_key_like_any_other(page):
    page(skip="<")
    assert '"skip": "\\u003C"' in page.html()


def test_keys_can_be_switched_off_and_put_back(page, ann):
    page(submit="j", keys_on="")
    assert '"keys": {}' in page.html()
    page(reset="1")
    assert ann.preferences.keys == {} or ann.__class__.objects.get(pk=ann.pk).preferences.keys == {}


def test_a_default_whose_key_was_given_away_has_none():
    assert keys.merged({"submit": "f"})["flag"] == ""
