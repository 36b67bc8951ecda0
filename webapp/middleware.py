"""The content security policy: nothing inline, nothing from elsewhere."""

from __future__ import annotations

POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'self'; frame-ancestors 'none'; "
    "form-action 'self'; connect-src 'self' ws: wss:"
)
# The themed Django admin needs Alpine's expressions and inline styles; nobody but admins gets there.
ADMIN_POLICY = POLICY + "; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'"


def content_security_policy(get_response):
    """Adds the header to every response."""

    def middleware(request):
        response = get_response(request)
        policy = ADMIN_POLICY if request.path.startswith("/admin/") else POLICY
        response.headers.setdefault("Content-Security-Policy", policy)
        return response

    return middleware
