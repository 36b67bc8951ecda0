"""Notices reach open pages without holding up the request that causes them, and many equal ones become few."""

import asyncio
import threading
import time

import pytest
from channels.layers import channel_layers, get_channel_layer

from webapp.lib.broker import project_channel
from webapp.lib.events import GATHER, Post

LABELS, QUEUE = {"type": "notice", "event": "labels"}, {"type": "notice", "event": "queue"}


@pytest.fixture(autouse=True)
def own_layer():
    """Redis' connections belong to an event loop."""
    channel_layers.backends.clear()
    yield
    channel_layers.backends.clear()


def test_equal_notices_become_one_and_later_ones_are_told_again():
    async def listen():
        layer = get_channel_layer()
        name = await layer.new_channel()
        await layer.group_add(project_channel(7), name)
        post = Post(asyncio.get_running_loop())

        def change():
            for _ in range(50):
                post.put(project_channel(7), LABELS)
            post.put(project_channel(7), QUEUE)
            post.put(project_channel(8), LABELS)  # another project's

        async def heard(seconds=2.0):
            return await asyncio.wait_for(layer.receive(name), seconds)

        thread = threading.Thread(target=change)
        thread.start()
        both = [await heard(), await heard()]  # sent at once, so either may arrive first
        assert LABELS in both
        assert QUEUE in both
        with pytest.raises(TimeoutError):
            await heard(4 * GATHER)
        post.put(project_channel(7), LABELS)
        assert await heard() == LABELS
        thread.join()

    asyncio.run(listen())


def test_nobody_waits_for_a_redis_that_is_gone(monkeypatch, caplog):
    async def listen():
        post, tried = Post(asyncio.get_running_loop()), asyncio.Event()

        async def lost(*_arguments):
            await asyncio.sleep(0.1)
            tried.set()
            raise ConnectionError("gone")

        monkeypatch.setattr(get_channel_layer(), "group_send", lost)
        started = time.monotonic()
        post.put(project_channel(7), LABELS)
        assert time.monotonic() - started < 0.05
        await asyncio.wait_for(tried.wait(), 2)
        await asyncio.sleep(0)

    asyncio.run(listen())
    assert "no live update labels for project-7: gone" in caplog.text
