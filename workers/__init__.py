"""Celery workers: thin tasks that join the web app's rows to the trainer."""
