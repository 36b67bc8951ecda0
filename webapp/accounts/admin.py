"""The themed admin for people."""

from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as BaseUserAdmin
from unfold.admin import ModelAdmin

from webapp.accounts.models import User

for model in (EmailAddress, SocialAccount, SocialApp, SocialToken):
    admin.site.unregister(
        model
    )  # the environment says which other site there is, and its pages who may come from there


@admin.register(User)
class UserAdmin(BaseUserAdmin, ModelAdmin):
    """Accounts and superusers."""
