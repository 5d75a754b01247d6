"""Each event of a stream once: python consume_nats.py SERVER STREAM (needs nats-py)."""
import asyncio, sys
import nats

async def main(server, stream, seen=set()):  # seen: yours is a table beside what you write
    connection = await nats.connect(server)
    durable = await connection.jetstream().pull_subscribe(">", durable="my-app", stream=stream)
    while True:
        for message in await durable.fetch(100, timeout=3600):
            if message.headers["ce-id"] not in seen:
                seen.add(message.headers["ce-id"])
                print(message.headers["ce-type"], message.headers["ce-id"], message.data.decode(), flush=True)
            await message.ack()

asyncio.run(main(*sys.argv[1:]))
