"""Django's PostgreSQL, which learns without a question that a connection that stayed open is still one."""
