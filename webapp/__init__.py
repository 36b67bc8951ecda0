"""The Django app: what people see and what is remembered."""
