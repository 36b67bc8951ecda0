"""What web app, trainer and workers share: settings, files, cards, addresses. No torch, no Django, no Celery."""

__version__ = "0.1.0"
