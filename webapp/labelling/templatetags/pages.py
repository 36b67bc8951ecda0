"""Links from one page of a list to another."""

from django import template

register = template.Library()


@register.simple_tag(takes_context=True)
def page_link(context, name: str, number: int) -> str:
    """The query of page `number` of the list `name`; other lists of the page and filters stay as they are."""
    query = context["request"].GET.copy()
    query[name] = number
    return f"?{query.urlencode()}"
