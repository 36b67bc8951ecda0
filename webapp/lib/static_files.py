"""How static files are served in production."""

from django.contrib.staticfiles.storage import HashedFilesMixin
from whitenoise.storage import CompressedManifestStaticFilesStorage


class HashedStaticFiles(CompressedManifestStaticFilesStorage):
    """Names with a hash of the content, so that browsers keep them for ever; also those by which our modules import
    each other. Other packages' scripts are not looked into: their comments have imports of files that are not there."""

    support_js_module_import_aggregation = True
    _js_module_import_aggregation_patterns = ("js/*.js", HashedFilesMixin._js_module_import_aggregation_patterns[1])
