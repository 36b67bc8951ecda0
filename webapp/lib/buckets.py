"""How an S3 bucket is reached, as an entry of Django's STORAGES. Apart from `storage`, since settings need it first."""

from __future__ import annotations

from botocore.config import Config

CONNECT_SECONDS, READ_SECONDS = 2, 30  # a page that asks waits as long when nobody answers
TRIES = 3  # of a request; tasks and housekeeping try again later anyway
CONNECTIONS = 32


def s3_storage(bucket: str, endpoint: str = "", region: str = "") -> dict:
    """Keys come as boto finds them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the machine's own role."""
    config = Config(
        signature_version="s3v4",  # older ones cannot sign for every region
        s3={"addressing_style": "path" if endpoint else "virtual"},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        max_pool_connections=CONNECTIONS,
    )
    options = {"bucket_name": bucket, "client_config": config, "querystring_auth": True}
    options |= {"endpoint_url": endpoint or None, "region_name": region or None}
    return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
