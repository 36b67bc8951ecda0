"""What web app, trainer and workers share: settings, files, cards, addresses. No torch, no Django, no Celery."""
