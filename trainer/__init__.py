"""The trainer: few-step sampling, TDM distillation, TDM-R1 and the oracles. Knows neither Django nor Celery."""
