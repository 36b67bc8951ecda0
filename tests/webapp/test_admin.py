"""The Django admin: superusers only, every registered list opens."""

import pytest
from django.contrib import admin
from django.urls import reverse

from webapp.accounts.models import User

LISTS = [f"admin:{m._meta.app_label}_{m._meta.model_name}_changelist" for m in admin.site._registry]


@pytest.mark.parametrize("name", LISTS)
def test_lists_open_for_superusers_only(name, client, project, boss):
    client.force_login(boss)
    assert client.get(reverse(name)).status_code == 302
    client.force_login(User.objects.create_superuser("root"))
    assert client.get(reverse(name)).status_code == 200
